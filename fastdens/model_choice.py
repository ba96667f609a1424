"""How many components each model of a batch needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import ConvergenceWarning, check_batch, check_batch_of, check_integer
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.options import check_choice
from fastdens.kernels.surroundings import undisturbed
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.covariances import TIED_ACROSS_MODELS
from fastdens.mixtures.failures import Failures, failures_of, non_finite, raise_failures, without_points
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.own_components import fit_own_components, with_components
from fastdens.mixtures.parts import warn
from fastdens.progress import progress_bar

CRITERIA = ("bic", "icl", "held_out")

# The random vector that deals the points of a model to folds.
_FOLDS = 7


@dataclass(frozen=True)
class ComponentChoice:
    """What a criterion says of each number of components, for M models and R numbers.

    Attributes
    ----------
    criterion : {"bic", "icl", "held_out"}
        The first two are the better the lower, the last the higher.
    n_components : Tensor
        int64 [R], the numbers that were tried, ascending.
    values : Tensor
        float64 [M, R]; NaN where a model cannot have so many components, such as more than it has points.
    standard_errors : Tensor or None
        float64 [M, R], of the mean held-out log-density over the points, given the fits; None of the other criteria.
    best : Tensor
        int64 [M], the number of components of each model; 0 for one that failed.
    estimator : BaseMixtures
        Fitted to the batch, each model with ``best`` components. It has as many as the largest needs: those of weight
        zero behind a model's own change no density and no responsibility, and ``sample`` never draws them.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(400, 2), torch.arange(400) % 2)
    >>> choice = fd.select_components(batch, [1, 2, 3])
    >>> choice.values.shape, choice.n_components
    (torch.Size([2, 3]), tensor([1, 2, 3]))
    """

    criterion: str
    n_components: Tensor
    values: Tensor
    standard_errors: Tensor | None
    best: Tensor
    estimator: Any


class _Values(NamedTuple):
    """A criterion and its standard error for one number of components, float64 [M]; the models that failed, and why."""

    value: Tensor
    standard_error: Tensor
    failures: Failures


@undisturbed
def select_components(
    batch: RaggedBatch,
    n_components: Iterable[int] = range(1, 11),
    criterion: str = "bic",
    *,
    estimator: BaseMixtures | None = None,
    held_out: RaggedBatch | None = None,
    n_folds: int = 5,
    sample_weight: ArrayLike | Tensor | None = None,
    max_memory: MemoryLimit | None = None,
    progress: bool = False,
) -> ComponentChoice:
    """Choose the number of components of every model of a batch, each its own, and fit it.

    The mixtures of each number are fitted to all models at once. Of numbers that are equally good the smallest is
    chosen.

    Parameters
    ----------
    batch : RaggedBatch
        Points of all models.
    n_components : iterable of int
        The numbers K to choose from. A class of fewer than K points is not tried with K.
    criterion : {"bic", "icl", "held_out"}
        "bic": the Bayesian information criterion ``-2 log L + p log n``, lower is better. "icl": the integrated
        completed likelihood, BIC plus twice the entropy ``-sum_ik r_ik log r_ik`` of the responsibilities, which
        counts clusters that are apart rather than components that follow a shape; lower is better. "held_out": the
        mean log-density per point of points that were not fitted, higher is better.
    estimator : GaussianMixtures or another estimator with ``n_components``, optional
        Its parameters are those of all fits; it stays as it is. By default ``GaussianMixtures()``.
    held_out : RaggedBatch, optional
        Points of the same models for "held_out". By default that is cross-validated within each class.
    n_folds : int
        Parts of that cross-validation, at least 2. Which points of a class are in a part depends on the number and
        order of its points and on the estimator's ``random_state`` alone.
    sample_weight : array or Tensor, optional
        [N], as :meth:`RaggedBatch.weighted` takes them; by default the weights of the batch, if it has some.
    max_memory : int or str, optional
        As of ``fit``.
    progress : bool
        Show a bar of the numbers that were tried.

    Returns
    -------
    ComponentChoice
        The number of each class, the criterion of every number, and an estimator that is fitted.

    Raises
    ------
    ModelError
        If no number fits a class and the estimator's ``on_error`` is "raise".
    TypeError, ValueError
        If an argument is none of these.

    Warns
    -----
    ConvergenceWarning
        If chosen models did not converge.

    References
    ----------
    Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978. Biernacki, Celeux & Govaert, Assessing a
    mixture model for clustering with the integrated completed likelihood, IEEE PAMI 22, 2000. Smyth, Model selection
    for probabilistic clustering using cross-validated likelihood, Statistics and Computing 10, 2000.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x = torch.randn(600, 2)
    >>> x[:200] += 20
    >>> batch = fd.RaggedBatch.from_labels(x, ["two"] * 400 + ["one"] * 200)
    >>> choice = fd.select_components(batch, range(1, 5))
    >>> dict(zip(batch.classes, choice.best.tolist()))
    {'one': 1, 'two': 2}
    >>> choice.estimator.log_prob(x).shape
    torch.Size([600, 2])
    """
    candidates = _candidates(n_components)
    check_choice("criterion", criterion, CRITERIA)
    check_integer("n_folds", n_folds, 2)
    pattern = _checked(GaussianMixtures() if estimator is None else estimator)
    weighted = _weighted(batch, sample_weight)
    failures = {} if held_out is None else _held_out_failures(weighted, held_out, criterion)
    tried = []
    with progress_bar("Numbers of components", len(candidates), shown=progress) as advance:
        for k in candidates:
            own = with_components(pattern, k)
            own.on_error = "skip"
            with warnings.catch_warnings():
                # Of fits that are not chosen nobody need be warned.
                warnings.simplefilter("ignore", ConvergenceWarning)
                if criterion != "held_out":
                    tried.append(_information(own, weighted, criterion, max_memory))
                elif held_out is not None:
                    tried.append(_held_out(own, weighted, held_out, max_memory))
                else:
                    tried.append(_cross_validated(own, weighted, n_folds, max_memory))
            advance()
    values = torch.stack([one.value for one in tried], 1)
    for m in torch.nonzero(values.isnan().all(1))[:, 0].tolist():
        reasons = (one.failures[m] for one in tried if m in one.failures)
        failures.setdefault(m, next(reasons, "has no finite log-density: compute in dtype=torch.float64"))
    if pattern.on_error == "raise":
        raise_failures(weighted, failures, "leave those classes out, or pass an estimator with on_error='skip'")
    numbers = torch.tensor(candidates, device=values.device)
    losses = -values if criterion == "held_out" else values
    chosen = numbers[losses.nan_to_num(nan=torch.inf).argmin(1)]
    fitted = fit_own_components(pattern, weighted, chosen, failures, max_memory)
    # Past what keeps this function undisturbed.
    warn(fitted, weighted, stacklevel=4)
    errors = torch.stack([one.standard_error for one in tried], 1) if criterion == "held_out" else None
    return ComponentChoice(criterion, numbers, values, errors, chosen.masked_fill(fitted.failed_, 0), fitted)


def _candidates(n_components: Iterable[int]) -> list[int]:
    """The numbers of components to try, ascending."""
    if isinstance(n_components, str) or not isinstance(n_components, Iterable):
        raise TypeError(f"n_components is {n_components!r}: pass the numbers to choose from, such as range(1, 11).")
    candidates = sorted({check_integer("a number of n_components", k, 1) for k in n_components})
    if not candidates:
        raise ValueError("n_components is empty: pass the numbers to choose from, such as range(1, 11).")
    return candidates


def _checked(estimator: Any) -> Any:
    """The estimator, if the number of its components can be chosen."""
    if not isinstance(estimator, BaseMixtures) or "n_components" not in estimator._parameter_names():
        raise TypeError(f"estimator is {estimator!r}, which has no n_components to choose: pass a GaussianMixtures.")
    if getattr(estimator, "covariance_type", None) == TIED_ACROSS_MODELS:
        raise ValueError(
            f"estimator has covariance_type {TIED_ACROSS_MODELS!r}, with which models are not chosen one by one: pass "
            "another covariance_type."
        )
    for name in estimator._array_parameters:
        if getattr(estimator, name) is not None:
            raise ValueError(f"estimator has {name}, which fits one number of components: leave it out.")
    return estimator


def _weighted(batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None) -> RaggedBatch:
    """The batch, with weights if they are given here."""
    checked = check_batch(batch)
    if sample_weight is None:
        return checked
    if checked.weights is not None:
        raise ValueError("sample_weight is given, but the batch has weights: pass one of them.")
    return checked.weighted(sample_weight)


def _held_out_failures(batch: RaggedBatch, held_out: RaggedBatch, criterion: str) -> Failures:
    """Models whose held-out points say nothing, and why."""
    if criterion != "held_out":
        raise ValueError(f"held_out is given, but criterion is {criterion!r}: pass criterion='held_out'.")
    check_batch_of(held_out, batch.n_models, batch.n_features, batch.device)
    failures = {**without_points(held_out), **failures_of(held_out, non_finite)}
    return {m: f"in held_out {reason}" for m, reason in failures.items()}


def _information(estimator: Any, batch: RaggedBatch, criterion: str, max_memory: MemoryLimit | None) -> _Values:
    """BIC or ICL of each model, which have no standard error."""
    fit = estimator.fit(batch, max_memory=max_memory)
    value = fit.bic(batch)
    if criterion == "icl":
        resp = fit.predict_proba(batch)[batch.index].double()
        entropy = -torch.special.xlogy(resp, resp).sum(1)
        value += 2 * _sums(batch, entropy if batch.weights is None else batch.weights * entropy)
    return _Values(value, torch.full_like(value, torch.nan), fit.failures_)


def _held_out(estimator: Any, batch: RaggedBatch, held_out: RaggedBatch, max_memory: MemoryLimit | None) -> _Values:
    """Mean log-density of other points."""
    fit = estimator.fit(batch, max_memory=max_memory)
    return _Values(*_mean(held_out, fit.score_samples(held_out)[held_out.index]), fit.failures_)


def _cross_validated(estimator: Any, batch: RaggedBatch, n_folds: int, max_memory: MemoryLimit | None) -> _Values:
    """Mean log-density of points under the models fitted to the other folds."""
    fold = folds(batch, n_folds, estimator.random_state)
    weights = torch.ones_like(fold, dtype=torch.float64) if batch.weights is None else batch.weights
    log_prob = torch.full_like(weights, torch.nan)
    failures: Failures = {}
    for f in range(n_folds):
        left_out = fold == f
        rest = batch.weighted(batch.in_caller_order(weights.masked_fill(left_out, 0.0))).without_zero_weights()
        if batch.weights is None and rest.max_memory is None:
            rest = rest.weighted(None)
        fit = estimator.fit(rest, max_memory=max_memory)
        log_prob[left_out] = fit.score_samples(batch)[batch.index][left_out].double()
        failures = {**{m: f"without one of {n_folds} folds {why}" for m, why in fit.failures_.items()}, **failures}
    return _Values(*_mean(batch, log_prob), failures)


def folds(batch: RaggedBatch, n_folds: int, seed: int) -> Tensor:
    """The fold of each (sorted) row, int64 [N]: the points of every model dealt out evenly, in a random order.

    It depends on the number of the model's points, on their order and on the seed alone.
    """
    model, position = batch.layout.rows
    order = hashed_uniform(seed, _FOLDS, position).argsort(stable=True)
    order = order[model[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    # Sorted by model, the rows in random order take the places of the rows in their own.
    fold[order] = position % n_folds
    return fold


def _mean(batch: RaggedBatch, log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of values of the (sorted) rows of each model, weighted if they have weights, and its standard error."""
    log_prob, total = log_prob.double(), batch.total_weights
    weights = torch.ones_like(log_prob) if batch.weights is None else batch.weights
    # Even a density of zero does not count where the weight is zero.
    log_prob = torch.where(weights > 0, log_prob, 0.0)
    mean = _sums(batch, weights * log_prob) / total
    deviation = weights * (log_prob - mean[batch.model_of_row])
    n = _sums(batch, (weights > 0).double())
    return mean, (_sums(batch, deviation.square()) * n / (n - 1)).sqrt() / total


def _sums(batch: RaggedBatch, values: Tensor) -> Tensor:
    """Sums of values of the (sorted) rows of each model, float64 [M]."""
    return torch.segment_reduce(values, "sum", offsets=batch.offsets)
