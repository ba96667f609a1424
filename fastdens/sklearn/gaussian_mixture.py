"""One mixture of Gaussians: :class:`fastdens.GaussianMixtures` as scikit-learn's ``GaussianMixture``."""

from __future__ import annotations

import inspect
import time
import warnings
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fastdens.arrays import array_of, tensor_of
from fastdens.batch import RaggedBatch
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.errors import check_integer
from fastdens.kernels.options import check_choice
from fastdens.mixtures.covariances import (
    COVARIANCE_TYPES,
    TIED_ACROSS_MODELS,
    check_can_stream,
    covariance_shape,
    n_parameters,
)
from fastdens.sklearn.conversion import DTYPES, seed_of, weighted
from fastdens.sklearn.density_estimator import DensityEstimator
from fastdens.sklearn.doubts import QuietGaussianMixtures
from fastdens.sklearn.initial_parameters import check_means, check_precisions, check_weights

# Those that the estimator of batches has too, with the same meaning for one model as for many.
_PARAMETERS = (
    "n_components",
    "covariance_type",
    "tol",
    "reg_covar",
    "shrinkage",
    "max_iter",
    "n_init",
    "init_params",
    "warm_start",
)
_NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)


def _learns_from_streams(mixture: GaussianMixture) -> bool:
    check_can_stream(mixture.shrinkage, mixture.covariance_type)
    return True


