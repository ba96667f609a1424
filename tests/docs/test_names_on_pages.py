"""The pages that explain the code: every function and file that they name is one that there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted((DOCS / "mathematics").glob("*.md")), DOCS / "kernels.md", DOCS / "paper.md"]
NAME = re.compile(r"fastdens(\.\w+)+")
FILE = re.compile(r"(kernels|fastdens|tests|benchmarks|docs)/[\w/]+(\.\w+|/)?")


def code_of(page):
    """What stands in backticks, outside of blocks."""
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return set(re.findall(r"`([^`\n]+)`", text))


def is_there(name):
    """Whether a dotted name is a module, or leads from one to an attribute."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_and_files_on_a_page_exist(page):
    code = code_of(page)
    missing = sorted(name for name in code if NAME.fullmatch(name) and not is_there(name))
    missing += sorted(name for name in code if FILE.fullmatch(name) and not (ROOT / name).exists())
    assert not missing


def test_a_name_or_file_that_is_not_there_is_found():
    assert is_there("fastdens.kernels.gibbs_sweep") and is_there("fastdens.GaussianMixtures.bic")
    assert not is_there("fastdens.kernels.gibs_sweep") and not is_there("fastdens.GaussianMixtures.bix")


def test_every_page_of_the_mathematics_is_in_its_index():
    index = (DOCS / "mathematics" / "index.md").read_text(encoding="utf-8")
    listed = re.search(r"```\{toctree\}.*?\n\n(.*?)\n```", index, flags=re.S).group(1).split()
    assert set(listed) == {page.stem for page in PAGES if page.parent.name == "mathematics"} - {"index"}
