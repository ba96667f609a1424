"""Mixtures of factor analysers for a batch of models: Gaussians with low-rank plus diagonal covariances."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.factor_analyser_mixture import FactorAnalyserMixtureDensity
from fastdens.errors import check_non_negative, check_positive
from fastdens.inference.coordinate_ascent import Ascent
from fastdens.inference.em import better_of
from fastdens.inference.factor_analysers import (
    INIT_PARAMS,
    FactorInfo,
    FactorProblem,
    FactorStart,
    FactorState,
    fit_factor_analysers,
)
from fastdens.kernels.centre import central_points
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import Doubt, integer, one_of
from fastdens.mixtures.failures import (
    Failures,
    fewer_points_than_components,
    no_more_points_than_factors,
    not_computable,
)
from fastdens.mixtures.limited_memory import fit_in_memory
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.refits import RefittedMixtures
from fastdens.mixtures.scored import ScoredMixtures

_BOUND_IS_NAN = "lost its likelihood in EM: raise min_noise_variance, or lower n_components"
_ATTRIBUTES = (
    "weights_",
    "means_",
    "loadings_",
    "noise_variances_",
    "lower_bound_",
    "n_iter_",
    "converged_",
)


class FactorAnalyserMixtures(RefittedMixtures, ScoredMixtures):
    """Mixtures of K factor analysers, one for each model of a :class:`~fastdens.RaggedBatch`, fitted by EM.

    A component is a Gaussian of covariance ``L L' + diag(psi)`` with loadings L [D, Q]: Q directions along which the
    features vary together, and a noise variance of each feature. An EM step takes time and memory linear in D, and
    nothing of size [D, D] or [N, D, K] is formed, so that points of thousands of dimensions need no projection. With
    one component this is maximum-likelihood factor analysis, scikit-learn's ``FactorAnalysis``.

    Parameters
    ----------
    n_components : int
        Components K of every model.
    n_factors : int
        Factors Q of every component, fewer than the dimensions and fewer than the points of a model.
    tol : float
        A model has converged when its mean log-likelihood per point changes by less than this.
    min_noise_variance : float
        The least noise variance of a feature, positive and in the square of its unit. It keeps features that are
        constant, or that the factors explain entirely (Heywood cases), from a likelihood without bound.
    max_iter : int
        EM iterations at most; 0 keeps the start.
    n_init : int
        Starts; the one with the largest lower bound is kept, for each model by itself.
    init_params : {"kmeans", "random"}
        Responsibilities of the start: of k-means clusters, or drawn at random. One component needs neither.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU. The operations of "triton" are those of torch, in float64.
    progress : bool
        Show a bar of the models that are fitted.
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN.
    dtype : torch.dtype, optional
        Of the points and the results, float32 or float64; by default that of the points. Sums are in float64.

    Attributes
    ----------
    weights_, means_ : Tensor
        [M, K] and [M, K, D].
    loadings_ : Tensor
        L, [M, K, D, Q]: unique but for signs, as ``L' diag(1 / psi) L`` is diagonal and descending; the entry that is
        largest in units of its noise is positive in each column.
    noise_variances_ : Tensor
        psi, [M, K, D].
    converged_ : Tensor
        bool [M], whether the lower bound settled before ``max_iter``.
    n_iter_ : Tensor
        int64 [M], EM iterations of each model.
    lower_bound_ : Tensor
        float64 [M], mean log-likelihood per point at the last E step; per unit of weight if points have weights.
    classes_ : tuple
        The class of each model, as in the batch.
    failed_ : Tensor
        bool [M], which models could not be fitted.
    failures_ : dict of int to str
        Why, for each model that failed.

    References
    ----------
    Ghahramani & Hinton, The EM algorithm for mixtures of factor analyzers, technical report CRG-TR-96-1, 1996.
    McLachlan & Peel, Finite Mixture Models, 2000, chapter 8.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 64), torch.arange(1000) % 10
    >>> fa = fd.FactorAnalyserMixtures(n_components=2, n_factors=3, max_iter=5, tol=0)
    >>> fa.fit(fd.RaggedBatch.from_labels(x, y)).loadings_.shape
    torch.Size([10, 2, 64, 3])
    """

    _parameter_constraints: ClassVar = {
        "n_components": integer(1),
        "n_factors": integer(1),
        "max_iter": integer(0),
        "n_init": integer(1),
        "tol": check_non_negative,
        "min_noise_variance": check_positive,
        "init_params": one_of(INIT_PARAMS),
        **{
            name: constraint
            for name, constraint in ScoredMixtures._parameter_constraints.items()
            if name != "matmul_precision"
        },
    }

    n_components: int
    n_factors: int
    tol: float
    min_noise_variance: float
    max_iter: int
    n_init: int
    init_params: str

    weights_: Tensor
    means_: Tensor
    loadings_: Tensor
    noise_variances_: Tensor
    converged_: Tensor
    n_iter_: Tensor
    lower_bound_: Tensor

    def __init__(
        self,
        n_components: int = 1,
        n_factors: int = 1,
        *,
        tol: float = 1e-4,
        min_noise_variance: float = 1e-6,
        max_iter: int = 500,
        n_init: int = 1,
        init_params: str = "kmeans",
        random_state: int = 0,
        backend: str = "auto",
        progress: bool = False,
        on_error: str = "raise",
        dtype: torch.dtype | None = None,
    ) -> None:
        self._keep(locals())

    def __repr__(self) -> str:
        return f"FactorAnalyserMixtures(n_components={self.n_components}, n_factors={self.n_factors})"

    def fit(
        self,
        batch: RaggedBatch,
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
    ) -> FactorAnalyserMixtures:
        """Fit every model of the batch.

        Parameters
        ----------
        batch : RaggedBatch
            Points of the models to fit.
        sample_weight : array or Tensor, optional
            [N], in the caller's row order: a point of weight w counts as w equal points would, and one of weight zero
            as if it were absent (:meth:`RaggedBatch.weighted`). By default the weights of the batch, if it has some.
        max_memory : int or str, optional
            The most that the process may hold, in bytes or as "4GiB": the models are fitted in groups that fit into
            it, with the same result, bit for bit. A batch on disk has a limit of its own, by default.

        Returns
        -------
        FactorAnalyserMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model has NaN or infinity, fewer points than components, or no more points than factors, and
            ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is invalid, there are no fewer factors than dimensions, or ``max_memory`` is too little for
            a model.

        Warns
        -----
        ConvergenceWarning
            If models stop at ``max_iter`` (unless ``tol`` is 0, which asks for just that).
        """
        weighted = self._weighted(batch, sample_weight)
        fit_in_memory(self, weighted, max_memory, self._fit_at_once)
        self._warn(weighted)
        return self

    def _fit_at_once(self, batch: RaggedBatch) -> None:
        self._check_parameters()
        self._check_start(batch)
        valid = self._partition(self._in_dtype(batch))
        result = self._fit_models(valid)
        if bool(result.info.bad.any()):
            valid = self._leave_out(valid, result.info.bad, _BOUND_IS_NAN)
            result = result.select(~result.info.bad)
        self._scatter(valid, result)

    def _check_start(self, batch: RaggedBatch) -> None:
        if self.n_factors >= batch.n_features:
            raise ValueError(
                f"n_factors is {self.n_factors}, but the points have {batch.n_features} "
                f"dimension{'s' * (batch.n_features != 1)}: pass fewer, or fit GaussianMixtures."
            )

    def _fit_bytes(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """The points as they are read and centred, the tiles of k-means, and the sums of chunks; and the results.

        The parameters are in float64; an iteration holds six times as many numbers, and several starts eight times.
        """
        k, q, d = self.n_components, self.n_factors, batch.n_features
        size = torch.finfo(self.dtype or batch.dtype).bits // 8
        parameters = float(8 * k * (1 + d * (2 + q)))
        results = torch.full((batch.n_models,), parameters, dtype=torch.float64, device=batch.device)
        of_chunks = 8 * d * min(1.0, k * (q + 2) / 1024)
        row = 3 * size * d + (24 * d if k > 1 else 0) + of_chunks + 8 * (4 * k + 3)
        points = row * batch.sizes.double() + self._weight_bytes(batch)
        return points + (6 if self.n_init == 1 else 8) * results, results

    def _doubts(self) -> list[Doubt]:
        # A tolerance of zero asks for just that many iterations.
        if self.tol == 0 or self.max_iter == 0:
            return []
        problem = f"did not converge in {self.max_iter} iterations"
        return [Doubt(~self.converged_ & ~self.failed_, problem, "raise max_iter or tol, or lower n_factors")]

    def _find_failures(self, batch: RaggedBatch) -> Failures:
        return {
            **no_more_points_than_factors(batch, self.n_factors),
            **not_computable(batch, batch.points.dtype),
            **fewer_points_than_components(batch, self.n_components),
        }

    def _fit_models(self, valid: Partition) -> Ascent[FactorState, FactorInfo]:
        """The best of ``n_init`` ascents for each of the models to fit."""
        batch = valid.batch
        if not len(valid.models):
            return self._fit_of_no_models(batch)
        # Each model is fitted in coordinates of its own, so that data far from the origin lose nothing.
        origin = central_points(batch.points, batch.layout)
        points = batch.points - origin[batch.model_of_row]
        problem = FactorProblem(
            points, batch.layout, batch.weights, batch.total_weights, self.min_noise_variance, self.backend
        )
        best: Ascent[FactorState, FactorInfo] | None = None
        for i in range(self.n_init):
            # The seeds of one random_state are far apart, so that random_state and random_state + 1 share none.
            seed = self.random_state + (i << 32)
            start = FactorStart(self.n_components, self.n_factors, self.init_params, seed)
            result = fit_factor_analysers(problem, start, tol=self.tol, max_iter=self.max_iter)
            best = result if best is None else better_of(best, result)
        assert best is not None
        best.state.means.add_(origin[:, None])
        return best

    def _fit_of_no_models(self, batch: RaggedBatch) -> Ascent[FactorState, FactorInfo]:
        k, q, d = self.n_components, self.n_factors, batch.n_features
        none, zero = batch.points.new_empty(0, dtype=torch.bool), batch.points.new_empty(0, dtype=torch.float64)
        state = FactorState(*(zero.new_empty(0, *shape) for shape in ((k,), (k, d), (k, d, q), (k, d))))
        return Ascent(state, FactorInfo(zero, none), none.long(), none)

    def _scatter(self, valid: Partition, result: Ascent[FactorState, FactorInfo]) -> None:
        self._set_failures(valid)
        for name, value in result.state._asdict().items():
            setattr(self, f"{name}_", valid.scatter(value.to(valid.batch.dtype)))
        self.lower_bound_ = valid.scatter(result.info.lower_bound)
        self.n_iter_ = valid.scatter(result.n_iter)
        self.converged_ = valid.scatter(result.converged)

    def _fitted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {name: getattr(self, name) for name in _ATTRIBUTES}, {}

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        return {
            "weights_": "float M K",
            "means_": "float M K D",
            "loadings_": "float M K D Q",
            "noise_variances_": "float M K D",
            "lower_bound_": "float M",
            "n_iter_": "int M",
            "converged_": "bool M",
        }

    def _set_fitted_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], batch: RaggedBatch | None = None
    ) -> None:
        for name in _ATTRIBUTES:
            setattr(self, name, tensors[name])

    def transform(self, batch: RaggedBatch) -> Tensor:
        """Expected factors of each point under each component of its own model.

        With one component, ``transform(batch)[:, 0]`` is what scikit-learn's ``FactorAnalysis.transform`` returns, up
        to a rotation. NaN for failed models.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models.

        Returns
        -------
        Tensor
            [N, K, Q], in the caller's row order; NaN for failed models.
        """
        checked = self._check_scored(batch)
        return self.density().own_values(checked, lambda density, part: density.factors(part))

    def _n_parameters(self) -> Tensor:
        """Free parameters of each model, float64 [M]; a component of weight zero has none.

        A rotation of the factors changes nothing: that many loadings are not free (McLachlan & Peel 2000, 8.2).
        """
        k, (d, q) = (self.weights_ > 0).sum(1).double(), self.loadings_.shape[2:]
        return k * (d * (q + 1) - math.comb(q, 2) + d) + k - 1

    def density(self) -> FactorAnalyserMixtureDensity:
        """The fitted models as a density, a module of the tensors of the fit.

        Returns
        -------
        FactorAnalyserMixtureDensity
            Of M models; it shares the tensors of the fit.
        """
        self._check_fitted()
        return FactorAnalyserMixtureDensity(
            self.weights_, self.means_, self.loadings_, self.noise_variances_, self.backend
        ).of_a_fit()
