"""The page on the kernels: its figures are those of the committed report, and its drawings are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
REPORT = json.loads((ROOT / "benchmarks" / "results" / "machine_code_sm90.json").read_text(encoding="utf-8"))


def test_figures_of_machine_code_are_those_of_the_report():
    rows = re.findall(r"^\| `(\w+)` \| (.+?), (\S+x.+?) \| ([\d, |]+) \|$", TEXT, flags=re.M)
    assert len(rows) == 6
    assert f"Triton {REPORT['triton']}" in TEXT
    for kernel, operation, shape, figures in rows:
        found = [
            (code["registers"], code["shared_bytes"], code["spill_bytes"], mix.get("FFMA", 0), mix.get("HGMMA", 0))
            for report in REPORT["kernels"]
            if (report["kernel"], report["operation"], report["shape"]) == (kernel, operation, shape)
            for code in [report["code"]]
            for mix in [code["mix"]]
        ]
        assert tuple(int(figure.replace(",", "")) for figure in figures.split("|")) in found, (kernel, shape)


def test_no_kernel_of_the_report_has_atomic_operations():
    assert all(report["code"]["mix"].keys().isdisjoint({"ATOM", "ATOMG", "RED"}) for report in REPORT["kernels"])


def test_drawings_are_there_and_say_what_they_show():
    drawings = re.findall(r"\]\((figures/\w+\.svg)\)", TEXT)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ElementTree.parse(ROOT / "docs" / drawing).getroot()
        assert all(root.findtext(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc"))
