"""Write a report: one page, its figures as PNG and PDF beside it, and its numbers and examples as tables."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastdens.io.atomic import atomic_write
from fastdens.pipeline.results import Analysis
from fastdens.printable import printable
from fastdens.report.figures import save_pictures
from fastdens.report.metrics import Metric, Metrics
from fastdens.report.page import options_json, render_page
from fastdens.report.sections import metrics_of, sections_of

_FORMULAS = ("=", "+", "-", "@")


def check_output(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that a report may be written into a folder.

    Parameters
    ----------
    folder : path-like
        It need not exist.
    overwrite : bool
        Whether a report in it may be replaced.

    Raises
    ------
    FileExistsError
        If it has a report that may not be replaced.
    """
    page = Path(folder) / "report.html"
    if page.exists() and not overwrite:
        raise FileExistsError(f"{page} exists already: choose another --output or pass --overwrite.")


def write_report(analysis: Analysis, folder: str | os.PathLike[str]) -> Path:
    """Write a report of the analysis into a folder.

    Its files are

    - ``report.html``, a self-contained page;
    - a PNG and a PDF of each figure;
    - ``numbers.csv``, every number of the page and the divergences of all pairs of classes, a row each;
    - ``examples.csv``, a row for each training example (a name that a spreadsheet would take for a formula has an
      apostrophe before it in both; identifiers and ``report.json`` have names as they are);
    - ``report.json``, the options and every number of the page.

    A report in the folder is replaced; files of other names stay. The page is written last: where it exists, the other
    files are complete.

    Parameters
    ----------
    analysis : Analysis
        As :func:`fastdens.pipeline.analyze` returned it.
    folder : path-like
        It is created if it is missing.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ImportError
        If matplotlib, scipy or jinja2 is not installed.
    ValueError
        If two layers or two classes have the same name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze
    >>> from fastdens.report import write_report
    >>> labels = np.arange(160) % 4
    >>> x = np.random.default_rng(0).normal(size=(160, 4)) + labels[:, None]
    >>> options = AnalysisOptions(density="gmm", components=1, entropy_draws=1000, divergence_draws=1000)
    >>> analysis = analyze(AnalysisData.from_activations({"layer4": x}, labels=labels), options, progress=False)
    >>> write_report(analysis, "my_report").name
    'report.html'
    """
    folder, sections, metrics = Path(folder), sections_of(analysis), metrics_of(analysis)
    pictures = save_pictures((figure for section in sections for figure in section.figures(analysis)), folder)
    files = {
        "numbers.csv": csv_text(Metric._fields, metrics.values()),
        "examples.csv": _examples_csv(analysis),
        "report.json": _json(analysis, metrics),
        "report.html": render_page(analysis, sections, metrics, pictures),
    }
    write_texts(folder, files)
    return folder / "report.html"


def write_texts(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, each after its name and whole or not at all, in this order."""
    for name, content in files.items():
        with atomic_write(folder / name, overwrite=True) as partial:
            partial.write_bytes(content.encode())


def _json(analysis: Analysis, metrics: Metrics) -> str:
    """The options, and all metrics except those of pairs of classes; a number that is not finite is null."""
    rows = [
        {
            field: None if isinstance(value, float) and not math.isfinite(value) else value
            for field, value in metric._asdict().items()
        }
        for metric in metrics.values()
        if not metric.other_class
    ]
    content = {
        "options": json.loads(options_json(analysis)),
        "class_names": analysis.examples.class_names,
        "numbers": rows,
    }
    return json.dumps(content, indent=1)


def _examples_csv(analysis: Analysis) -> str:
    examples = analysis.examples
    columns: dict[str, Iterable[object]] = {
        "example": range(len(examples.labels)),
        "given label": [*map(examples.name_of, examples.labels)],
    }
    if examples.true_labels is not None:
        columns["true label"] = [*map(examples.name_of, examples.true_labels)]
    if examples.flipped is not None:
        columns["flipped"] = examples.flipped.astype(int).tolist()
    if examples.train_predicted is not None:
        columns["network's label"] = [*map(examples.name_of, examples.train_predicted)]
    for layer in analysis.layers:
        columns[f"log-density {layer.name}"] = layer.log_density.tolist()
        if layer.in_sample is not None and layer.left_out is not None:
            columns[f"log-density in sample {layer.name}"] = layer.in_sample.tolist()
            columns[f"log-density left out {layer.name}"] = layer.left_out.tolist()
        columns[f"neighbour distance {layer.name}"] = layer.neighbour_distance.tolist()
    if analysis.memorization is not None:
        scores = analysis.memorization.scores
        columns["memorization score"] = scores.values.tolist()
        if scores.standard_error is not None:
            columns["memorization standard error"] = scores.standard_error.tolist()
    if analysis.robustness is not None:
        columns["density bin"] = (analysis.robustness.bins + 1).tolist()
    return csv_text(columns, zip(*columns.values(), strict=True))


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as the text of a CSV file; spreadsheets take names for names, not for formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, header))
    writer.writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """A value as a cell has it: before a name that a spreadsheet would compute, an apostrophe."""
    if not isinstance(value, str):
        return value
    name = printable(value)
    return f"'{name}" if name.startswith(_FORMULAS) and not _is_number(name) else name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
