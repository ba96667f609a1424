"""The projection as a transformer, against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastdens.sklearn import UncentredSVD


@parametrize_with_checks([UncentredSVD(), UncentredSVD(n_components=1)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("shape", "k"), [((50, 7), 3), ((6, 40), 6), ((1, 1), 1), ((9, 1), 1), ((1, 9), 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_numpy(rng, shape, k, dtype):
    x = (rng.normal(size=shape) + 3).astype(dtype)
    svd = UncentredSVD(k).fit(x)
    _, values, vectors = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == np.float64 else {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(svd.singular_values_, values[:k], **tolerance)
    np.testing.assert_allclose(svd.explained_energy_ratio_, values[:k] ** 2 / (values**2).sum(), **tolerance)
    np.testing.assert_allclose(np.abs(svd.components_ @ vectors[:k].T), np.eye(k), **tolerance)
    projected = svd.transform(x)
    assert projected.dtype == svd.components_.dtype == dtype
    np.testing.assert_array_equal(projected, svd.fit_transform(x))
    np.testing.assert_allclose(np.linalg.norm(projected, axis=0), values[:k], **tolerance)
    if k == min(shape):
        np.testing.assert_allclose(svd.inverse_transform(projected), x, **tolerance)


def test_agrees_with_truncated_svd_but_for_signs(rng):
    x = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    peer = TruncatedSVD(4, algorithm="arpack").fit(x)
    ours = UncentredSVD(4).fit(x)
    signs = np.sign((ours.components_ * peer.components_).sum(1))
    np.testing.assert_allclose(ours.transform(x), peer.transform(x) * signs, atol=1e-9)


def test_names_and_data_frames(rng):
    frame = pd.DataFrame(rng.normal(size=(20, 3)), columns=["a", "b", "c"])
    svd = clone(UncentredSVD(2)).set_output(transform="pandas")
    projected = svd.fit_transform(frame)
    assert list(projected.columns) == ["uncentredsvd0", "uncentredsvd1"]
    assert list(svd.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        svd.transform(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize(
    ("n_components", "error", "message"),
    [(4, ValueError, "n_samples=20"), (0, ValueError, "least 1"), (1.5, TypeError, "integer")],
)
def test_bad_parameters(rng, n_components, error, message):
    with pytest.raises(error, match=message):
        UncentredSVD(n_components).fit(rng.normal(size=(20, 3)))


def test_before_fit(rng):
    with pytest.raises(NotFittedError):
        UncentredSVD().inverse_transform(rng.normal(size=(2, 2)))
