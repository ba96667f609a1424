"""Fits of Gaussian mixtures that share one covariance: which models are read at a time, and the result as tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.inference.em import Start
from fastdens.inference.shared_covariance import (
    SharedAscent,
    SharedProblem,
    better_of,
    expectation_maximization,
    no_ascent,
)
from fastdens.kernels.layout import bounded_runs
from fastdens.memory import MemoryLimit, code_bytes, parse_bytes
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.covariances import check_each_by_itself
from fastdens.mixtures.partition import Partition
from fastdens.progress import progress_bar

AscentT = TypeVar("AscentT", bound=tuple[Any, ...])

_NOT_POSITIVE_DEFINITE = (
    "shares a covariance that is not positive definite: raise reg_covar, choose a shrinkage, add points, or compute in "
    "dtype=torch.float64"
)
# Of a start, what each model has of its own.
_OF_MODELS = ("weights", "means", "lower_bound")
# Numbers of points that are worked on at a time where memory has no limit: on a CPU so few that the memory they take is
# there for the next ones.
_MOST_ELEMENTS, _MOST_ELEMENTS_ON_CPU = 1 << 24, 1 << 20
# Of points as they are read, centred, whitened and multiplied; and of matrices [D, D] in float64.
_COPIES, _MATRICES = 8, 8


def groups_of_models(
    batch: RaggedBatch, max_memory: MemoryLimit | None, n_components: int, dtype: torch.dtype
) -> list[tuple[int, int]]:
    """Runs ``begin, end`` of models to read at a time, within a limit on memory if there is one.

    Raises
    ------
    ValueError
        If the limit is too little for a model, which the message names.
    """
    n_models, n_features, sizes = batch.n_models, batch.n_features, batch.sizes
    if max_memory is None:
        most = _MOST_ELEMENTS_ON_CPU if batch.device.type == "cpu" else _MOST_ELEMENTS
        return bounded_runs(sizes.tolist(), max(1, most // max(1, n_features)))
    number = torch.finfo(dtype).bits // 8
    model_bytes = (_COPIES * n_features + 4 * n_components) * number * sizes.double()
    results = 4 * 8 * n_models * n_components * (1 + n_features) + _MATRICES * 8 * n_features**2
    return batch.groups_within(parse_bytes("max_memory", max_memory), model_bytes, "fitting", code_bytes() + results)


class MixturesFittedTogether(BaseMixtures):
    """Base of Gaussian mixtures: starts, and the fit of models that share a covariance."""

    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    shrinkage: str | float | None

    @abstractmethod
    def _initial_parameters(self, batch: RaggedBatch) -> dict[str, Tensor]:
        """Initial weights, means and precisions of all models, checked; those that are None are left out."""

    @abstractmethod
    def _goes_on(self, batch: RaggedBatch) -> bool:
        """Whether ``fit`` goes on from parameters that are those of models of the batch."""

    def _check_each_by_itself(self) -> None:
        check_each_by_itself(self.covariance_type)

    def _best_ascent(
        self,
        initial: dict[str, Tensor],
        ascend: Callable[[Start], AscentT],
        better_of: Callable[[AscentT, AscentT], AscentT],
    ) -> AscentT:
        """The best of ``n_init`` ascents, for each model or for all together."""
        best: AscentT | None = None
        for i in range(self.n_init):
            # The seeds of one random_state are far apart, so that random_state and random_state + 1 share none.
            start = Start(self.n_components, self.init_params, self.random_state + (i << 32), **initial)
            result = ascend(start)
            best = result if best is None else better_of(best, result)
            if start.is_given:
                # Every start would be the same.
                break
        assert best is not None
        return best

    def _fit_together(self, batch: RaggedBatch, max_memory: MemoryLimit | None) -> dict[str, Tensor]:
        """The fitted attributes of models that share a covariance; points are read in groups of models.

        With ``warm_start``, the fit goes on from the last one if no model lacks its parameters.
        """
        self._check_parameters()
        (k, d), dtype = (self.n_components, batch.n_features), self.dtype or batch.dtype
        initial = self._initial_parameters(batch)
        failures = self._checked_failures(batch, groups_of_models(batch, max_memory, k, dtype))
        valid = Partition.of(batch, failures)
        ascent = no_ascent(k, d, dtype, batch.device)
        if self._goes_on(batch) and not bool(self.failed_[valid.models].any()):
            initial = {name: getattr(self, f"{name}_") for name in (*_OF_MODELS, "precisions_cholesky", "covariances")}
        if len(valid.models):
            own = {name: value[valid.models] for name, value in initial.items() if name in _OF_MODELS}
            groups = groups_of_models(valid.batch, max_memory, k, dtype)
            options = (self.reg_covar, self.shrinkage, self.backend, self.matmul_precision)
            problem = SharedProblem(valid.batch, groups, dtype, *options)
            limits: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter}
            with progress_bar("EM steps", self.max_iter * self.n_init, shown=self.progress) as advance:
                ascent = self._best_ascent(
                    {**initial, **own},
                    lambda start: expectation_maximization(problem, start, **limits, on_step=advance),
                    better_of,
                )
        if ascent.info.bad:
            valid = self._leave_out(valid, torch.ones_like(valid.models, dtype=torch.bool), _NOT_POSITIVE_DEFINITE)
            ascent = no_ascent(k, d, dtype, batch.device)
        self._set_failures(valid)
        return _fitted_tensors(valid, ascent)


def _fitted_tensors(valid: Partition, ascent: SharedAscent) -> dict[str, Tensor]:
    """The fitted attributes of :class:`fastdens.GaussianMixtures`."""
    state, info, n_iter, converged = ascent
    each = torch.ones(len(valid.models), dtype=torch.float64, device=valid.models.device)
    return {
        "weights_": valid.scatter(state.weights),
        "means_": valid.scatter(state.means.to(state.weights.dtype)),
        "covariances_": state.covariance,
        "precisions_cholesky_": state.factor,
        "converged_": valid.scatter(each == converged),
        "n_iter_": valid.scatter((each * n_iter).long()),
        "lower_bound_": valid.scatter(each * info.lower_bound),
        "n_points_seen_": valid.scatter(valid.batch.total_weights).nan_to_num(),
        "shrinkage_": torch.tensor(info.shrinkage, dtype=torch.float64, device=each.device),
    }
