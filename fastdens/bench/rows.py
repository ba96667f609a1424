"""Which operations are timed on which sizes: the rows of the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from fastdens.bench.cases import Case, Problem
from fastdens.bench.ours import settled
from fastdens.bench.problems import PROBLEMS, clustered_points, densities, queries, start_of_em


class Row(NamedTuple):
    """An operation at a size.

    Attributes
    ----------
    operation, variant : str
        As of a :class:`~fastdens.bench.cases.Case`.
    problem : str
        A name of :data:`~fastdens.bench.problems.PROBLEMS`.
    n_iter : int
        Of the case: iterations, sweeps, draws of a Monte Carlo estimate, or which neighbour.
    """

    operation: str
    variant: str
    problem: str
    n_iter: int = 0

    @property
    def name(self) -> str:
        """What patterns of the command match: "em-full/paper-64"."""
        return f"{self.operation}{'-' if self.variant else ''}{self.variant}/{self.problem}"

    @property
    def scales(self) -> bool:
        """Whether a library that treats models one by one may be timed on some of them.

        Neighbours are looked for among the points of all models, and a Mahalanobis score has one covariance for all.
        """
        return self.operation not in ("neighbours", "scores")


FULL = (
    Row("em", "full", "paper-16", 20),
    Row("em", "full", "paper-64", 20),
    Row("em", "full", "imagenet", 2),
    Row("em", "full", "tiny", 10),
    Row("em", "full", "big", 2),
    Row("em", "full", "wide", 5),
    Row("em", "full", "small", 20),
    Row("em", "tied", "paper-64", 20),
    Row("em", "tied", "tiny", 2),
    Row("em", "tied", "big", 2),
    Row("em", "diag", "paper-64", 20),
    Row("em", "diag", "imagenet", 2),
    Row("em", "diag", "tiny", 10),
    Row("em", "diag", "big", 5),
    Row("em", "diag", "small", 20),
    Row("em", "spherical", "paper-64", 20),
    Row("em", "spherical", "tiny", 10),
    Row("em", "spherical", "big", 5),
    Row("factors", "", "wide", 10),
    Row("start", "kmeans++", "paper-64"),
    Row("start", "kmeans++", "imagenet"),
    Row("start", "kmeans++", "tiny"),
    Row("start", "kmeans++", "big"),
    Row("start", "kmeans", "paper-64", 10),
    Row("start", "kmeans", "tiny", 10),
    Row("start", "kmeans", "big", 5),
    Row("log_prob", "", "paper-64"),
    Row("log_prob", "", "imagenet-tenth"),
    Row("log_prob", "", "wide"),
    Row("log_prob", "", "small"),
    Row("gibbs", "", "paper-16", 4),
    Row("gibbs", "", "paper-64", 4),
    Row("gibbs", "", "small", 4),
    Row("chains", "", "paper-16-tenth", 400),
    Row("chains", "", "small", 400),
    Row("variational", "", "paper-16", 20),
    Row("variational", "", "paper-64", 20),
    Row("variational", "", "small", 20),
    Row("kl", "", "paper-16", 1000),
    Row("kl", "", "paper-64", 1000),
    Row("neighbours", "", "paper-64", 50),
    Row("neighbours", "", "wide", 50),
    Row("scores", "", "paper-64"),
    Row("scores", "", "imagenet-tenth"),
)

QUICK = (
    Row("em", "full", "paper-16", 5),
    Row("em", "full", "paper-64", 5),
    Row("em", "full", "imagenet-tenth", 2),
    Row("em", "full", "tiny", 5),
    Row("em", "full", "large", 2),
    Row("em", "full", "wide", 2),
    Row("em", "full", "small", 5),
    Row("em", "tied", "paper-16", 5),
    Row("em", "diag", "paper-16", 5),
    Row("em", "spherical", "paper-16", 5),
    Row("start", "kmeans++", "paper-64"),
    Row("start", "kmeans", "paper-64", 5),
    Row("log_prob", "", "paper-64"),
    Row("gibbs", "", "paper-16", 2),
    Row("chains", "", "paper-16-tenth", 100),
    Row("variational", "", "paper-16", 5),
    Row("kl", "", "paper-16", 200),
    Row("neighbours", "", "paper-64", 50),
    Row("scores", "", "paper-64"),
)


def choose(rows: Sequence[Row], patterns: Iterable[str]) -> tuple[Row, ...]:
    """The rows whose names match one of the patterns, all without patterns.

    A pattern is a part of a name, such as "em" or "paper-64", or has the wildcards of a shell: "em-*/tiny".

    Raises
    ------
    ValueError
        If a pattern matches no row.
    """
    wanted = set()
    patterns = tuple(patterns)
    for pattern in patterns:
        found = {row for row in rows if _matches(row.name, pattern.lower())}
        if not found:
            raise ValueError(f"no row matches {pattern!r}: fastdens bench --list shows the rows that there are.")
        wanted |= found
    return tuple(row for row in rows if row in wanted or not patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name


def make_case(row: Row) -> Case:
    """The data of a row, the same in every run."""
    return case_of(row, PROBLEMS[row.problem])


def case_of(row: Row, problem: Problem) -> Case:
    """The data of a row at another size."""
    points, labels = clustered_points(problem)
    case = Case(row.operation, row.variant, problem, points, row.n_iter)
    k = problem.n_components
    match row.operation:
        case "em":
            return replace(case, start=start_of_em(points, labels, k))
        case "log_prob":
            return replace(case, start=densities(points, labels, k), queries=queries(problem))
        case "kl":
            return replace(case, start=densities(points, labels, k))
        case "gibbs":
            return settled(replace(case, labels=labels))
        case "variational":
            return replace(case, labels=labels)
        case "neighbours" | "scores":
            return replace(case, queries=queries(problem))
    return case
