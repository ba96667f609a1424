"""Dirichlet-process Gaussian mixtures for a batch of models, by variational inference."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Never

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_tensor
from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference.cluster_predictive import most_probable
from fastdens.inference.coordinate_ascent import Ascent
from fastdens.inference.predictive import FittedModels, PredictiveOptions
from fastdens.inference.variational import (
    VariationalInfo,
    VariationalProblem,
    VariationalState,
    nearest_centres,
    responsibilities,
    variational_inference,
)
from fastdens.inference.variational_predictive import FittedVariational
from fastdens.kernels.centre import central_points
from fastdens.kernels.k_means import start_rows
from fastdens.kernels.layout import Layout
from fastdens.kernels.races import copies_of_models
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import Doubt
from fastdens.mixtures.base_dirichlet_process import BaseDirichletProcessMixtures
from fastdens.mixtures.limited_memory import fit_in_memory
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.refits import RefittedMixtures

_ATTRIBUTES = (
    "weights_",
    "means_",
    "covariances_",
    "mean_precision_",
    "degrees_of_freedom_",
    "lower_bound_",
    "n_iter_",
    "converged_",
)
# A saved fit has the sticks under names of their own.
_SAVED_NAMES = {"stick_a": "concentration_0", "stick_b": "concentration_1"}


class VariationalDirichletProcessMixtures(RefittedMixtures, BaseDirichletProcessMixtures):
    """Infinite mixtures of Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`, by variational inference.

    The model is that of :class:`~fastdens.DirichletProcessMixtures`; its posterior is approximated by truncated
    stick-breaking, with scikit-learn's conventions (``BayesianGaussianMixture``). For fits that need no samples or are
    too large for sampling. ``DirichletProcessMixtures("vb", ...)`` makes one too.

    Parameters
    ----------
    truncation : int
        Components T of the variational posterior.
    max_iter : int
        Iterations at most.
    tol : float
        A model has converged when its lower bound changes by less than this.
    kappa0 : float
        How many points the prior mean is worth.
    nu0 : float, optional
        Degrees of freedom of the prior, greater than D - 1; D + 2 by default.
    variance_floor : float
        A feature that does not vary in a model counts as one that has this share of the mean variance of the model's
        other features; a warning names such models. Zero refuses them.
    init_components : int
        K0, by which the prior's scale is divided: as for :class:`~fastdens.DirichletProcessMixtures`.
    alpha_prior : (float, float)
        Shape and rate of the gamma prior of alpha.
    alpha : float, optional
        Keep alpha at this value.
    labels_init : array or Tensor, optional
        Integers [N], in the caller's row order: the component of each point at the start.
    resp_init : array or Tensor, optional
        Responsibilities [N, T] at the start, in the caller's row order.
    random_state : int
        Seed of the k-means++ start where neither is given.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    progress : bool
        Show a bar of the models that are fitted.
    dtype : torch.dtype, optional
        Compute in float32 or float64; by default in the dtype of the points.
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels in float32: "tf32x3" has the error of float32 and runs on tensor
        cores; "ieee" runs beside them; "tf32" has three digits.
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN, their labels -1.

    Attributes
    ----------
    weights_, means_, covariances_, mean_precision_, degrees_of_freedom_ : Tensor
        [M, T], [M, T, D], [M, T, D, D], [M, T], [M, T]: scikit-learn's attributes with a leading axis of models.
    weight_concentration_ : tuple of Tensor
        Two of [M, T], the parameters of the sticks.
    alpha_ : Tensor
        float64 [M, 1, 1], the mean of the concentration.
    n_components_ : Tensor
        int32 [M, 1, 1], components that hold points; 0 for a failed model.
    labels_ : Tensor
        int64 [1, N], the component of each point, in the caller's row order; -1 for a point of weight zero.
    lower_bound_, n_iter_, converged_ : Tensor
        [M]: the lower bound of the log evidence less constants, the iterations, and whether the bound settled.
    prior_, failed_, failures_
        As of :class:`~fastdens.DirichletProcessMixtures`.
    classes_ : tuple
        The class of each model, as in the batch.

    References
    ----------
    Blei & Jordan, Variational inference for Dirichlet process mixtures, Bayesian Analysis 1, 2006.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(1000, 8), torch.arange(1000) % 10)
    >>> vb = fd.VariationalDirichletProcessMixtures(truncation=5).fit(batch)
    >>> vb.means_.shape
    torch.Size([10, 5, 8])
    """

    method: str = "vb"

    truncation: int
    max_iter: int
    tol: float
    resp_init: ArrayLike | Tensor | None

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    mean_precision_: Tensor
    degrees_of_freedom_: Tensor
    weight_concentration_: tuple[Tensor, Tensor]
    lower_bound_: Tensor
    n_iter_: Tensor
    converged_: Tensor
    _fitted: FittedVariational

    def __init__(
        self,
        *,
        truncation: int = 20,
        max_iter: int = 500,
        tol: float = 1e-3,
        kappa0: float = 0.01,
        nu0: float | None = None,
        variance_floor: float = 1e-6,
        init_components: int = 6,
        alpha_prior: tuple[float, float] = (1.0, 1.0),
        alpha: float | None = None,
        labels_init: ArrayLike | Tensor | None = None,
        resp_init: ArrayLike | Tensor | None = None,
        random_state: int = 0,
        backend: str = "auto",
        progress: bool = False,
        dtype: torch.dtype | None = None,
        matmul_precision: str = "tf32x3",
        on_error: str = "raise",
    ) -> None:
        self._keep(locals())

    def fit(
        self,
        batch: RaggedBatch,
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
        checkpoint: None = None,
        checkpoint_every: int = 50,
        resume: bool = False,
    ) -> VariationalDirichletProcessMixtures:
        """Fit every model of the batch.

        Parameters
        ----------
        batch : RaggedBatch
            Points of the models to fit.
        sample_weight : array or Tensor, optional
            [N], in the caller's row order: a point of weight w counts as w equal points would, from the prior and the
            start on, and one of weight zero as if it were absent (:meth:`RaggedBatch.weighted`). By default the
            weights of the batch, if it has some.
        max_memory : int or str, optional
            As for :meth:`DirichletProcessMixtures.fit`.
        checkpoint, checkpoint_every, resume : optional
            For samplers only.

        Returns
        -------
        VariationalDirichletProcessMixtures
            Itself.

        Raises
        ------
        ModelError, TypeError, ValueError
            As for :meth:`DirichletProcessMixtures.fit`, if ``sample_weight`` are no weights, and if a checkpoint is
            asked for.

        Warns
        -----
        ConvergenceWarning
            If models stop at ``max_iter``.
        """
        if checkpoint is not None or resume:
            raise ValueError("method is 'vb', which has no checkpoint and nothing to resume: leave those out.")
        batch = self._weighted(batch, sample_weight)
        fit_in_memory(self, batch, max_memory, self._fit_at_once)
        self._warn(batch)
        return self

    def _fit_at_once(self, batch: RaggedBatch) -> None:
        self._check_parameters()
        valid = self._partition(batch)
        prior = self._prior_of(valid.batch)
        result, labels = self._fit_models(valid, prior)
        if bool(result.info.bad.any()):
            good = ~result.info.bad
            labels, prior = labels[good[valid.batch.model_of_row]], prior.select(good)
            reason = "lost a positive definite covariance: compute in dtype=torch.float64"
            valid, result = self._leave_out(valid, ~good, reason), result.select(good)
        self._scatter(valid, prior, result, labels)

    def _fit_bytes(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """Per row three copies in float64, four in the dtype of the fit, and five responsibilities; and the results.

        Results are twice T matrices, and labels of int64; the steps hold four times as much.
        """
        t, d, rows = self.truncation, batch.n_features, batch.sizes.double()
        size = torch.finfo(self._dtype_of_fit(batch)).bits // 8
        results = 2 * size * t * d * d + 64 * t * d + 8 * rows
        points = (24 * d + size * (4 * d + 5 * t)) * rows + self._weight_bytes(batch)
        return points + 4 * results, results

    def _doubts(self) -> list[Doubt]:
        problem = f"did not converge in {self.max_iter} iterations"
        return [Doubt(~self.converged_ & ~self.failed_, problem, "raise max_iter or tol"), *super()._doubts()]

    def _check_start(self, batch: RaggedBatch) -> None:
        self._given_responsibilities(batch)
        self._initial_labels(Partition.of(batch, {}), [(batch.n_points,)])

    def _dtype_of_fit(self, batch: RaggedBatch) -> torch.dtype:
        return self.dtype or batch.dtype

    def _fit_models(
        self, valid: Partition, prior: NormalInverseWishart
    ) -> tuple[Ascent[VariationalState, VariationalInfo], Tensor]:
        """The posterior in coordinates about the prior mean, and the component of each row int64 [n]."""
        batch = valid.batch
        # The fit has coordinates of its own, in which data far from the origin lose nothing to the rounding of means.
        origin = central_points(batch.points, batch.layout).double()
        of_rows = torch.repeat_interleave(origin, batch.sizes, 0)
        points = (batch.points.double() - of_rows).to(self._dtype_of_fit(batch))
        weights = self._weights_of_fit(batch)
        problem = self._problem(points, batch.layout, prior._replace(mean=prior.mean - origin), weights)
        resp = self._initial_responsibilities(valid, problem)
        result = variational_inference(problem, resp, tol=self.tol, max_iter=self.max_iter)
        labels = responsibilities(problem, result.state).argmax(1)
        means = result.state.means.double() + (origin - prior.mean)[:, None]
        return result._replace(state=result.state._replace(means=means)), labels

    def _weights_of_fit(self, batch: RaggedBatch) -> Tensor | None:
        """Weights of the points, which are positive, as positive numbers in the dtype of the fit."""
        if batch.weights is None:
            return None
        dtype = self._dtype_of_fit(batch)
        return batch.weights.to(dtype).clamp_min(torch.finfo(dtype).tiny)

    def _problem(
        self, points: Tensor, layout: Layout, prior: NormalInverseWishart, weights: Tensor | None
    ) -> VariationalProblem:
        alpha = None if self.alpha is None else float(self.alpha)
        options = (alpha, self.alpha_prior, self.backend, self.matmul_precision)
        return VariationalProblem(points, layout, prior, *options, weights)

    def _initial_responsibilities(self, valid: Partition, problem: VariationalProblem) -> Tensor:
        resp = self._given_start(valid)
        if resp is not None:
            return resp
        # Each point goes to the nearest of the rows that k-means++ chooses; a model of few points lacks the last ones.
        points, layout = problem.points, problem.layout
        counts, rows = self._start_rows(points, layout, problem.sample_weight)
        centres = points[rows]
        return self._one_component_each(nearest_centres(points, layout, centres, counts, self.backend), points.dtype)

    def _start_rows(self, points: Tensor, layout: Layout, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """How many rows k-means++ chooses in each model, int64 [M], and these rows, int64 [M, K]."""
        counts = copies_of_models(layout, weights).clamp_max(self.truncation)
        return counts, start_rows(points, layout, counts, self.random_state, self.backend, weights)

    def _given_start(self, valid: Partition) -> Tensor | None:
        """Responsibilities [n, T] of the rows to fit, of ``resp_init`` or ``labels_init``; None without them."""
        resp = self._given_responsibilities(valid.whole)
        if resp is not None:
            return resp[valid.batch.index].contiguous()
        labels = self._initial_labels(valid, [(valid.whole.n_points,)])
        if labels is None:
            return None
        if int(labels.max()) >= self.truncation:
            raise ValueError(f"labels_init goes to {int(labels.max())}, but truncation is {self.truncation}: raise it.")
        return self._one_component_each(labels, self._dtype_of_fit(valid.batch))

    def _one_component_each(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        resp = torch.zeros(len(labels), self.truncation, dtype=dtype, device=labels.device)
        return resp.scatter_(1, labels[:, None], 1.0)

    def _given_responsibilities(self, batch: RaggedBatch) -> Tensor | None:
        """``resp_init``, checked; None if it is not given."""
        if self.resp_init is None:
            return None
        resp = as_tensor(self.resp_init, "resp_init").detach().to(batch.device, self._dtype_of_fit(batch))
        if self.labels_init is not None:
            raise ValueError("labels_init and resp_init are both given: pass one of them.")
        if tuple(resp.shape) != (batch.n_points, self.truncation):
            raise ValueError(
                f"resp_init has shape {tuple(resp.shape)}, but it must be {(batch.n_points, self.truncation)}."
            )
        if not bool((resp >= 0).all()) or not torch.allclose(resp.sum(1), resp.new_ones(()), atol=1e-4):
            raise ValueError("resp_init must not be negative and every row must sum to 1.")
        return resp

    def _scatter(
        self,
        valid: Partition,
        prior: NormalInverseWishart,
        result: Ascent[VariationalState, VariationalInfo],
        labels: Tensor,
    ) -> None:
        state = result.state
        self._scatter_shared(valid, FittedVariational(valid.batch, valid.models, valid.whole.n_models, prior, state))
        self.weights_ = valid.scatter(state.weights)
        self.means_ = valid.scatter((state.means + prior.mean[:, None]).to(state.precisions_cholesky.dtype))
        self.covariances_ = valid.scatter(result.info.covariances)
        self.mean_precision_ = valid.scatter(state.mean_precision)
        self.degrees_of_freedom_ = valid.scatter(state.degrees_of_freedom)
        self.weight_concentration_ = (valid.scatter(state.stick_a), valid.scatter(state.stick_b))
        self.lower_bound_ = valid.scatter(result.info.lower_bound)
        self.n_iter_ = valid.scatter(result.n_iter)
        self.converged_ = valid.scatter(result.converged)
        self.alpha_ = valid.scatter(state.alpha)[:, None, None]
        self.labels_ = valid.scatter_rows(labels[None])
        used = torch.zeros_like(state.stick_a, dtype=torch.bool)
        used[valid.batch.model_of_row, labels] = True
        self.n_components_ = valid.scatter(used.sum(1).int())[:, None, None]

    def _predictive_options(self, weighting: str) -> PredictiveOptions:
        options = super()._predictive_options(weighting)
        if weighting == "published":
            raise ValueError("weighting is 'published', which is for Gibbs draws: method is 'vb'.")
        return options

    def predict_proba(self, batch: RaggedBatch) -> Tensor:
        """Responsibility of each component for each point, under the predictive Student-t densities.

        Parameters
        ----------
        batch : RaggedBatch
            Points of the fitted models, fitted or not.

        Returns
        -------
        Tensor
            [N, T + 1], rows that sum to one, in the caller's row order. The last column is the probability that the
            point belongs to no component that holds fitted points; components that hold none have 0. NaN for failed
            models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ModelError, TypeError, ValueError
            If the batch is not one of the fitted models.
        """
        checked = self._check_scored(batch)
        membership = self._fitted.membership(self.labels_[0, self._fitted.batch.index])
        return self._fitted.cluster_probabilities(checked, self._predictive_options("exact"), membership)

    def predict(self, batch: RaggedBatch) -> Tensor:
        """Most probable component of each point.

        It is -1 where "none of them" is more probable than any component, and for failed models.

        Parameters
        ----------
        batch : RaggedBatch
            As for :meth:`predict_proba`, with the same errors.

        Returns
        -------
        Tensor
            int64 [N], in the caller's row order; -1 for none.
        """
        return most_probable(self.predict_proba(batch))

    def draw_densities(self, weighting: str = "exact") -> Never:
        """Raise a ValueError: a variational fit has no draws.

        Parameters
        ----------
        weighting : str
            For samplers only.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("method is 'vb', which draws no samples: use density().")

    def leave_one_out(self, weighting: str = "exact", average: str = "density") -> Never:
        """Raise a ValueError: a variational fit has no draws.

        Parameters
        ----------
        weighting, average : str
            For samplers only.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("method is 'vb', which has no draws to leave a point out of: use score_samples(batch).")

    def to_arviz(self) -> Never:
        """Raise a ValueError: a variational fit has no draws.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("method is 'vb', which draws no samples: there is nothing for ArviZ to look at.")

    def _kept_tensors(self) -> dict[str, Tensor]:
        tensors = {name: getattr(self, name) for name in _ATTRIBUTES}
        tensors |= {f"concentration_{i}": value for i, value in enumerate(self.weight_concentration_)}
        return tensors | {
            f"variational_{_SAVED_NAMES.get(name, name)}": value for name, value in self._fitted.state._asdict().items()
        }

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        of_components = ("weights_", "mean_precision_", "degrees_of_freedom_", "concentration_0", "concentration_1")
        expected = {
            "means_": "float M T D",
            "covariances_": "float M T D D",
            **dict.fromkeys(of_components, "float M T"),
        }
        expected |= {"lower_bound_": "float M", "n_iter_": "int M", "converged_": "bool M"}
        of_state = ("concentration_0", "concentration_1", "mean_precision", "degrees_of_freedom")
        expected |= {f"variational_{name}": "float A T" for name in of_state}
        expected |= {"variational_means": "float A T D", "variational_precisions_cholesky": "float A T D D"}
        expected |= {"variational_alpha": "float A", "variational_bad": "bool A"}
        return {**super()._expected_tensors(names), **expected}

    def _refitted(self, shared: dict[str, Any], tensors: Mapping[str, Tensor]) -> FittedModels:
        for name in _ATTRIBUTES:
            setattr(self, name, tensors[name])
        self.weight_concentration_ = (tensors["concentration_0"], tensors["concentration_1"])
        state = {name: tensors[f"variational_{_SAVED_NAMES.get(name, name)}"] for name in VariationalState._fields}
        return FittedVariational(**shared, state=VariationalState(**state))
