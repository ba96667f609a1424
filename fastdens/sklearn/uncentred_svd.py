"""Projection on leading right singular vectors: :class:`fastdens.reduction.UncentredSVD` as a transformer."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from fastdens import reduction
from fastdens.arrays import array_of, tensor_of
from fastdens.errors import check_integer
from fastdens.sklearn.conversion import DTYPES


class UncentredSVD(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Projection on the leading right singular vectors of the data matrix, which is not centred.

    Parameters
    ----------
    n_components : int, default=2
        Dimensions K to keep, at most the smaller side of the data.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal rows in the dtype of the data; the largest entry of each is positive.
    singular_values_ : ndarray of shape (n_components,)
        float64, descending.
    explained_energy_ratio_ : ndarray of shape (n_components,)
        float64, the share of each component in the sum of squares of the data.
    n_features_in_ : int
        Features of the data.
    feature_names_in_ : ndarray of str
        Their names, where the data had some.

    Examples
    --------
    >>> import numpy as np, fastdens as fd
    >>> svd = fd.sklearn.UncentredSVD(n_components=1)
    >>> svd.fit_transform(np.array([[3.0, 4.0], [6.0, 8.0]]))
    array([[ 5.],
           [10.]])
    """

    def __init__(self, n_components: int = 2) -> None:
        self.n_components = n_components

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Find the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training samples.
        y : ignored
            There for pipelines and searches.

        Returns
        -------
        UncentredSVD
            Itself.

        Raises
        ------
        TypeError, ValueError
            If ``n_components`` is no integer from 1 to the smaller side of ``X``, or ``X`` holds NaN or infinity.
        """
        points = validate_data(self, X, dtype=DTYPES)
        k = check_integer("n_components", self.n_components, 1)
        if k > min(points.shape):
            n, d = points.shape
            raise ValueError(
                f"n_components is {k}, but X has n_samples={n} and n_features={d}: it can be at most {min(n, d)}."
            )
        svd = reduction.UncentredSVD(k).fit(tensor_of(points))
        self.components_: NDArray[Any] = array_of(svd.components_)
        self.singular_values_: NDArray[Any] = array_of(svd.singular_values_)
        self.explained_energy_ratio_: NDArray[Any] = array_of(svd.explained_energy_ratio_)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Coordinates of samples along the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            In the dtype of the samples.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If ``X`` has other features than the data of the fit.
        """
        check_is_fitted(self)
        points = validate_data(self, X, dtype=DTYPES, reset=False)
        coordinates: NDArray[np.floating[Any]] = points @ self.components_.T
        return coordinates

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Points in the span of the components that have certain coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            The coordinates.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The points.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        points: NDArray[np.floating[Any]] = check_array(X, dtype=DTYPES) @ self.components_
        return points

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
