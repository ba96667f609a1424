"""Generative classification: one density for each class, fitted in one batch, and Bayes' rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from fastdens.arrays import array_of, tensor_of
from fastdens.batch import RaggedBatch
from fastdens.sklearn.conversion import DTYPES, weighted
from fastdens.sklearn.density_estimator import DensityEstimator
from fastdens.sklearn.gaussian_mixture import GaussianMixture

# Initial parameters of all classes would be the same, and a class that is fitted anew has nothing to go on from.
_OF_ONE_MIXTURE = ("weights_init", "means_init", "precisions_init", "warm_start")


def _learns_from_streams(classifier: DensityClassifier) -> bool:
    return classifier.estimator is None or hasattr(classifier.estimator, "partial_fit")


class DensityClassifier(ClassifierMixin, BaseEstimator):
    """Classification by the density of each class and Bayes' rule, ``p(c | x) ~ p(c) p(x | c)``.

    The densities of all classes are fitted at once. With one Gaussian for each class this is quadratic discriminant
    analysis, with one covariance for all, ``covariance_type="tied_across_models"``, linear discriminant analysis, and
    with ``covariance_type="diag"`` Gaussian naive Bayes.

    Parameters
    ----------
    estimator : GaussianMixture or DirichletProcessMixture, default=None
        The density of every class, unfitted, with the parameters for all of them; None is ``GaussianMixture()``. A
        search finds its parameters under names such as ``estimator__n_components``.
    priors : array-like of shape (n_classes,), default=None
        Prior probabilities of the classes in the order of ``classes_``; by default their shares of the samples.
    on_error : {"raise", "skip"}, default="raise"
        "raise" names the classes whose density cannot be fitted, for example because they have fewer samples than
        components. "skip" fits all others, never predicts those, and notes them in ``models_.failures_``.
    random_state : int, RandomState instance or None, default=None
        In place of that of ``estimator``, if it is given.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    class_count_ : ndarray of shape (n_classes,)
        Samples of each class, or the sum of their weights.
    class_prior_ : ndarray of shape (n_classes,)
    models_ : fastdens.GaussianMixtures or fastdens.DirichletProcessMixtures
        The fitted densities, one for each class in the order of ``classes_``.
    n_features_in_ : int
        Features of the data.
    feature_names_in_ : ndarray of str
        Their names, where the data had some.

    References
    ----------
    Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd edition, 2009, sections 4.3 and 6.8.

    Examples
    --------
    >>> import numpy as np, fastdens as fd
    >>> X = np.array([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]])
    >>> classifier = fd.sklearn.DensityClassifier().fit(X, ["low"] * 3 + ["high"] * 3)
    >>> classifier.predict([[1.5], [8.0]])
    array(['low', 'high'], dtype='<U4')
    """

    classes_: NDArray[Any]
    class_count_: NDArray[np.float64]
    class_prior_: NDArray[np.float64]
    models_: Any

    def __init__(
        self,
        estimator: DensityEstimator | None = None,
        *,
        priors: ArrayLike | None = None,
        on_error: str = "raise",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.priors = priors
        self.on_error = on_error
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the density of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,)
            Labels of any kind.
        sample_weight : array-like of shape (n_samples,), optional
            A sample of weight w counts as w equal samples would, for the densities and for the priors.

        Returns
        -------
        DensityClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter is invalid, ``X`` holds NaN or infinity, or a class cannot be fitted and ``on_error`` is
            "raise"; the message names the class.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the densities of some classes do not converge; the message names these.
        """
        points, labels = validate_data(self, X, y, dtype=DTYPES, ensure_min_samples=2)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(column_or_1d(labels), return_inverse=True)
        batch = self._batch(points, codes, sample_weight)
        self.class_count_ = array_of(batch.total_weights)
        self.class_prior_ = self._priors()
        self.models_ = self._density().mixtures(on_error=self.on_error).fit(batch)
        self.models_.warn(batch)
        return self

    @available_if(_learns_from_streams)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from one part of a stream, by a step of stepwise EM in each class that has samples in it.

        Begins a stream, or goes on with it, or from a ``fit``. A class is predicted once it has had as many samples as
        its density has components. See :meth:`fastdens.GaussianMixtures.partial_fit`.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`; at least one sample.
        classes : array-like of shape (n_classes,)
            All classes of the stream. Needed in its first call, and optional later.

        Returns
        -------
        DensityClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`; if ``classes`` are missing or others than before, or ``y`` has labels beside them.
        """
        goes_on = hasattr(self, "models_")
        dtype = array_of(self.models_.means_[:0]).dtype if goes_on else DTYPES
        points, labels = validate_data(self, X, y, dtype=dtype, reset=not goes_on)
        known = self._classes_of_stream(classes)
        if unknown := np.setdiff1d(labels, known).tolist():
            raise ValueError(f"y has labels that are not among classes: {unknown[:5]}.")
        self.classes_ = known
        batch = self._batch(points, np.searchsorted(known, labels), sample_weight)
        models: Any = self.models_ if goes_on else self._density().mixtures(on_error=self.on_error)
        self.models_ = models.partial_fit(batch)
        self.class_count_ = array_of(models.n_points_seen_)
        self.class_prior_ = self._priors()
        return self

    def _classes_of_stream(self, classes: ArrayLike | None) -> NDArray[Any]:
        if classes is None:
            if not hasattr(self, "models_"):
                raise ValueError("classes must be passed on the first call to partial_fit.")
            return self.classes_
        known = np.unique(column_or_1d(classes))
        if hasattr(self, "models_") and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes are {known}, but those of the calls before were {self.classes_}.")
        return known

    def _density(self) -> DensityEstimator:
        """The density of each class, with its parameters, not fitted.

        Raises
        ------
        ValueError
            If it has parameters that are for one mixture alone.
        """
        density: DensityEstimator = GaussianMixture() if self.estimator is None else clone(self.estimator)
        for name in _OF_ONE_MIXTURE:
            value = getattr(density, name, None)
            if value is not None and value is not False:
                raise ValueError(f"estimator has {name}, which is for one mixture alone: leave it out.")
        return density if self.random_state is None else density.set_params(random_state=self.random_state)

    def _batch(self, points: NDArray[Any], codes: NDArray[np.intp], sample_weight: ArrayLike | None) -> RaggedBatch:
        """One model for each class, by its name."""
        batch = RaggedBatch.from_labels(tensor_of(points), codes, n_classes=len(self.classes_))
        return weighted(replace(batch, classes=tuple(self.classes_.tolist())), sample_weight)

    def _priors(self) -> NDArray[np.float64]:
        """``priors``, checked, or the shares of the classes in the samples."""
        if self.priors is None:
            shares: NDArray[np.float64] = self.class_count_ / self.class_count_.sum()
            return shares
        priors: NDArray[np.float64] = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != self.classes_.shape:
            raise ValueError(
                f"priors has shape {priors.shape}, but there are {len(self.classes_)} classes: pass one for each."
            )
        if not (priors >= 0).all() or not np.isclose(priors.sum(), 1):
            raise ValueError(f"priors is {priors}, but priors must not be negative and must sum to 1.")
        return priors

    def _joint_log_density(self, X: ArrayLike) -> NDArray[np.float64]:
        """``log p(c) + log p(x | c)``, (n_samples, n_classes); minus infinity for a class without a density."""
        check_is_fitted(self, "models_")
        points = validate_data(self, X, dtype=DTYPES, reset=False)
        has_none = array_of(self.models_.failed_)
        if has_none.all():
            raise NotFittedError(f"no class has a density: {next(iter(self.models_.failures_.values()))}.")
        log_density = array_of(self.models_.log_prob(tensor_of(points))).astype(np.float64)
        log_density[:, has_none] = -np.inf
        with np.errstate(divide="ignore"):
            return log_density + np.log(self.class_prior_)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of the joint densities of samples and classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,)
            Of two classes, what the second is ahead of the first.

        Raises
        ------
        NotFittedError
            Before ``fit``, or if no class could be fitted.
        ValueError
            If ``X`` has other features than the data of the fit, or holds NaN or infinity.
        """
        joint = self._joint_log_density(X)
        return joint[:, 1] - joint[:, 0] if len(self.classes_) == 2 else joint

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`decision_function`.
        """
        joint = self._joint_log_density(X)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; each row sums to one.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`decision_function`.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels as they were given to :meth:`fit`.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`decision_function`.
        """
        most_probable = self._joint_log_density(X).argmax(1)
        classes: NDArray[Any] = self.classes_[most_probable]
        return classes
