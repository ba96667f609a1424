"""One infinite mixture of Gaussians: :class:`fastdens.DirichletProcessMixtures` as an estimator of scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.arrays import array_of
from fastdens.batch import RaggedBatch
from fastdens.kernels.options import check_choice
from fastdens.sklearn.conversion import seed_of
from fastdens.sklearn.density_estimator import DensityEstimator
from fastdens.sklearn.doubts import QuietSampledMixtures, QuietVariationalMixtures

_MIXTURES = {"gibbs": QuietSampledMixtures, "vb": QuietVariationalMixtures}


class DirichletProcessMixture(DensityEstimator):
    """Mixture of as many Gaussians as the data call for: a density, and a clustering.

    Parameters
    ----------
    method : {"gibbs", "vb"}, default="gibbs"
        Collapsed Gibbs sampling, or variational inference, which is faster and draws no samples.
    n_sweeps : int, default=400
        Sweeps of each chain.
    burn_in : int, default=320
        Sweeps before the first that may be kept.
    thin : int, default=4
        Of the sweeps after ``burn_in`` every ``thin``-th is kept.
    n_chains : int, default=1
        Chains, which start apart.
    init : {"overdispersed", "kmeans", "random"}, default="overdispersed"
        Labels that chains start from: :class:`fastdens.DirichletProcessMixtures` describes each.
    init_components : int, default=6
        The divisor of the prior's scale, and the clusters of the starts "kmeans" and "random".
    split_merge : "auto" or float, default="auto"
        Split-merge moves a sweep, on average.
    search : float, default=0.7
        Share of the burn-in in which each chain looks for a good state from several starts.
    stop : {"sweeps", "converged"}, default="sweeps"
        "converged" goes on, up to ``max_sweeps``, while the chains do not agree after ``n_sweeps``.
    max_sweeps : int, default=None
        By default ten times ``n_sweeps``.
    max_rhat : float, default=None
        Chains agree if the rank-normalised R-hat is at most this; by default
        :func:`fastdens.convergence.rhat_threshold`.
    min_ess : float, default=None
        Effective draws that agreement needs, too; by default ten a chain or half of the draws.
    kappa0 : float, default=0.01
        How many samples the prior mean is worth.
    nu0 : float, default=None
        Degrees of freedom of the prior, greater than the number of features less one; by default that number plus two.
    variance_floor : float, default=1e-6
        A feature that does not vary counts as one that has this share of the mean variance of the others. Zero refuses
        such features.
    alpha_prior : (float, float), default=(1.0, 1.0)
        Shape and rate of the gamma prior of the concentration.
    alpha : float, default=None
        Keep the concentration at this value.
    truncation : int, default=20
        Components of the posterior of "vb".
    max_iter : int, default=500
        Iterations of "vb" at most.
    tol : float, default=1e-3
        "vb" has converged when its lower bound changes by less than this.
    random_state : int, RandomState instance or None, default=None
        Of the fit and of :meth:`sample`. The same integer gives the same result, bit for bit.
    verbose : int, default=0
        Show sweeps while sampling, if it is not 0 (in a terminal, needs rich).

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        The cluster of each sample: of the partition that is closest to all draws in variation of information, or the
        most probable component.
    n_components_ : ndarray of shape (n_chains, n_draws)
        Clusters that hold samples in each kept draw; of "vb" the components that do, of shape (1, 1).
    alpha_ : ndarray of shape (n_chains, n_draws)
        The concentration in each kept draw; of "vb" its mean, of shape (1, 1).
    mixtures_ : fastdens.DirichletProcessMixtures or fastdens.VariationalDirichletProcessMixtures
        The fit of one model, with everything else that it knows.
    n_features_in_ : int
        Features of the data.
    feature_names_in_ : ndarray of str
        Their names, where the data had some.

    Examples
    --------
    >>> import numpy as np, fastdens as fd
    >>> X = np.concatenate([np.linspace(0.0, 1.0, 50), np.linspace(9.0, 10.0, 50)])[:, None]
    >>> dp = fd.sklearn.DirichletProcessMixture(n_sweeps=100, burn_in=60, random_state=0).fit(X)
    >>> len(np.unique(dp.labels_))
    2
    """

    def __init__(
        self,
        method: str = "gibbs",
        *,
        n_sweeps: int = 400,
        burn_in: int = 320,
        thin: int = 4,
        n_chains: int = 1,
        init: str = "overdispersed",
        init_components: int = 6,
        split_merge: float | str = "auto",
        search: float = 0.7,
        stop: str = "sweeps",
        max_sweeps: int | None = None,
        max_rhat: float | None = None,
        min_ess: float | None = None,
        kappa0: float = 0.01,
        nu0: float | None = None,
        variance_floor: float = 1e-6,
        alpha_prior: tuple[float, float] = (1.0, 1.0),
        alpha: float | None = None,
        truncation: int = 20,
        max_iter: int = 500,
        tol: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.method = method
        self.n_sweeps = n_sweeps
        self.burn_in = burn_in
        self.thin = thin
        self.n_chains = n_chains
        self.init = init
        self.init_components = init_components
        self.split_merge = split_merge
        self.search = search
        self.stop = stop
        self.max_sweeps = max_sweeps
        self.max_rhat = max_rhat
        self.min_ess = min_ess
        self.kappa0 = kappa0
        self.nu0 = nu0
        self.variance_floor = variance_floor
        self.alpha_prior = alpha_prior
        self.alpha = alpha
        self.truncation = truncation
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def mixtures(self, **options: Any) -> QuietSampledMixtures | QuietVariationalMixtures:
        """An estimator of batches with the parameters of this one; each call draws a seed for it.

        Parameters
        ----------
        **options : object
            Further parameters of that estimator.

        Returns
        -------
        DirichletProcessMixtures or VariationalDirichletProcessMixtures
            Not fitted.
        """
        check_choice("method", self.method, tuple(_MIXTURES))
        of_method = _MIXTURES[self.method]
        known = inspect.signature(of_method).parameters
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name in known}
        if "progress" in known:
            parameters["progress"] = bool(self.verbose)
        mixtures: QuietSampledMixtures | QuietVariationalMixtures = of_method(
            **{**parameters, **options, "random_state": seed_of(self.random_state)}
        )
        return mixtures

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : ignored
            There for pipelines and searches.

        Returns
        -------
        DirichletProcessMixture
            Itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter is invalid, ``X`` holds NaN or infinity, or no feature varies.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the chains do not agree, or variational inference stops at ``max_iter``.
        fastdens.ConstantFeatureWarning
            If features do not vary.
        """
        batch = self._fit(X)
        self.mixtures_.warn(batch)
        return self

    def fit_predict(self, X: ArrayLike, y: Any = None) -> NDArray[np.int64]:
        """Fit the mixture and return the clusters of its samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : ignored
            There for pipelines and searches.

        Returns
        -------
        ndarray of shape (n_samples,)
            The same as ``labels_``.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`.
        """
        batch = self._fit(X)
        self.mixtures_.warn(batch)
        return self.labels_

    def _fit(self, X: ArrayLike) -> RaggedBatch:
        batch = self._points_to_fit(X)
        mixtures = self.mixtures()
        mixtures.fit(batch)
        self.mixtures_ = mixtures
        self.labels_: NDArray[Any] = array_of(
            mixtures.partition(0).labels.long() if isinstance(mixtures, QuietSampledMixtures) else mixtures.labels_[0]
        )
        self.n_components_: NDArray[Any] = array_of(mixtures.n_components_[0])
        self.alpha_: NDArray[Any] = array_of(mixtures.alpha_[0])
        self._dtype_of_fit = array_of(batch.points).dtype
        return batch

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self._dtype_of_fit

    def _log_density(self, batch: RaggedBatch) -> Tensor:
        return self.mixtures_.score_samples(batch)

    def _drawn(self, n_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        points = self.mixtures_.sample(n_samples, generator)[0][0]
        return points, self.mixtures_.predict(RaggedBatch.from_list([points]))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Probability of each cluster of ``labels_`` for each sample, and of none of them in the last column.

        Of "gibbs", by co-clustering with the samples of the fit, see
        :meth:`fastdens.DirichletProcessMixtures.predict_proba`; of "vb", of each component.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples, those of the fit or others.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters + 1), or (n_samples, truncation + 1)
            Each row sums to one.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        batch = self._points(X)
        return array_of(self.mixtures_.predict_proba(batch))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Most probable cluster of each sample, numbered as in ``labels_``; -1 for none of them.

        A sample of the fit can have another cluster here than in ``labels_``, where two are almost as probable.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples, those of the fit or others.

        Returns
        -------
        ndarray of shape (n_samples,)
            From 0, or -1.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`.
        """
        batch = self._points(X)
        return array_of(self.mixtures_.predict(batch))
