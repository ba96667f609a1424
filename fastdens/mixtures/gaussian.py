"""Gaussian mixtures for a batch of models: scikit-learn's ``GaussianMixture``, thousands at a time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.distributions.shared_covariance import SharedCovarianceDensity
from fastdens.errors import check_non_negative
from fastdens.inference import shrunk_em
from fastdens.inference.coordinate_ascent import Ascent
from fastdens.inference.em import (
    EMInfo,
    EMProblem,
    EMState,
    Start,
    better_of,
    expectation_maximization,
    weights_for_em,
)
from fastdens.inference.shrunk_em import ShrunkInfo, ShrunkProblem
from fastdens.kernels.centre import central_points
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures, Doubt, boolean, integer, one_of, optional
from fastdens.mixtures.covariances import (
    AXES,
    COVARIANCE_TYPES,
    SHRINKAGE_AXES,
    TIED_ACROSS_MODELS,
    check_can_shrink,
    check_shrinkage,
    covariance_shape,
    n_parameters,
)
from fastdens.mixtures.failures import Failures, fewer_points_than_components, not_computable
from fastdens.mixtures.gaussian_start import check_initial_parameters
from fastdens.mixtures.limited_memory import fit_in_memory
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.refits import RefittedMixtures
from fastdens.mixtures.scored import ScoredMixtures
from fastdens.mixtures.streaming import StreamedMixtures, step_power
from fastdens.mixtures.tied_across_models import MixturesFittedTogether
from fastdens.mixtures.warm_start import WarmStartedMixtures

INIT_PARAMS = ("kmeans++", "k-means++", "kmeans", "random_from_data", "random")

_NOT_POSITIVE_DEFINITE = (
    "lost a positive definite covariance in EM: lower n_components, raise reg_covar, or compute in dtype=torch.float64"
)
_ATTRIBUTES = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_cholesky_",
    "converged_",
    "n_iter_",
    "lower_bound_",
)

# The info is an EMInfo or, of shrunk covariances, a ShrunkInfo.
Fit = Ascent[EMState, Any]


class GaussianMixtures(RefittedMixtures, StreamedMixtures, WarmStartedMixtures, MixturesFittedTogether, ScoredMixtures):
    """Mixtures of K Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`, fitted by EM.

    Parameters
    ----------
    n_components : int
        Components K of every model.
    covariance_type : {"full", "diag", "spherical", "tied", "tied_across_models"}
        Each component has a matrix of its own ("full"), variances of its own ("diag") or a single variance
        ("spherical"); or all components of a model share one matrix ("tied"), or those of all models do. In the last
        case, which with one component is linear discriminant analysis, the models depend on each other: they are
        fitted together until the mean log-likelihood per point of all settles, and fail together if the matrix has no
        Cholesky factor. A model that cannot be fitted is left out.
    tol : float
        A model has converged when its mean log-likelihood per point changes by less than this.
    reg_covar : float
        Added to the diagonal of every covariance.
    max_iter : int
        EM iterations at most; 0 keeps the initial parameters.
    n_init : int
        Starts; the one with the largest lower bound is kept, for each model by itself.
    init_params : {"kmeans++", "k-means++", "kmeans", "random_from_data", "random"}
        Start, with scikit-learn's meanings. The first two are the same.
    weights_init, means_init, precisions_init : array or Tensor, optional
        Initial parameters [M, K], [M, K, D] and precisions in the shape of ``covariances_``; those that are None come
        from ``init_params``.
    warm_start : bool
        ``fit`` goes on from the parameters that the estimator has, where it has some for the same classes, D and K:
        one start, without ``init_params``. Models that failed start anew, those that share a covariance with them, too.
    step_power : float
        Of the steps of :meth:`partial_fit`, over 0.5 and at most 1, at which all points of a stream count alike; lower
        powers forget the first responsibilities sooner.
    start_points : int, optional
        First points of a stream that each model keeps, for a good start; by default 128 for each component, with full
        covariances at least four times D. One component needs no start.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    progress : bool
        Show a bar of the models that are fitted; of EM steps where all share a covariance.
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN.
    dtype : torch.dtype, optional
        Compute in float32 or float64; by default in the dtype of the points.
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels in float32: "tf32x3" has the error of float32 and runs on tensor
        cores; "ieee" runs beside them; "tf32" has three digits.
    shrinkage : {"ledoit_wolf", "oas"} or float, optional
        Every M step replaces a covariance S of type full or tied, within or across models, by
        ``(1 - s) S + s tr(S) / D I``, which is well conditioned even with fewer points than dimensions. The share s is
        a number from 0 to 1, or that of Ledoit & Wolf or of Chen et al. ("oas") for the effective number of points,
        ``(sum r)^2 / sum r^2`` with responsibilities r, or for all points where the covariance is tied. With one
        component the covariances are those of scikit-learn's ``LedoitWolf``, ``OAS`` and ``ShrunkCovariance``. With
        several the lower bound may fall now and then, as no step maximizes a likelihood; models stop when it settles.

    Attributes
    ----------
    weights_, means_ : Tensor
        [M, K] and [M, K, D].
    covariances_, precisions_cholesky_ : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K], tied across models [D, D].
        ``precision = U U'``, U upper triangular.
    converged_ : Tensor
        bool [M], whether the lower bound settled before ``max_iter``.
    n_iter_ : Tensor
        int64 [M], EM iterations of each model.
    lower_bound_ : Tensor
        float64 [M], mean log-likelihood per point at the last E step; per unit of weight if points have weights, and
        that of all models where they share a covariance.
    shrinkage_ : Tensor
        Shares s, float64: full [M, K], tied [M], tied across models []. Where ``shrinkage`` is not None.
    n_points_seen_ : Tensor
        float64 [M], the points that each model has learned from, in all batches of a stream: the sum of their weights.
    classes_ : tuple
        The class of each model, as in the batch.
    failed_ : Tensor
        bool [M], which models could not be fitted.
    failures_ : dict of int to str
        Why, for each model that failed.
    skipped_ : dict of int to str
        After :meth:`partial_fit` with ``on_error="skip"``: why, for each model that left out the last batch.

    References
    ----------
    Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39, 1977.
    Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 8), torch.arange(1000) % 10
    >>> gm = fd.GaussianMixtures(n_components=2, max_iter=5, tol=0).fit(fd.RaggedBatch.from_labels(x, y))
    >>> gm.means_.shape
    torch.Size([10, 2, 8])
    """

    _parameter_constraints: ClassVar = {
        "n_components": integer(1),
        "max_iter": integer(0),
        "n_init": integer(1),
        "tol": check_non_negative,
        "reg_covar": check_non_negative,
        "covariance_type": one_of(COVARIANCE_TYPES),
        "init_params": one_of(INIT_PARAMS),
        "shrinkage": check_shrinkage,
        "warm_start": boolean,
        "step_power": step_power,
        "start_points": optional(integer(1)),
        **BaseMixtures._parameter_constraints,
    }
    _array_parameters = ("weights_init", "means_init", "precisions_init")

    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    shrinkage: str | float | None

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor
    converged_: Tensor
    n_iter_: Tensor
    lower_bound_: Tensor
    shrinkage_: Tensor

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans++",
        weights_init: ArrayLike | Tensor | None = None,
        means_init: ArrayLike | Tensor | None = None,
        precisions_init: ArrayLike | Tensor | None = None,
        warm_start: bool = False,
        step_power: float = 0.7,
        start_points: int | None = None,
        random_state: int = 0,
        backend: str = "auto",
        progress: bool = False,
        on_error: str = "raise",
        dtype: torch.dtype | None = None,
        matmul_precision: str = "tf32x3",
        shrinkage: str | float | None = None,
    ) -> None:
        self._keep(locals())

    def __repr__(self) -> str:
        return f"GaussianMixtures(n_components={self.n_components}, covariance_type={self.covariance_type!r})"

    def fit(
        self,
        batch: RaggedBatch,
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
    ) -> GaussianMixtures:
        """Fit every model of the batch.

        Parameters
        ----------
        batch : RaggedBatch
            Points of the models to fit.
        sample_weight : array or Tensor, optional
            [N], in the caller's row order: a point of weight w counts as w equal points would, from the start on, and
            one of weight zero as if it were absent (:meth:`RaggedBatch.weighted`). By default the weights of the
            batch, if it has some.
        max_memory : int or str, optional
            The most that the process may hold, in bytes or as "4GiB": the models are fitted in groups that fit into
            it, with the same result, bit for bit. A batch on disk has a limit of its own, by default.

        Returns
        -------
        GaussianMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model has NaN or infinity, fewer points than components, no point of positive weight, or loses a
            positive definite covariance, and ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is invalid, ``sample_weight`` are no weights, or ``max_memory`` is too little for a model.

        Warns
        -----
        ConvergenceWarning
            If models stop at ``max_iter`` (unless ``tol`` is 0, which asks for just that).
        """
        batch = self._weighted(batch, sample_weight)
        if self.covariance_type == TIED_ACROSS_MODELS:
            limit = batch.max_memory if max_memory is None else max_memory
            self._set_fitted_tensors(self._fit_together(batch, limit), {})
        else:
            fit_in_memory(self, batch, max_memory, self._fit_at_once)
        self._warn(batch)
        return self

    def _fit_at_once(self, batch: RaggedBatch) -> None:
        self._check_parameters()
        batch = self._in_dtype(batch)
        initial = self._initial_parameters(batch)
        valid = self._partition(batch)
        result = self._fit_from_last(valid, initial)
        if bool(result.info.bad.any()):
            valid = self._leave_out(valid, result.info.bad, _NOT_POSITIVE_DEFINITE)
            result = result.select(~result.info.bad)
        self._scatter(valid, result)

    def _fit_bytes(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """The points as they are read, centred and multiplied by factors; and the results as EM goes from step to step.

        Numbers: ``n (5 D + 2 K)`` and four times those of the results (six with several starts), which are
        ``K (1 + D)`` and twice the covariances.
        """
        k, d = self.n_components, batch.n_features
        size = torch.finfo(self.dtype or batch.dtype).bits // 8
        result = float(size * (k * (1 + d) + 2 * math.prod(self._covariance_shape(1, d))))
        results = torch.full((batch.n_models,), result, dtype=torch.float64, device=batch.device)
        points = size * (5 * d + 2 * k) * batch.sizes.double() + self._weight_bytes(batch)
        return points + (4 if self.n_init == 1 else 6) * results, results

    def _doubts(self) -> list[Doubt]:
        # A tolerance of zero asks for just that many iterations.
        if self.tol == 0 or self.max_iter == 0:
            return []
        problem = f"did not converge in {self.max_iter} iterations"
        remedy = "raise max_iter or tol, or look for degenerate data"
        return [Doubt(~self.converged_ & ~self.failed_, problem, remedy)]

    def _check_start(self, batch: RaggedBatch) -> None:
        self._initial_parameters(batch)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_can_shrink(self.shrinkage, self.covariance_type)

    def _find_failures(self, batch: RaggedBatch) -> Failures:
        return {
            **not_computable(batch, batch.points.dtype),
            **fewer_points_than_components(batch, self.n_components),
        }

    def _covariance_shape(self, n_models: int, n_features: int) -> tuple[int, ...]:
        return covariance_shape(self.covariance_type, n_models, self.n_components, n_features)

    def _initial_parameters(self, batch: RaggedBatch) -> dict[str, Tensor]:
        """Initial weights, means and precisions of all models, checked; those that are None are left out."""
        n_models, k, d = batch.n_models, self.n_components, batch.n_features
        shapes = {
            "weights_init": (n_models, k),
            "means_init": (n_models, k, d),
            "precisions_init": self._covariance_shape(n_models, d),
        }
        given = {name: getattr(self, name) for name in shapes}
        return check_initial_parameters(given, shapes, batch, self.dtype or batch.dtype, self.covariance_type)

    def _fit_models(self, valid: Partition, initial: dict[str, Tensor]) -> Fit:
        """The best of ``n_init`` ascents for each of the models to fit."""
        batch = valid.batch
        if not len(valid.models):
            return self._fit_of_no_models(batch.points)
        if len(valid.models) < valid.whole.n_models:
            initial = {name: value[valid.models] for name, value in initial.items()}
        # Each model is fitted in coordinates of its own, so that data far from the origin lose nothing to the rounding
        # of means. One buffer holds the origins first, the centred points after.
        origin = central_points(batch.points, batch.layout)
        points = torch.repeat_interleave(origin, batch.sizes, 0)
        torch.sub(batch.points, points, out=points)
        if "means" in initial:
            initial = {**initial, "means": initial["means"] - origin[:, None]}
        weights = None if batch.weights is None else weights_for_em(batch.weights, batch.layout, points.dtype)
        options = (self.covariance_type, self.reg_covar, self.backend, self.matmul_precision)
        problem = EMProblem(points, batch.layout, *options, weights)
        best = self._best_ascent(initial, lambda start: self._ascend(problem, start, batch), better_of)
        best.state.means.add_(origin[:, None])
        return best

    def _ascend(self, problem: EMProblem, start: Start, batch: RaggedBatch) -> Fit:
        options: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter}
        if self.shrinkage is None:
            return expectation_maximization(problem, start, **options)
        shrunk = ShrunkProblem(problem, self.shrinkage, batch.total_weights)
        return shrunk_em.expectation_maximization(shrunk, start, **options)

    def _fit_of_no_models(self, points: Tensor) -> Fit:
        k, d = self.n_components, points.shape[1]
        matrices = points.new_empty(self._covariance_shape(0, d))
        none, zero = points.new_empty(0, dtype=torch.bool), points.new_empty(0, dtype=torch.float64)
        state = EMState(points.new_empty(0, k), points.new_empty(0, k, d), matrices)
        info = EMInfo(zero, matrices, none)
        if self.shrinkage is None:
            return Ascent(state, info, none.long(), none)
        shares = shrunk_em.no_shares(0, k, self.covariance_type, points.device)
        return Ascent(state, ShrunkInfo(*info, shares), none.long(), none)

    def _scatter(self, valid: Partition, result: Fit) -> None:
        self._set_failures(valid)
        self.weights_ = valid.scatter(result.state.weights)
        self.means_ = valid.scatter(result.state.means)
        self.covariances_ = valid.scatter(result.info.covariances)
        self.precisions_cholesky_ = valid.scatter(result.state.precisions_cholesky)
        self.lower_bound_ = valid.scatter(result.info.lower_bound)
        self.n_iter_ = valid.scatter(result.n_iter)
        self.converged_ = valid.scatter(result.converged)
        if isinstance(result.info, ShrunkInfo):
            self.shrinkage_ = valid.scatter(result.info.shrinkage)
        n_points = valid.scatter(valid.batch.total_weights)
        self.n_points_seen_ = n_points.nan_to_num() if valid.failures else n_points
        self._end_stream()

    @property
    def _attributes(self) -> tuple[str, ...]:
        return _ATTRIBUTES if self.shrinkage is None else (*_ATTRIBUTES, "shrinkage_")

    def _fitted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {**{name: getattr(self, name) for name in self._attributes}, **self._stream_tensors()}, {}

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        expected = {"weights_": "float M K", "means_": "float M K D", "lower_bound_": "float M"}
        axes = AXES[self.covariance_type]
        expected |= dict.fromkeys(("covariances_", "precisions_cholesky_"), f"float {axes}")
        if self.shrinkage is not None:
            expected["shrinkage_"] = f"float {SHRINKAGE_AXES[self.covariance_type]}"
        return {**expected, "converged_": "bool M", "n_iter_": "int M", **self._expected_stream(names, axes)}

    def _set_fitted_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], batch: RaggedBatch | None = None
    ) -> None:
        for name in self._attributes:
            setattr(self, name, tensors[name])
        self._set_stream_tensors(tensors)

    def _n_parameters(self) -> Tensor:
        """Free parameters of each model, float64 [M]; a component of weight zero has none.

        Each of the models that share a covariance has its share of the parameters.
        """
        k, d = (self.weights_ > 0).sum(1).double(), self.means_.shape[-1]
        n_fitted = int((~self.failed_).sum())
        return n_parameters(self.covariance_type, n_fitted, k, d) + k * d + k - 1

    def density(self) -> GaussianMixtureDensity:
        """The fitted models as a density, a module of the tensors of the fit.

        Returns
        -------
        GaussianMixtureDensity or SharedCovarianceDensity
            Of M models, the latter where they share a covariance; it shares the tensors of the fit.
        """
        self._check_fitted()
        make = SharedCovarianceDensity if self.covariance_type == TIED_ACROSS_MODELS else GaussianMixtureDensity
        return make(
            self.weights_,
            self.means_,
            self.precisions_cholesky_,
            self.covariance_type,
            self.backend,
            self.matmul_precision,
        ).of_a_fit()