class GaussianMixture(DensityEstimator):
    """Mixture of K Gaussians, fitted by EM: parameters and attributes of ``sklearn.mixture.GaussianMixture``.

    Parameters
    ----------
    n_components : int, default=1
        Components K.
    covariance_type : {"full", "tied", "diag", "spherical", "tied_across_models"}, default="full"
        Each component its own matrix; one matrix for all; each component its own variances, its own single variance.
        In a :class:`DensityClassifier`, "tied_across_models" is one matrix for all classes; here it is "tied".
    tol : float, default=1e-3
        EM has converged when the mean log-likelihood of a sample changes by less than this.
    reg_covar : float, default=1e-6
        Added to the diagonal of every covariance.
    shrinkage : float or {"ledoit_wolf", "oas"}, optional
        Move full and tied covariances towards a multiple of the identity, by this share or by the one that the method
        estimates; see :class:`fastdens.GaussianMixtures`.
    max_iter : int, default=100
        EM iterations at most; 0 keeps the initial parameters.
    n_init : int, default=1
        Starts, of which the one with the largest lower bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        Start, with scikit-learn's meanings.
    weights_init, means_init, precisions_init : array-like, optional
        Initial parameters: (n_components,), (n_components, n_features), and precisions in the shape of
        ``covariances_``. Those that are None come from ``init_params``.
    random_state : int, RandomState instance or None, default=None
        Of the starts and of :meth:`sample`. The same integer gives the same result, bit for bit.
    warm_start : bool, default=False
        Begin where the last ``fit`` ended.
    verbose : int, default=0
        Print what came of ``fit``: the iterations, and with more than 1 also their time and the lower bound.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        full (n_components, n_features, n_features), tied (n_features, n_features), diag (n_components, n_features),
        spherical (n_components,). ``precision = U U'`` with the upper triangular ``U`` of ``precisions_cholesky_``.
    converged_ : bool
    n_iter_ : int
        EM iterations of the best start.
    lower_bound_ : float
        Mean log-likelihood of a sample at the last E step of the best start.
    n_features_in_ : int
        Features of the data.
    feature_names_in_ : ndarray of str
        Their names, where the data had some.

    Notes
    -----
    Attributes are float32 after a fit to data in float32, and otherwise float64. They are what all methods compute
    with: an estimator whose ``weights_``, ``means_`` and ``precisions_cholesky_`` are set by hand counts as fitted.

    Examples
    --------
    >>> import numpy as np, fastdens as fd
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0], [10.0, 0.0]])
    >>> gm = fd.sklearn.GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> np.sort(gm.means_[:, 0])
    array([ 1., 10.])
    """

    weights_: NDArray[np.floating[Any]]
    means_: NDArray[np.floating[Any]]
    covariances_: NDArray[np.floating[Any]]
    precisions_: NDArray[np.floating[Any]]
    precisions_cholesky_: NDArray[np.floating[Any]]
    _mixtures: QuietGaussianMixtures

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        shrinkage: float | str | None = None,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.shrinkage = shrinkage
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def mixtures(self, **options: Any) -> QuietGaussianMixtures:
        """An estimator of batches with the parameters of this one; each call draws a seed for it.

        Parameters
        ----------
        **options : object
            Further parameters of that estimator.

        Returns
        -------
        GaussianMixtures
            Not fitted.
        """
        parameters = {name: getattr(self, name) for name in _PARAMETERS}
        if self.n_components == 1:
            # No responsibilities will change: all samples of a stream count alike.
            parameters["step_power"] = 1.0
        return QuietGaussianMixtures(**{**parameters, **options}, random_state=seed_of(self.random_state))

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : ignored
            There for pipelines and searches.
        sample_weight : array-like of shape (n_samples,), optional
            A sample of weight w counts as w equal samples would, one of weight 0 as if it were absent.

        Returns
        -------
        GaussianMixture
            Itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter is invalid, there are fewer samples than components, ``X`` holds NaN or infinity, or EM
            loses a positive definite covariance.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If EM stops at ``max_iter``.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit the mixture and return the most probable component of each of its samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : ignored
            There for pipelines and searches.
        sample_weight : array-like of shape (n_samples,), optional
            As for :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Components, from 0.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`.
        """
        self._fit(X, sample_weight)
        return self.predict(X)

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        batch = weighted(self._points_to_fit(X), sample_weight)
        check_integer("n_components", self.n_components, 1)
        if batch.n_points < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {batch.n_points}"
            )
        begun = time.perf_counter()
        mixtures = self._mixtures_for(batch, going_on=self.warm_start)
        mixtures.fit(batch)
        self._set_attributes(mixtures)
        if self.verbose:
            self._report(time.perf_counter() - begun)
        if not self.converged_ and self.max_iter > 0:
            # Past this method and the public one that calls it.
            warnings.warn(_NOT_CONVERGED, ConvergenceWarning, stacklevel=3)

    @available_if(_learns_from_streams)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from one part of a stream, by a step of stepwise EM; ``y`` is ignored.

        Begins a stream, or goes on with it, or from a ``fit``. The mixture counts as fitted once the parts have had as
        many samples as it has components. With one component, all samples count alike and the mixture ends where a fit
        to all of them does. See :meth:`fastdens.GaussianMixtures.partial_fit`.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`; at least one sample.

        Returns
        -------
        GaussianMixture
            Itself.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`; if ``X`` has other features than the parts before it.
        """
        goes_on = hasattr(self, "_mixtures")
        dtype = self._mixtures.means_.new_empty(0).numpy().dtype if goes_on else DTYPES
        points = validate_data(self, X, dtype=dtype, reset=not goes_on)
        batch = weighted(RaggedBatch.from_list([tensor_of(points)]), sample_weight)
        mixtures = self._mixtures_for(batch, going_on=True)
        mixtures.partial_fit(batch)
        self._mixtures = mixtures
        if not mixtures.failed_[0]:
            self._set_attributes(mixtures)
        return self

    def _mixtures_for(self, batch: RaggedBatch, *, going_on: bool) -> QuietGaussianMixtures:
        """The estimator that fits the batch: an unfitted one, or the last one with the parameters of today."""
        initial = self._initial_parameters(batch.n_features)
        mixtures = self.mixtures(covariance_type=self._covariance_type, **initial)
        if not (going_on and hasattr(self, "_mixtures")):
            return mixtures
        parameters = inspect.signature(QuietGaussianMixtures).parameters
        vars(self._mixtures).update({name: getattr(mixtures, name) for name in parameters})
        return self._mixtures

    def _initial_parameters(self, n_features: int) -> dict[str, NDArray[Any]]:
        """The given ones, with an axis of models."""
        k, d = self.n_components, n_features
        given = {}
        if self.weights_init is not None:
            given["weights_init"] = check_weights(self.weights_init, k)[None]
        if self.means_init is not None:
            given["means_init"] = check_means(self.means_init, k, d)[None]
        if self.precisions_init is not None:
            kind = self._covariance_type
            shape = covariance_shape(kind, 1, k, d)[1:]
            given["precisions_init"] = check_precisions(self.precisions_init, kind, shape)[None]
        return given

    @property
    def _covariance_type(self) -> str:
        """That of one model, whose components are all those that can share a matrix."""
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        return "tied" if self.covariance_type == TIED_ACROSS_MODELS else self.covariance_type

    def _set_attributes(self, mixtures: QuietGaussianMixtures) -> None:
        self._mixtures = mixtures
        self.weights_, self.means_, self.covariances_, self.precisions_cholesky_ = (
            array_of(value[0])
            for value in (mixtures.weights_, mixtures.means_, mixtures.covariances_, mixtures.precisions_cholesky_)
        )
        factors = self.precisions_cholesky_
        is_matrix = self._covariance_type in ("full", "tied")
        self.precisions_ = factors @ np.swapaxes(factors, -1, -2) if is_matrix else factors**2
        self.converged_: bool = bool(mixtures.converged_[0])
        self.n_iter_: int = int(mixtures.n_iter_[0])
        self.lower_bound_: float = float(mixtures.lower_bound_[0])

    def _report(self, seconds: float) -> None:
        line = f"EM {'converged' if self.converged_ else 'did not converge'} after {self.n_iter_} iterations"
        if self.verbose > 1:
            line += f" in {seconds:.5f} s, with lower bound {self.lower_bound_:.5f}"
        print(f"{line}.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self.means_.dtype

    def _density(self) -> GaussianMixtureDensity:
        check_is_fitted(self)
        weights, means, factors = (
            tensor_of(array)[None] for array in (self.weights_, self.means_, self.precisions_cholesky_)
        )
        return GaussianMixtureDensity(weights, means, factors, self._covariance_type)

    def _log_density(self, batch: RaggedBatch) -> Tensor:
        return self._density().own_log_prob(batch)

    def _drawn(self, n_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        points, components = self._density().sample_components(n_samples, generator)
        return points[0], components[0]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Probability of each component for each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Each row sums to one.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        batch = self._points(X)
        return array_of(self._density().responsibilities(batch).resp)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Most probable component of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            Components, from 0.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        components: NDArray[np.int64] = self.predict_proba(X).argmax(1)
        return components

    def _n_parameters(self) -> int:
        """Free parameters of the fitted mixture."""
        k, d = map(int, self.means_.shape)
        components = torch.tensor(k, dtype=torch.float64, device="cpu")
        return int(n_parameters(self._covariance_type, 1, components, d)) + k * d + k - 1

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion on samples (Schwarz 1978).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        float
            Lower is better.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        log_density = self.score_samples(X)
        return float(-2 * log_density.sum(dtype=np.float64) + self._n_parameters() * np.log(len(log_density)))

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion on samples (Akaike 1974).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        float
            Lower is better.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        return float(-2 * self.score_samples(X).sum(dtype=np.float64) + 2 * self._n_parameters())
