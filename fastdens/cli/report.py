"""The report: one self-contained page, its figures as PNG and PDF beside it, every number again in one tidy CSV.

Numbers on the page stand in ``<data value="...">`` with all their digits; each is in a row of ``numbers.csv``.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fastdens.analysis.figures import save_figure
from fastdens.cli.page import SORTING, STYLE, Number, Numbers, csv_bytes
from fastdens.cli.sections import SECTIONS
from fastdens.io.atomic import written_whole

if TYPE_CHECKING:
    from fastdens.cli.analyze import Analysis


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise a FileExistsError if the folder has a report that may not be replaced."""
    if (folder / "report.html").exists() and not overwrite:
        raise FileExistsError(f"{folder / 'report.html'} exists already: choose another --output or pass --overwrite.")


def write_report(analysis: Analysis) -> Path:
    """Write ``report.html``, figures, ``numbers.csv``, ``examples.csv`` and ``report.json``; the page's path.

    Files of other names in the folder stay as they are.
    """
    folder = analysis.options.output
    sections = [section for section in SECTIONS if section.applies(analysis)]
    numbers = Numbers(number for section in sections for number in section.numbers(analysis))
    pictures = {}
    for section in sections:
        for name, draw in section.figures.items():
            png, _ = save_figure(draw(analysis), folder / name, overwrite=True)
            pictures[name] = png.read_bytes()
    body = "\n".join(section.html(analysis, numbers, pictures) for section in sections)
    files = {
        "numbers.csv": csv_bytes(Number._fields, numbers.rows),
        "examples.csv": _examples_csv(analysis),
        "report.json": _json(analysis, numbers),
        # The page comes last: where it is, everything it speaks of is.
        "report.html": _page(analysis, body).encode(),
    }
    for name, content in files.items():
        with written_whole(folder / name, overwrite=True) as partial:
            partial.write_bytes(content)
    return folder / "report.html"


def _json(analysis: Analysis, numbers: Numbers) -> bytes:
    rows = [
        {field: value if not isinstance(value, float) or math.isfinite(value) else None for field, value in fields}
        for fields in (number._asdict().items() for number in numbers.rows if not number.other_class)
    ]
    content = {"options": analysis.options.as_json(), "class_names": analysis.subject.class_names, "numbers": rows}
    return json.dumps(content, indent=1).encode()


def _examples_csv(analysis: Analysis) -> bytes:
    subject, names = analysis.subject, analysis.subject.class_names
    columns: dict[str, list[object]] = {
        "example": list(range(len(subject.labels))),
        "given label": [names[c] for c in subject.labels],
    }
    if subject.images is not None and subject.given is not None and subject.train_predicted is not None:
        columns["true label"] = [names[c] for c in subject.images.train_labels]
        columns["flipped"] = subject.given.flipped.int().tolist()
        columns["network's label"] = [names[c] for c in subject.train_predicted]
    for layer in analysis.layers:
        columns[f"log-density {layer.layer}"] = layer.log_density.tolist()
        columns[f"neighbour distance {layer.layer}"] = layer.neighbour_distance.tolist()
    if analysis.memorization is not None:
        columns["memorization score"] = analysis.memorization.scores.values.tolist()
        if analysis.memorization.scores.standard_error is not None:
            columns["memorization standard error"] = analysis.memorization.scores.standard_error.tolist()
    if analysis.robustness is not None:
        columns["density bin"] = (analysis.robustness.bins + 1).tolist()
    return csv_bytes(columns, zip(*columns.values(), strict=True))


def _page(analysis: Analysis, body: str) -> str:
    options = analysis.options
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastdens: {escape(options.subject)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>How the classes of {escape(options.subject)} are fitted</h1>
{body}
<p>Every number of this page is in <code>numbers.csv</code>, with its standard error or interval in the same row, and
so are the divergences of all pairs of classes; every training example is a row of <code>examples.csv</code>; each
figure is beside this page as PNG and as PDF. Options: <code>{escape(json.dumps(options.as_json()))}</code></p>
<script>{SORTING}</script>
</body>
</html>
"""
