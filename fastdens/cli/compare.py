"""``fastdens compare``: two analyses side by side."""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastdens.cli import help_groups
from fastdens.cli.analyze import ANALYSIS
from fastdens.cli.options import Flag
from fastdens.cli.output import Output
from fastdens.io.locks import alone_in
from fastdens.pipeline import Analysis
from fastdens.pipeline import compare as compare_analyses


def compare(
    a: Path,
    b: Path,
    /,
    *,
    output: Path = Path("comparison"),
    overwrite: Flag = False,
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
) -> None:
    """Set two analyses side by side: of two networks, two seeds, two densities or two protocols.

    Parameters
    ----------
    a, b : Path
        Folders of reports, or of saved analyses.
    output : Path
        Folder for comparison.html, its figures and numbers.csv.
    overwrite : bool
        Replace an earlier comparison in that folder.
    """
    from fastdens.report import check_comparison_output, comparison_metrics, write_comparison

    with alone_in(output):
        check_comparison_output(output, overwrite)
        comparison = compare_analyses(_load_analysis(a), _load_analysis(b), (str(a), str(b)))
        page = write_comparison(comparison, output)
    prints.line(f"Comparison: {page}")
    prints.document("compare", comparison=page, numbers=comparison_metrics(comparison).in_numbers())


def _load_analysis(folder: Path) -> Analysis:
    """The analysis in the folder of a report, or in this folder itself."""
    of_report = folder / ANALYSIS
    return Analysis.load(of_report if of_report.is_dir() else folder)
