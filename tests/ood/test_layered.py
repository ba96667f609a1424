"""Scores of several layers: what they are standardised by, how they are combined, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from tests.ood.problems import classes


def problem(rng, sizes=(60, 40, 50)):
    """Features of two layers for training examples, held-out ones and outliers, with the labels of the first."""
    sets = {}
    for layer, n_features in (("wide", 12), ("narrow", 3)):
        x, y, outliers = classes(np.random.default_rng([7, n_features]), list(sizes), n_features)
        sets[layer] = (x, x[::3] + 0.1 * torch.from_numpy(rng.normal(size=x[::3].shape)), outliers)
        order = torch.argsort(y, stable=True)
        sets[layer] = (x[order], *sets[layer][1:])
    train, held_out, outliers = ({layer: parts[i] for layer, parts in sets.items()} for i in range(3))
    return train, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)), held_out, outliers


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_scores_are_standardised_on_the_held_out_examples(rng, combine):
    train, labels, held_out, outliers = problem(rng)
    layered = fd.ood.LayeredDetector(fd.ood.Mahalanobis(), combine=combine).fit(train, labels, held_out=held_out)
    standardised = []
    for layer in train:
        detector = fd.ood.Mahalanobis().fit(train[layer], labels)
        own, other = detector.score(held_out[layer]).numpy(), detector.score(outliers[layer]).numpy()
        standardised.append((other - own.mean()) / own.std())
    expected = np.mean(standardised, 0) if combine == "mean" else np.max(standardised, 0)
    np.testing.assert_allclose(layered.score(outliers), expected, rtol=1e-10)
    assert layered.layers_ == ("wide", "narrow") and layered.layer_scores(outliers).shape == (60, 2)


def test_logistic_regression_minimises_the_penalised_loss(rng):
    train, labels, held_out, outliers = problem(rng)
    weak = {layer: x / 4 for layer, x in outliers.items()}
    layered = fd.ood.LayeredDetector(fd.ood.NearestNeighbours(5, normalize=False), combine="logistic")
    layered.fit(train, labels, held_out=held_out, outliers=weak)
    features = torch.cat([layered.layer_scores(held_out), layered.layer_scores(weak)])
    features = ((features - layered.score_means_) / layered.score_deviations_).numpy()
    sign = np.repeat([-1.0, 1.0], [len(held_out["wide"]), len(weak["wide"])])

    def loss(parameters):
        return (
            np.logaddexp(0, -sign * (features @ parameters[:-1] + parameters[-1])).sum()
            + (parameters[:-1] ** 2).sum() / 2
        )

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    found = [*layered.log_odds_.coefficients.tolist(), float(layered.log_odds_.intercept)]
    np.testing.assert_allclose(found, best, atol=1e-4)
    np.testing.assert_allclose(layered.score(weak), features[-60:] @ found[:-1] + found[-1], rtol=1e-10)


def test_without_held_out_examples_a_share_of_each_class_is_held_back(rng):
    train, labels, _, outliers = problem(rng, (50, 3, 20))
    detector = fd.ood.NearestNeighbours(1, normalize=False)
    layered = fd.ood.LayeredDetector(detector, held_out_share=0.3).fit(train, labels)
    kept = layered.detectors_["narrow"].neighbours_
    is_kept = (train["narrow"][:, None] == kept).all(2).any(1)
    assert [int((~is_kept[labels == c]).sum()) for c in range(3)] == [15, 0, 6]
    held_out = {layer: x[~is_kept] for layer, x in train.items()}
    again = fd.ood.LayeredDetector(detector)
    again.fit({layer: x[is_kept] for layer, x in train.items()}, labels[is_kept], held_out=held_out)
    torch.testing.assert_close(layered.score(outliers), again.score(outliers))
    assert torch.equal(
        layered.score(outliers),
        fd.ood.LayeredDetector(detector, held_out_share=0.3).fit(train, labels).score(outliers),
    )
    other = fd.ood.LayeredDetector(detector, held_out_share=0.3, random_state=1).fit(train, labels)
    assert not torch.equal(other.detectors_["narrow"].neighbours_, kept)


def test_what_extract_returns(rng):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))
    x, y = torch.from_numpy(rng.normal(size=(80, 1, 8, 8))).float(), torch.arange(80) % 4
    loader = DataLoader(TensorDataset(x, y), batch_size=32)
    train = fd.activations.extract(network, loader, ["1", "3"], progress=False)
    layered = fd.ood.LayeredDetector(fd.ood.Mahalanobis(), n_components={"1": 2}).fit(train)
    others = fd.activations.extract(network, [x + 20], ["1", "3"], progress=False)
    scores = layered.score(others)
    assert scores.dtype == torch.float32 and layered.projections_.keys() == {"1"}
    svd = fd.reduction.UncentredSVD(2)
    by_hand = {"1": svd.fit(train.features["1"]).transform(train.features["1"]), "3": train.features["3"]}
    assert layered.detectors_["1"].means_.shape == (4, 2) and by_hand["1"].shape == (80, 2)
    assert fd.ood.evaluate(layered.score(train), scores).auroc > 0.95


@pytest.mark.parametrize("combine", ["mean", "logistic"])
def test_saved_and_loaded(rng, tmp_path, combine):
    train, labels, _, outliers = problem(rng)
    detector = fd.ood.MixtureDensity(fd.GaussianMixtures(1, covariance_type="diag"))
    layered = fd.ood.LayeredDetector(detector, combine=combine, n_components={"wide": 4})
    layered.fit(train, labels.numpy().astype(str), outliers=outliers if combine == "logistic" else None)
    scores = layered.score(outliers)
    layered.save(tmp_path / "layered")
    loaded = fd.ood.load(tmp_path / "layered")
    assert torch.equal(loaded.score(outliers), scores) and repr(loaded) == repr(layered)
    tensors, metadata = layered.get_state()
    # Files of earlier versions lack some tensors of a mixture.
    for name in (name for name in tensors if name.rpartition(".")[2] not in ("shrinkage_", "n_points_seen_")):
        with pytest.raises(ValueError, match="the state"):
            fd.ood.LayeredDetector.from_state({k: t for k, t in tensors.items() if k != name}, metadata)
    for name in ("parameters", "layers", "detectors", "projections"):
        with pytest.raises(ValueError, match="the state"):
            fd.ood.LayeredDetector.from_state(tensors, {**metadata, name: None})


def test_rows_with_nan_are_scored_nan_if_asked(rng):
    train, labels, held_out, outliers = problem(rng)
    held_out["wide"][2, 0] = outliers["narrow"][4, 1] = float("nan")
    layered = fd.ood.LayeredDetector(fd.ood.Mahalanobis(on_error="skip")).fit(train, labels, held_out=held_out)
    assert layered.score(outliers).isnan().nonzero().flatten().tolist() == [4]


def test_what_is_wrong_is_said(rng):
    train, labels, held_out, outliers = problem(rng)
    made = fd.ood.LayeredDetector
    plain, logistic = made(fd.ood.Mahalanobis()), made(fd.ood.Mahalanobis(), combine="logistic")
    with pytest.raises(fd.NotFittedError):
        plain.score(train)
    with pytest.raises(ValueError, match="outliers are missing"):
        logistic.fit(train, labels)
    with pytest.raises(ValueError, match="outliers are given"):
        plain.fit(train, labels, outliers=outliers)
    with pytest.raises(ValueError, match="without labels"):
        plain.fit(train)
    with pytest.raises(TypeError, match="features is Tensor"):
        plain.fit(train["wide"], labels)
    with pytest.raises(ValueError, match=r"features has 149 examples in layer 'narrow' and 150 in layer 'wide'"):
        plain.fit({**train, "narrow": train["narrow"][1:]}, labels)
    with pytest.raises(ValueError, match="held_out has no layer 'narrow': it has 'wide'"):
        plain.fit(train, labels, held_out={"wide": held_out["wide"]})
    with pytest.raises(ValueError, match="layer 'narrow' have a standard deviation of 0 over 1 held-out"):
        plain.fit({"narrow": train["narrow"]}, labels, held_out={"narrow": held_out["narrow"][:1]})
    with pytest.raises(ValueError, match="no class has enough examples to hold back 20%"):
        plain.fit({layer: x[:150:40] for layer, x in train.items()}, labels[:150:40])
    with pytest.raises(ValueError, match="n_components is 4, but layer 'narrow' has shape"):
        made(fd.ood.Mahalanobis(), n_components=4).fit(train, labels, held_out=held_out)
    with pytest.raises(ValueError, match="n_components names layer 'deep', but the features are of 'wide', 'narrow'"):
        made(fd.ood.Mahalanobis(), n_components={"deep": 4}).fit(train, labels)
    with pytest.raises(ValueError, match="held_out_share is 2"):
        made(fd.ood.Mahalanobis(), held_out_share=2).fit(train, labels)
    with pytest.raises(ValueError, match="combine is 'sum'"):
        made(fd.ood.Mahalanobis(), combine="sum").fit(train, labels)
    with pytest.raises(TypeError, match="detector is str"):
        made("Mahalanobis")
    train["narrow"][3] = float("inf")
    with pytest.raises(fd.ModelError, match=r"class 0, layer 'narrow'.* NaN or infinity"):
        plain.fit(train, labels, held_out=held_out)
