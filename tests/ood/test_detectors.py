"""Scores against formulas written out in numpy and scikit-learn, in awkward shapes and with bad rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.neighbors import NearestNeighbors

import fastdens as fd
from fastdens.ood.nearest_neighbours import kth_distance, smallest
from tests.ood.problems import classes

SHAPES = [([30, 1, 50], 3), ([40], 5), ([25, 8, 30, 12], 1), ([2, 90], 7)]
GAUSSIANS = fd.GaussianMixtures(1)
ALL = [
    fd.ood.Mahalanobis(),
    fd.ood.RelativeMahalanobis(),
    fd.ood.NearestNeighbours(3),
    fd.ood.MixtureDensity(fd.GaussianMixtures(1, covariance_type="diag")),
]
NAMES = [type(detector).__name__ for detector in ALL]


def distances_to_means(x, y, points):
    """Squared Mahalanobis distances to the classes, and to all together, by scikit-learn."""
    means = np.stack([x[y == c].mean(0) for c in np.unique(y)])
    within = EmpiricalCovariance(assume_centered=True).fit(x - means[y])
    whole = EmpiricalCovariance().fit(x)
    to_classes = np.stack([within.mahalanobis(points - mean) for mean in means], 1)
    return to_classes, whole.mahalanobis(points)


@pytest.mark.parametrize(("sizes", "n_features"), SHAPES)
def test_mahalanobis_is_the_formula(rng, sizes, n_features):
    x, y, others = classes(rng, sizes, n_features)
    to_classes, to_all = distances_to_means(x.numpy(), y.numpy(), others.numpy())
    plain = fd.ood.Mahalanobis(reg_covar=0).fit(x, y)
    relative = fd.ood.RelativeMahalanobis(reg_covar=0).fit(x, y)
    np.testing.assert_allclose(plain.score(others), to_classes.min(1), rtol=1e-10, atol=1e-12)
    # A difference of distances is as precise as these.
    expected, precision = to_classes.min(1) - to_all, 1e-10 * (to_classes.min(1) + to_all) + 1e-12
    assert (np.abs(relative.score(others).numpy() - expected) < precision).all()


def test_shrinkage_where_there_are_fewer_examples_than_dimensions(rng):
    x, y, others = classes(rng, [8, 7, 9], 40)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    within = LedoitWolf(assume_centered=True).fit(x.numpy() - means[y])
    detector = fd.ood.Mahalanobis(shrinkage="ledoit_wolf", reg_covar=0).fit(x, y)
    expected = np.stack([within.mahalanobis(others.numpy() - mean) for mean in means], 1).min(1)
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-8)


@pytest.mark.parametrize("over_classes", ["sum", "max"])
@pytest.mark.parametrize("priors", ["frequencies", "uniform"])
def test_mixture_density_is_the_formula(rng, over_classes, priors):
    x, y, others = classes(rng, [40, 15, 60], 3)
    weights = np.array([40, 15, 60]) / 115 if priors == "frequencies" else np.full(3, 1 / 3)
    of_class = [x[y == c].numpy() for c in range(3)]
    log_joint = np.stack(
        [
            np.log(weight) + multivariate_normal(own.mean(0), np.cov(own.T, bias=True)).logpdf(others)
            for weight, own in zip(weights, of_class, strict=True)
        ],
        1,
    )
    expected = -(logsumexp(log_joint, 1) if over_classes == "sum" else log_joint.max(1))
    estimator = fd.GaussianMixtures(1, reg_covar=0)
    detector = fd.ood.MixtureDensity(estimator, over_classes=over_classes, priors=priors).fit(x, y)
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-10)
    assert not hasattr(estimator, "means_"), "a copy is fitted"


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_nearest_neighbours_are_those_of_scikit_learn(rng, normalize, k):
    x, _, others = classes(rng, [30, 20], 4)
    detector = fd.ood.NearestNeighbours(k, normalize=normalize).fit(x)
    own, other = (v / np.linalg.norm(v, axis=1, keepdims=True) if normalize else v for v in (x.numpy(), others.numpy()))
    expected = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(own).kneighbors(other)[0][:, -1]
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-10)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 0.0])
def test_neighbours_that_float32_products_confuse(rng, spread):
    """A collapsed class: products of float32 see no difference between its features."""
    centre = rng.normal(size=16)
    x = torch.from_numpy(centre + spread * rng.normal(size=(400, 16))).float()
    points = torch.cat([x[:3], torch.from_numpy(centre + spread * rng.normal(size=(30, 16))).float()])
    for k in (1, 7, 200, 398, 400):
        expected = np.sort(cdist(points.double(), x.double()), 1)[:, k - 1]
        np.testing.assert_allclose(kth_distance(points, x, x.square().sum(1), k), expected, rtol=1e-7, atol=1e-14)


def test_the_smallest_numbers_of_a_row_are_those_of_topk(rng):
    # More columns than whole groups; ties; infinity; and NaN, which hides none of the numbers beside it.
    order = torch.from_numpy(rng.integers(0, 400, size=(5, 2013)).astype("float32"))
    order[1] += torch.from_numpy(rng.random(2013).astype("float32"))
    order[2, ::3] = torch.inf
    for n in (1, 7, 30, 60):
        found, column = smallest(order, n)
        assert torch.equal(found, order.topk(n, largest=False).values)
        assert torch.equal(order.gather(1, column), found) and all(len(row.unique()) == n for row in column)
    order[3, order[3].argsort()[10:]] = torch.nan
    assert torch.equal(smallest(order, 7)[0], order.topk(7, largest=False).values)


def test_neighbours_whose_squares_float32_cannot_hold(rng):
    x, points = (torch.from_numpy(rng.normal(size=(n, 3))).float() * 1e25 for n in (40, 10))
    expected = np.sort(cdist(points.double(), x.double()), 1)[:, 6]
    scores = fd.ood.NearestNeighbours(7, normalize=False).fit(x).score(points)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_a_feature_of_zeros_has_no_direction_and_a_distance():
    detector = fd.ood.NearestNeighbours(1).fit([[3.0, 4.0], [1e-30, 0.0]])
    assert detector.score([[0.0, 0.0], [6e200, 8e200], [1e-300, 0.0]]).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("detector", ALL, ids=NAMES)
def test_float32_far_from_the_origin(rng, detector):
    x, y, others = classes(rng, [60, 40], 6, torch.float32, shift=1e4)
    detector.fit(x, y)
    scores = detector.score(others)
    exact = type(detector).from_state(*detector.fit(x.double(), y).get_state()).score(others.double())
    assert scores.dtype == torch.float32
    # Half a unit of the last place of a mean at 1e4 moves a point by up to 5e-4 of a deviation in each dimension.
    np.testing.assert_allclose(scores, exact, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("detector", ALL, ids=NAMES)
def test_a_score_does_not_depend_on_the_other_rows(rng, detector, monkeypatch):
    x, y, others = classes(rng, [60, 40], 6)
    detector.fit(x, y)
    whole = detector.score(others)
    monkeypatch.setattr("fastdens.ood.base._BLOCK_ELEMENTS", 100)
    np.testing.assert_allclose(detector.score(others), whole, rtol=1e-12)
    np.testing.assert_allclose(detector.score(others[7:8]), whole[7:8], rtol=1e-12)
    assert detector.score(others[:0]).shape == (0,)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("detector", ALL, ids=NAMES)
def test_a_class_with_nan(rng, detector, on_error):
    x, y, others = classes(rng, [30, 20, 40], 3)
    bad, names = x.clone(), np.array(["ant", "bee", "cat"])[y]
    bad[np.flatnonzero(names == "bee")[3], 1] = float("nan")
    made = type(detector).from_state(*detector.fit(x, y).get_state())
    owner = made.estimator if hasattr(made, "estimator") else made
    owner.on_error = on_error
    others[5, 0] = float("inf")
    if on_error == "raise":
        with pytest.raises(fd.ModelError, match=r"class 'bee', layer 'conv3'.* NaN"):
            made.fit(bad, names, layer="conv3")
        with pytest.raises(ValueError, match="row 5 of x has NaN or infinity"):
            made.fit(x, names).score(others)
        return
    made.fit(bad, names, layer="conv3")
    rest = names != "bee"
    scores = made.score(others)
    assert list(made.failures_) == [1] and made.classes_ == ("ant", "bee", "cat")
    assert scores.isnan().nonzero().flatten().tolist() == [5]
    fine = np.arange(60) != 5
    np.testing.assert_allclose(scores[fine], made.fit(x[rest], names[rest]).score(others[fine]), rtol=1e-12)


def test_no_class_can_be_fitted():
    x = torch.full((4, 2), float("nan"))
    for detector in (fd.ood.Mahalanobis(on_error="skip"), fd.ood.MixtureDensity(fd.GaussianMixtures(on_error="skip"))):
        with pytest.raises(fd.ModelError, match="NaN"):
            detector.fit(x, [0, 0, 1, 1])


@pytest.mark.parametrize("detector", ALL, ids=NAMES)
def test_saved_and_loaded(rng, tmp_path, detector):
    x, y, others = classes(rng, [30, 20], 3)
    scores = detector.fit(x, y).score(others)
    detector.save(tmp_path / "detector")
    loaded = fd.ood.load(tmp_path / "detector")
    assert type(loaded) is type(detector) and repr(loaded) == repr(detector) and loaded.classes_ == (0, 1)
    assert torch.equal(loaded.score(others), scores)
    assert torch.equal(detector.to("cpu").score(others), scores)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        detector.save(tmp_path / "detector")
    with pytest.raises(ValueError, match="is a saved detector, not a fit"):
        fd.load(tmp_path / "detector")


@pytest.mark.parametrize("detector", ALL, ids=NAMES)
def test_a_damaged_state_is_refused(rng, detector):
    x, y, _ = classes(rng, [30, 20], 3)
    tensors, metadata = detector.fit(x, y).get_state()
    # Files of earlier versions lack some tensors of a mixture.
    for name in (name for name in tensors if name.removeprefix("estimator.") not in ("shrinkage_", "n_points_seen_")):
        with pytest.raises(ValueError, match="the state"):
            type(detector).from_state({key: t for key, t in tensors.items() if key != name}, metadata)
        with pytest.raises(ValueError, match="the state"):
            type(detector).from_state({**tensors, name: tensors[name].new_zeros(3, 1, 4)}, metadata)
    with pytest.raises(ValueError, match="the state"):
        type(detector).from_state(tensors, {})


def test_what_is_wrong_is_said():
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 4
    with pytest.raises(fd.NotFittedError, match=r"call fit\(x, y\) first"):
        fd.ood.Mahalanobis().score(x)
    with pytest.raises(ValueError, match="y is None"):
        fd.ood.Mahalanobis().fit(x)
    with pytest.raises(ValueError, match="layer 'a' has one point in each class"):
        fd.ood.Mahalanobis().fit(x, torch.arange(20), layer="a")
    with pytest.raises(fd.ModelError, match=r"layer 'a'.* covariance that is not positive definite"):
        fd.ood.Mahalanobis(reg_covar=0).fit(x * torch.tensor([1, 0, 1]), y, layer="a")
    with pytest.raises(ValueError, match="k is 50, but there are 20 training examples of layer 'a'"):
        fd.ood.NearestNeighbours().fit(x, layer="a")
    with pytest.raises(ValueError, match="x has 2 features, but the detector was fitted to 3"):
        fd.ood.Mahalanobis().fit(x, y).score(x[:, :2])
    with pytest.raises(ValueError, match="on_error"):
        fd.ood.Mahalanobis(on_error="ignore").fit(x, y)
    with pytest.raises(TypeError, match="must be an estimator of mixtures"):
        fd.ood.MixtureDensity(fd.ood.Mahalanobis())
    with pytest.raises(ValueError, match="priors"):
        fd.ood.MixtureDensity(GAUSSIANS, priors="equal").fit(x, y)
