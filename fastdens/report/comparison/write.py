"""Write a comparison: one page, its figures as PNG and PDF beside it, and its numbers as a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fastdens.pipeline.comparison import Comparison
from fastdens.report.comparison.figures import figures
from fastdens.report.comparison.metrics import GROUPS, comparison_metrics
from fastdens.report.figures import Picture, save_pictures
from fastdens.report.metrics import Metric, Metrics
from fastdens.report.page import make_environment
from fastdens.report.write import csv_text, write_texts

_PAGE, _REPORT = "comparison.html", "report.html"


def check_comparison_output(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that a comparison may be written into a folder.

    Parameters
    ----------
    folder : path-like
        It need not exist.
    overwrite : bool
        Whether a comparison in it may be replaced.

    Raises
    ------
    FileExistsError
        If it has a report, or a comparison that may not be replaced.
    """
    page, report = Path(folder) / _PAGE, Path(folder) / _REPORT
    if report.exists():
        raise FileExistsError(f"{folder} holds a report, whose numbers would be replaced: choose another --output.")
    if page.exists() and not overwrite:
        raise FileExistsError(f"{page} exists already: choose another --output or pass --overwrite.")


def write_comparison(comparison: Comparison, folder: str | os.PathLike[str]) -> Path:
    """Write a comparison into a folder: ``comparison.html``, its figures, and ``numbers.csv``.

    A comparison in the folder is replaced; files of other names stay. The page is written last.

    Parameters
    ----------
    comparison : Comparison
        As :func:`fastdens.pipeline.compare` returned it.
    folder : path-like
        It is created if it is missing.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ImportError
        If matplotlib or jinja2 is not installed.
    ValueError
        If two layers or two classes have the same name.
    """
    folder, metrics = Path(folder), comparison_metrics(comparison)
    pictures = save_pictures(figures(comparison), folder)
    numbers, page = csv_text(Metric._fields, metrics.values()), render_comparison(comparison, metrics, pictures)
    write_texts(folder, {"numbers.csv": numbers, _PAGE: page})
    return folder / _PAGE


def render_comparison(comparison: Comparison, metrics: Metrics, pictures: Mapping[str, Picture]) -> str:
    """A comparison as one self-contained page of HTML.

    Parameters
    ----------
    comparison : Comparison
    metrics : Metrics
        Those of the comparison.
    pictures : mapping
        Those of the comparison, by name.

    Raises
    ------
    KeyError
        If the page needs a metric or a picture that is not there.
    """
    template = make_environment().get_template(_PAGE)
    return template.render(
        comparison=comparison, metrics=metrics, pictures=pictures, layers=comparison.layers, groups=GROUPS
    )
