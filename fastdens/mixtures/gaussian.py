"""Gaussian mixtures for a batch of models: scikit-learn's ``GaussianMixture``, thousands at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens import kernels
from fastdens.arrays import as_tensor
from fastdens.batch import RaggedBatch, as_points
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.errors import check_batch, check_integer, check_non_negative
from fastdens.inference.coordinate_ascent import Ascent
from fastdens.inference.em import EMInfo, EMProblem, EMState, Start, better_of, expectation_maximization
from fastdens.kernels.centre import central_points
from fastdens.kernels.options import COVARIANCE_TYPES
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures, Doubt, integer, one_of
from fastdens.mixtures.failures import Failures, fewer_points_than_components, non_finite, out_of_range
from fastdens.mixtures.limited_memory import fit_within
from fastdens.mixtures.partition import Partition

INIT_PARAMS = ("kmeans++", "k-means++", "random_from_data", "random")

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

Fit = Ascent[EMState, EMInfo]


class GaussianMixtures(BaseMixtures):
    """Mixtures of K Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`, fitted by EM.

    Parameters
    ----------
    n_components : int
        Components K of every model.
    covariance_type : {"full", "diag", "spherical", "tied"}
        Each component its own matrix, its own variances, its own single variance; or one matrix for all.
    tol : float
        A model has converged when its mean log-likelihood per point changes by less than this.
    reg_covar : float
        Added to the diagonal of every covariance.
    max_iter : int
        EM iterations at most; 0 keeps the initial parameters.
    n_init : int
        Starts; the one with the largest lower bound is kept, for each model by itself.
    init_params : {"kmeans++", "k-means++", "random_from_data", "random"}
        Start, with scikit-learn's meanings. The first two are the same.
    weights_init, means_init, precisions_init : array or Tensor, optional
        Initial parameters [M, K], [M, K, D] and precisions in the shape of ``covariances_``; those that are None come
        from ``init_params``.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN.
    dtype : torch.dtype, optional
        Compute in float32 or float64; by default in the dtype of the points.
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels in float32: "tf32x3" has the error of float32 and runs on tensor
        cores; "ieee" runs beside them; "tf32" has three digits.

    Attributes
    ----------
    weights_, means_ : Tensor
        [M, K] and [M, K, D].
    covariances_, precisions_cholesky_ : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K]. ``precision = U U'``, U upper triangular.
    converged_ : Tensor
        bool [M].
    n_iter_ : Tensor
        int64 [M].
    lower_bound_ : Tensor
        float64 [M], mean log-likelihood per point at the last E step.
    classes_ : tuple
        The class of each model, as in the batch.
    failed_ : Tensor
        bool [M].
    failures_ : dict of int to str
        Why, for each model that failed.

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

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor
    converged_: Tensor
    n_iter_: Tensor
    lower_bound_: Tensor

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
        random_state: int = 0,
        backend: str = "auto",
        on_error: str = "raise",
        dtype: torch.dtype | None = None,
        matmul_precision: str = "tf32x3",
    ) -> None:
        self._keep(locals())

    def __repr__(self) -> str:
        return f"GaussianMixtures(n_components={self.n_components}, covariance_type={self.covariance_type!r})"

    def fit(self, batch: RaggedBatch, *, max_memory: MemoryLimit | None = None) -> GaussianMixtures:
        """Fit every model of the batch.

        Parameters
        ----------
        batch : RaggedBatch
        max_memory : int or str, optional
            The most that the process may hold, in bytes or as "4GiB": the models are fitted in groups that fit into
            it, with the same result, bit for bit. A batch on disk has a limit of
            its own, by default.

        Returns
        -------
        GaussianMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model has NaN or infinity, fewer points than components, or loses a positive definite covariance,
            and ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is invalid, or ``max_memory`` too little for a model.

        Warns
        -----
        ConvergenceWarning
            If models stop at ``max_iter`` (unless ``tol`` is 0, which asks for just that).
        """
        limit = check_batch(batch).max_memory if max_memory is None else max_memory
        if limit is None:
            self._fit_at_once(batch)
        else:
            fit_within(self, batch, limit)
        self._warn(batch)
        return self

    def _fit_at_once(self, batch: RaggedBatch) -> None:
        self._check_parameters()
        batch = self._in_dtype(batch)
        initial = self._initial_parameters(batch)
        valid = self._partition(batch)
        result = self._fit_models(valid, initial)
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
        result = float(size * (k * (1 + d) + 2 * math.prod(self._covariance_shape(d))))
        results = torch.full((batch.n_models,), result, dtype=torch.float64, device=batch.device)
        return size * (5 * d + 2 * k) * batch.sizes.double() + (4 if self.n_init == 1 else 6) * results, results

    def _doubts(self) -> list[Doubt]:
        # A tolerance of zero asks for just that many iterations.
        if self.tol == 0 or self.max_iter == 0:
            return []
        problem = f"did not converge in {self.max_iter} iterations"
        remedy = "raise max_iter or tol, or look for degenerate data"
        return [Doubt(~self.converged_ & ~self.failed_, problem, remedy)]

    def _check_start(self, batch: RaggedBatch) -> None:
        self._initial_parameters(batch)

    def _find_failures(self, batch: RaggedBatch) -> Failures:
        return {
            **out_of_range(batch, batch.points.dtype),
            **non_finite(batch),
            **fewer_points_than_components(batch, self.n_components),
        }

    def _in_dtype(self, batch: RaggedBatch) -> RaggedBatch:
        return batch if self.dtype in (None, batch.dtype) else batch.to(dtype=self.dtype)

    def _covariance_shape(self, n_features: int) -> tuple[int, ...]:
        """The shape of ``covariances_``, without the axis of models."""
        k, d = self.n_components, n_features
        return {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[self.covariance_type]

    def _initial_parameters(self, batch: RaggedBatch) -> dict[str, Tensor]:
        """Initial weights, means and precisions of all models, checked; those that are None are left out."""
        n_models, k, d = batch.n_models, self.n_components, batch.n_features
        shapes = {
            "weights_init": (n_models, k),
            "means_init": (n_models, k, d),
            "precisions_init": (n_models, *self._covariance_shape(d)),
        }
        initial = {}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            tensor = as_tensor(value, name).detach().to(batch.device, self.dtype or batch.dtype)
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but this batch needs {shape}.")
            bad = ~torch.isfinite(tensor).flatten(1).all(1)
            if name == "weights_init":
                bad |= (tensor < 0).any(1) | ((tensor.sum(1) - 1).abs() > 1e-4)
            elif name == "precisions_init" and self.covariance_type in ("diag", "spherical"):
                bad |= (tensor <= 0).flatten(1).any(1)
            elif name == "precisions_init":
                symmetric = torch.isclose(tensor, tensor.mT, rtol=1e-4, atol=1e-6).flatten(1).all(1)
                positive = torch.linalg.cholesky_ex(tensor).info.reshape(n_models, -1).eq(0).all(1)
                bad |= ~symmetric | ~positive
            if bool(bad.any()):
                demand = {
                    "weights_init": "finite, not negative and sum to 1",
                    "means_init": "finite",
                    "precisions_init": "finite, symmetric and positive definite",
                }[name]
                raise ValueError(f"{name} of {batch.describe(int(bad.nonzero()[0]))} must be {demand}.")
            initial[name.removesuffix("_init")] = tensor
        return initial

    def _fit_models(self, valid: Partition, initial: dict[str, Tensor]) -> Fit:
        """The best of ``n_init`` ascents for each of the models to fit."""
        batch = valid.batch
        if not len(valid.models):
            return self._fit_of_no_models(batch.points)
        if valid.failures:
            initial = {name: value[valid.models] for name, value in initial.items()}
        # Each model is fitted in coordinates of its own, so that data far from the origin lose nothing to the rounding
        # of means. One buffer holds the origins first, the centred points after.
        origin = central_points(batch.points, batch.layout)
        points = torch.repeat_interleave(origin, batch.sizes, 0)
        torch.sub(batch.points, points, out=points)
        if "means" in initial:
            initial = {**initial, "means": initial["means"] - origin[:, None]}
        problem = EMProblem(
            points, batch.layout, self.covariance_type, self.reg_covar, self.backend, self.matmul_precision
        )
        best = self._best_ascent(
            initial, lambda start: expectation_maximization(problem, start, tol=self.tol, max_iter=self.max_iter)
        )
        best.state.means.add_(origin[:, None])
        return best

    def _best_ascent(self, initial: dict[str, Tensor], ascend: Callable[[Start], Fit]) -> Fit:
        """The best of ``n_init`` ascents for each model."""
        best: Fit | None = None
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

    def _fit_of_no_models(self, points: Tensor) -> Fit:
        k, d = self.n_components, points.shape[1]
        matrices = points.new_empty(0, *self._covariance_shape(d))
        none, zero = points.new_empty(0, dtype=torch.bool), points.new_empty(0, dtype=torch.float64)
        state = EMState(points.new_empty(0, k), points.new_empty(0, k, d), matrices)
        return Ascent(state, EMInfo(zero, matrices, none), none.long(), none)

    def _scatter(self, valid: Partition, result: Fit) -> None:
        self._set_failures(valid)
        self.weights_ = valid.scatter(result.state.weights)
        self.means_ = valid.scatter(result.state.means)
        self.covariances_ = valid.scatter(result.info.covariances)
        self.precisions_cholesky_ = valid.scatter(result.state.precisions_cholesky)
        self.lower_bound_ = valid.scatter(result.info.lower_bound)
        self.n_iter_ = valid.scatter(result.n_iter)
        self.converged_ = valid.scatter(result.converged)

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        return self.means_.shape[-1], self.means_.device

    def _fitted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {name: getattr(self, name) for name in _ATTRIBUTES}, {}

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        matrices = {"full": "M K D D", "tied": "M D D", "diag": "M K D", "spherical": "M K"}[self.covariance_type]
        expected = {"weights_": "float M K", "means_": "float M K D", "lower_bound_": "float M"}
        expected |= dict.fromkeys(("covariances_", "precisions_cholesky_"), f"float {matrices}")
        return {**expected, "converged_": "bool M", "n_iter_": "int M"}

    def _set_fitted_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], batch: RaggedBatch | None = None
    ) -> None:
        for name in _ATTRIBUTES:
            setattr(self, name, tensors[name])

    def _own_values(self, batch: RaggedBatch, of: Callable[[kernels.Responsibilities], Tensor]) -> Tensor:
        """Values [N, ...] that follow from the responsibilities of each point, in the caller's row order."""
        checked = self._check_scored(batch)
        return self.density().own_values(checked, lambda density, part: of(density.responsibilities(part)))

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model, [N], in the caller's row order; NaN for failed models."""
        return self._own_values(batch, lambda e_step: e_step.log_prob_norm)

    def score(self, batch: RaggedBatch) -> Tensor:
        """Mean log-density per point of each model, float64 [M]; NaN for a model without points."""
        log_prob = self.score_samples(batch)[batch.index]
        return torch.segment_reduce(log_prob.double(), "sum", offsets=batch.offsets) / batch.sizes

    def log_prob(self, x: ArrayLike | Tensor) -> Tensor:
        """Log-density of each point of ``x`` [N, D] under every model, [N, M]; differentiable in ``x``."""
        return self.density().log_prob(x if isinstance(x, Tensor) else as_points(x))

    def predict_proba(self, batch: RaggedBatch) -> Tensor:
        """Responsibility of each component for each point, [N, K], in the caller's row order."""
        return self._own_values(batch, lambda e_step: e_step.resp)

    def predict(self, batch: RaggedBatch) -> Tensor:
        """Most probable component of each point, int64 [N], in the caller's row order; -1 for failed models."""
        proba = self.predict_proba(batch)
        return torch.where(proba.isnan().any(1), -1, proba.argmax(1))

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from every model: points [M, n, D] and components [M, n]."""
        return self.density().sample_components(check_integer("n", n, 1), generator)

    def _n_parameters(self) -> int:
        _, k, d = self.means_.shape
        covariance = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return covariance[self.covariance_type] + k * d + k - 1

    def bic(self, batch: RaggedBatch) -> Tensor:
        """Bayesian information criterion of each model on the batch, float64 [M]; lower is better (Schwarz 1978)."""
        score, sizes = self.score(batch), batch.sizes.double()
        return -2 * score * sizes + self._n_parameters() * sizes.log()

    def aic(self, batch: RaggedBatch) -> Tensor:
        """Akaike's information criterion of each model on the batch, float64 [M]; lower is better (Akaike 1974)."""
        return -2 * self.score(batch) * batch.sizes + 2 * self._n_parameters()

    def density(self) -> GaussianMixtureDensity:
        """The fitted models as a density."""
        self._check_fitted()
        return GaussianMixtureDensity(
            self.weights_,
            self.means_,
            self.precisions_cholesky_,
            self.covariance_type,
            self.backend,
            self.matmul_precision,
        )
