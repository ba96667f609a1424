"""Gaussian mixtures for a batch of models: scikit-learn's ``GaussianMixture``, thousands at a time."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch, as_points
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.errors import (
    ConvergenceWarning,
    bad_models,
    check_batch,
    check_integer,
    check_non_negative,
    raise_failed,
)
from fastdens.inference.em import (
    FitResult,
    KernelOptions,
    MixtureParameters,
    expectation_maximization,
    factors_of_precisions,
    initial_responsibilities,
    maximize,
)
from fastdens.kernels.options import BACKENDS, COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice

INIT_PARAMS = ("kmeans++", "k-means++", "random_from_data", "random")

_NOT_POSITIVE_DEFINITE = (
    "lost a positive definite covariance in EM: lower n_components, raise reg_covar, or compute in dtype=torch.float64"
)


class GaussianMixtures:
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
        Initial parameters [M, K], [M, K, D] and precisions in the shape of ``covariances_``; what is not given comes
        from ``init_params``.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    on_error : {"raise", "skip"}
        What to do about models that cannot be fitted: name them in a :class:`~fastdens.ModelError`, or fit all
        others, set the attributes of those to NaN and note them in ``failed_`` and ``failures_``.
    dtype : torch.dtype, optional
        Compute in float32 or float64; by default in the dtype of the points.
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the matrix products of the Triton kernels in float32.

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

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor
    converged_: Tensor
    n_iter_: Tensor
    lower_bound_: Tensor
    failed_: Tensor
    failures_: dict[int, str]

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
        matmul_precision: str = "ieee",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.backend = backend
        self.on_error = on_error
        self.dtype = dtype
        self.matmul_precision = matmul_precision

    def __repr__(self) -> str:
        return f"GaussianMixtures(n_components={self.n_components}, covariance_type={self.covariance_type!r})"

    def fit(self, batch: RaggedBatch) -> GaussianMixtures:
        """Fit every model of the batch.

        Parameters
        ----------
        batch : RaggedBatch

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
            If a parameter is not what it may be.

        Warns
        -----
        ConvergenceWarning
            If models stop at ``max_iter`` (unless ``tol`` is 0, which asks for just that).
        """
        options = self._check_parameters()
        batch = self._in_dtype(check_batch(batch))
        given = self._check_initial_parameters(batch)
        failures = bad_models(batch, self.n_components)
        if self.on_error == "raise":
            raise_failed(batch, failures, "on_error='skip' fits all others")
        device = batch.points.device
        fitted = torch.ones(batch.n_models, dtype=torch.bool, device=device)
        fitted[list(failures)] = False
        models = torch.nonzero(fitted)[:, 0]
        result = self._fit_models(batch, models, given, options) if len(models) else None
        if result is not None:
            for m in models[result.parameters.bad].tolist():
                failures[m] = _NOT_POSITIVE_DEFINITE
            if self.on_error == "raise":
                raise_failed(batch, failures, "on_error='skip' keeps all others")
        self._set_attributes(batch, models, result, failures)
        self._warn_unconverged(batch)
        return self

    def _check_parameters(self) -> KernelOptions:
        check_integer("n_components", self.n_components, 1)
        check_integer("max_iter", self.max_iter, 0)
        check_integer("n_init", self.n_init, 1)
        check_integer("random_state", self.random_state, 0)
        check_non_negative("tol", self.tol)
        check_non_negative("reg_covar", self.reg_covar)
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_choice("init_params", self.init_params, INIT_PARAMS)
        check_choice("backend", self.backend, BACKENDS)
        check_choice("on_error", self.on_error, ("raise", "skip"))
        check_choice("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype is {self.dtype}, but it must be torch.float32, torch.float64 or None.")
        return KernelOptions(self.covariance_type, self.backend, self.matmul_precision)

    def _in_dtype(self, batch: RaggedBatch) -> RaggedBatch:
        return batch if self.dtype in (None, batch.points.dtype) else batch.to(dtype=self.dtype)

    def _check_initial_parameters(self, batch: RaggedBatch) -> dict[str, Tensor]:
        n_models, k, d = batch.n_models, self.n_components, batch.n_features
        shapes = {
            "weights_init": (n_models, k),
            "means_init": (n_models, k, d),
            "precisions_init": {
                "full": (n_models, k, d, d),
                "tied": (n_models, d, d),
                "diag": (n_models, k, d),
                "spherical": (n_models, k),
            }[self.covariance_type],
        }
        given = {}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            tensor = torch.as_tensor(value, dtype=batch.points.dtype, device=batch.points.device)
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
            given[name] = tensor
        return given

    def _fit_models(
        self, batch: RaggedBatch, models: Tensor, given: dict[str, Tensor], options: KernelOptions
    ) -> FitResult:
        everything = len(models) == batch.n_models
        ranges = batch.ranges if everything else batch.ranges[models]
        if not everything:
            given = {name: value[models] for name, value in given.items()}
        # Each model is fitted in coordinates of its own, about its first point, so that data far from the origin
        # lose nothing to the rounding of means. One buffer holds the origins first, the centred points after.
        origin = batch.points[ranges[:, 0]]
        points = torch.repeat_interleave(
            batch.points[batch.offsets[:-1].clamp_max(len(batch.points) - 1)], batch.sizes, 0
        )
        torch.sub(batch.points, points, out=points)
        if "means_init" in given:
            given["means_init"] = given["means_init"] - origin[:, None]
        best: FitResult | None = None
        # With all parameters given every start is the same.
        for start in range(1 if len(given) == 3 else self.n_init):
            result = expectation_maximization(
                points,
                ranges,
                self._initial_parameters(points, ranges, given, start, options),
                tol=self.tol,
                max_iter=self.max_iter,
                reg_covar=self.reg_covar,
                options=options,
            )
            best = result if best is None else _better_of(best, result)
        assert best is not None
        best.parameters.means.add_(origin[:, None])
        return best

    def _initial_parameters(
        self, points: Tensor, ranges: Tensor, given: dict[str, Tensor], start: int, options: KernelOptions
    ) -> MixtureParameters:
        weights = means = covariances = factors = bad = torch.empty(0)
        if len(given) < 3:
            # Starts of one seed use seeds far apart, so that random_state and random_state + 1 share none.
            seed = self.random_state + (start << 32)
            resp, centres = initial_responsibilities(
                points, ranges, self.n_components, self.init_params, seed, options.backend
            )
            estimated = maximize(points, ranges, resp, centres, self.reg_covar, options)
            weights, means = estimated.weights, estimated.means
            covariances, factors, bad = estimated.covariances, estimated.precisions_cholesky, estimated.bad
        weights = given.get("weights_init", weights)
        means = given.get("means_init", means)
        if "precisions_init" in given:
            covariances, factors = factors_of_precisions(given["precisions_init"], self.covariance_type)
            bad = torch.zeros(len(ranges), dtype=torch.bool, device=points.device)
        return MixtureParameters(weights, means, covariances, factors, bad)

    def _set_attributes(
        self, batch: RaggedBatch, models: Tensor, result: FitResult | None, failures: dict[int, str]
    ) -> None:
        n_models, k, d = batch.n_models, self.n_components, batch.n_features
        matrix = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[self.covariance_type]

        def place(values: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, missing: float) -> Tensor:
            if values is not None and not failures:
                return values
            out = torch.full((n_models, *shape), missing, dtype=dtype, device=batch.points.device)
            if values is not None:
                out[models] = values.to(dtype)
            out[list(failures)] = missing
            return out

        dtype, nan = batch.points.dtype, float("nan")
        fitted = result.parameters if result else None
        self.weights_ = place(fitted.weights if fitted else None, (k,), dtype, nan)
        self.means_ = place(fitted.means if fitted else None, (k, d), dtype, nan)
        self.covariances_ = place(fitted.covariances if fitted else None, matrix, dtype, nan)
        self.precisions_cholesky_ = place(fitted.precisions_cholesky if fitted else None, matrix, dtype, nan)
        self.lower_bound_ = place(result.lower_bound if result else None, (), torch.float64, nan)
        self.n_iter_ = place(result.n_iter if result else None, (), torch.int64, 0)
        self.converged_ = place(result.converged if result else None, (), torch.bool, False)
        self.failed_ = torch.zeros(n_models, dtype=torch.bool, device=batch.points.device)
        self.failed_[list(failures)] = True
        self.failures_ = dict(sorted(failures.items()))

    def _warn_unconverged(self, batch: RaggedBatch) -> None:
        if self.tol == 0 or self.max_iter == 0:
            return
        left = torch.nonzero(~self.converged_ & ~self.failed_)[:, 0].tolist()
        if left:
            named = ", ".join(batch.describe(m) for m in left[:3]) + (", ..." if len(left) > 3 else "")
            warnings.warn(
                f"{len(left)} of {batch.n_models} models did not converge in {self.max_iter} iterations ({named}): "
                "raise max_iter or tol, or look for degenerate data.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "weights_"):
            raise AttributeError("this GaussianMixtures is not fitted: call fit(batch) first.")

    def _check_scored(self, batch: object) -> RaggedBatch:
        self._check_fitted()
        checked = check_batch(batch)
        n_models, _, n_features = self.means_.shape
        if checked.n_models != n_models or checked.n_features != n_features:
            raise ValueError(
                f"the batch has {checked.n_models} models with D = {checked.n_features}, but {n_models} models with "
                f"D = {n_features} were fitted: pass a batch of the same models (from_labels takes n_classes)."
            )
        if checked.points.device != self.means_.device:
            raise ValueError(
                f"the batch is on {checked.points.device} and the models on {self.means_.device}: move it with "
                f"batch.to({str(self.means_.device)!r})."
            )
        if self.on_error == "raise":
            raise_failed(checked, bad_models(checked, 0), "on_error='skip' gives NaN for such rows")
        return checked.to(dtype=self.means_.dtype)

    def _e_step(self, batch: RaggedBatch) -> tuple[RaggedBatch, Any]:
        batch = self._check_scored(batch)
        return batch, kernels.responsibilities(
            batch.points,
            batch.offsets,
            self.weights_,
            self.means_,
            self.precisions_cholesky_,
            covariance_type=self.covariance_type,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        )

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model, [N], in the caller's row order; NaN for failed models."""
        batch, e_step = self._e_step(batch)
        return batch.in_caller_order(e_step.log_prob_norm)

    def score(self, batch: RaggedBatch) -> Tensor:
        """Mean log-density per point of each model, float64 [M]; NaN for a model without points."""
        batch, e_step = self._e_step(batch)
        total = torch.segment_reduce(e_step.log_prob_norm.double(), "sum", offsets=batch.offsets)
        return total / batch.sizes

    def log_prob(self, x: ArrayLike | Tensor) -> Tensor:
        """Log-density of each point of ``x`` [N, D] under every model, [N, M]; differentiable in ``x``."""
        return self.density().log_prob(x if isinstance(x, Tensor) else as_points(x))

    def predict_proba(self, batch: RaggedBatch) -> Tensor:
        """Responsibility of each component for each point, [N, K], in the caller's row order."""
        batch, e_step = self._e_step(batch)
        return batch.in_caller_order(e_step.resp)

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
            self.weights_, self.means_, self.precisions_cholesky_, self.covariance_type, self.backend, self.matmul_precision
        )


def _better_of(a: FitResult, b: FitResult) -> FitResult:
    """For each model the start with the larger lower bound; a start that failed loses to one that did not."""
    take = (a.parameters.bad & ~b.parameters.bad) | (
        (b.lower_bound > a.lower_bound) & (a.parameters.bad == b.parameters.bad)
    )

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(take.reshape(-1, *[1] * (x.ndim - 1)), y, x)

    p, q = a.parameters, b.parameters
    parameters = MixtureParameters(
        pick(p.weights, q.weights),
        pick(p.means, q.means),
        pick(p.covariances, q.covariances),
        pick(p.precisions_cholesky, q.precisions_cholesky),
        pick(p.bad, q.bad),
    )
    return FitResult(
        parameters, pick(a.lower_bound, b.lower_bound), pick(a.n_iter, b.n_iter), pick(a.converged, b.converged)
    )
