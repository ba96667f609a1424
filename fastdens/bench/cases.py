"""What is timed: an operation on data, with everything that all libraries are given alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor


class Problem(NamedTuple):
    """M models of N points in D dimensions, K components each."""

    name: str
    n_models: int
    n_points: int
    n_features: int
    n_components: int


class Parameters(NamedTuple):
    """Mixtures with one type of covariance.

    Attributes
    ----------
    weights : Tensor
        [M, K].
    means : Tensor
        [M, K, D].
    covariances : Tensor
        "full" [M, K, D, D], "tied" [M, D, D], "diag" [M, K, D], "spherical" [M, K].
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True)
class Case:
    """One row of the table, or some of its models.

    Attributes
    ----------
    operation : str
        "em", "start", "log_prob", "gibbs", "chains", "variational", "kl", "neighbours" or "scores".
    variant : str
        Of the operation: the type of covariance, the kind of start; "" if there is one only.
    problem : Problem
    points : Tensor
        [M, N, D], float32.
    n_iter : int
        Iterations or sweeps, the same for all.
    start : Parameters or None
        Of full covariances: where iterations begin; the fitted parameters, for operations on densities.
    queries : Tensor or None
        [Q, D], points to score or to look for neighbours of.
    labels : Tensor or None
        int64 [M, N], the cluster of each point from which sweeps and variational inference start.
    """

    operation: str
    variant: str
    problem: Problem
    points: Tensor
    n_iter: int = 0
    start: Parameters | None = None
    queries: Tensor | None = None
    labels: Tensor | None = None

    def first(self, n_models: int) -> Case:
        """The same with the first models only, for libraries that would take hours for all."""
        return replace(
            self,
            problem=self.problem._replace(n_models=n_models),
            points=self.points[:n_models],
            start=None if self.start is None else Parameters(*(part[:n_models] for part in self.start)),
            labels=None if self.labels is None else self.labels[:n_models],
        )


class Run(NamedTuple):
    """What a library does for a case.

    Attributes
    ----------
    work : callable
        Timed; returns what it made.
    outcome : callable
        What ``work`` returned, as the numbers that libraries should agree on: a float64 tensor.
    before : callable or None
        Work that the library cannot leave out and that is not asked for: timed alone and taken off.
    note : str
        What sets this library apart in this row: "its own k-means start".
    """

    work: Callable[[], Any]
    outcome: Callable[[Any], Tensor]
    before: Callable[[], Any] | None = None
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes
    ----------
    name : str
        As the table has it.
    distribution : str
        As PyPI has it, with the version: "gmm-gpu==0.2.8".
    module : str
        What is imported.
    beyond : str
        One paragraph: what it does that fastdens does not.
    operations : mapping of str to callable
        By operation, what makes a :class:`Run` of a :class:`Case`; an error that it raises stands in the table.
    variants : mapping of str to tuple of str
        By operation, the variants that it has, where it has not all.
    holds : mapping of str to callable
        By operation, how many bytes the work on a case holds at a time, where that is [N, K, D] or more: what would
        take too much is not begun, and the table says so.
    together : bool
        Whether it treats many models at once: it is timed on many then, not on as few as one.
    """

    name: str
    distribution: str
    module: str
    beyond: str
    operations: Mapping[str, Callable[[Case], Run]] = field(default_factory=dict)
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holds: Mapping[str, Callable[[Case], int]] = field(default_factory=dict)
    together: bool = False

    def has(self, operation: str, variant: str) -> bool:
        """Whether the library can do that at all."""
        return operation in self.operations and variant in self.variants.get(operation, (variant,))
