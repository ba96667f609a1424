"""A section of the report: its metrics, its figures, and the template of its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fastdens.pipeline.results import Analysis
from fastdens.report.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    name : str
        Name of the section in identifiers of metrics, of its template without the suffix, and of the target of links.
    title : str
        Its heading, also in the list of contents.
    applies : callable
        Whether an analysis has this section.
    metrics : callable
        Its metrics, in the order of ``numbers.csv``.
    figures : callable
        Its figures, each after its name.
    context : callable
        What its template needs beside the analysis, metrics and figures.
    """

    name: str
    title: str
    applies: Callable[[Analysis], bool] = lambda analysis: True
    metrics: Callable[[Analysis], Iterable[Metric]] = lambda analysis: ()
    figures: Callable[[Analysis], Iterable[tuple[str, Figure]]] = lambda analysis: ()
    context: Callable[[Analysis], Mapping[str, object]] = lambda analysis: {}


def known(part: T | None) -> T:
    """A part that the analysis must have, or the section would not apply."""
    if part is None:
        raise ValueError("the analysis does not have the part that this section is about.")
    return part
