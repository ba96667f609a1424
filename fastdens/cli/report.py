"""``fastdens report``: the page of an earlier analysis, drawn again."""
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


def report(
    folder: Path,
    /,
    *,
    output: Path | None = None,
    overwrite: Flag = False,
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
) -> None:
    """Draw the report of an earlier analysis again, without fitting anything.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    output : Path or None
        Another folder to draw it in.
    overwrite : bool
        Replace an earlier report in that other folder.
    """
    from fastdens.report import check_output, metrics_of, write_report

    analysis = Analysis.load(folder / ANALYSIS)
    with alone_in(output or folder):
        check_output(output or folder, overwrite or output is None)
        page = write_report(analysis, output or folder)
    prints.line(f"Report: {page}")
    prints.document("report", report=page, numbers=metrics_of(analysis).in_numbers())
