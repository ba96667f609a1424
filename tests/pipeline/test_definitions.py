"""Definitions: each option alone changes what it is about, and the published ones follow from the draws."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from fastdens.pipeline import AnalysisData, AnalysisOptions
from fastdens.pipeline.definitions import f1_of_draws, log_prob_of_classes, training_log_density
from fastdens.pipeline.layers import analyze_layer, fit_layer, project_layer
from tests.mixtures.problems import scipy_log_density
from tests.pipeline.test_saving import assert_same

QUICK = {"sweeps": 20, "thin": 1, "chains": 2, "entropy_draws": 64, "divergence_draws": 64, "device": "cpu"}
OF_DENSITY = {"log_density", "classes", "modes", "intervals", "flipped_auc"}


@pytest.fixture(scope="module")
def problem():
    """Three classes of two clusters each, and test examples."""
    rng = np.random.default_rng()
    labels = rng.permutation(np.repeat(np.arange(3), 24))

    def draw(of):
        return (rng.normal(size=(len(of), 2)) + 2 * of[:, None] + 3 * rng.integers(0, 2, (len(of), 1))).astype("f4")

    test_labels = rng.integers(0, 3, 30)
    return AnalysisData.from_activations(
        {"layer": draw(labels)},
        {"layer": draw(test_labels)},
        labels=labels,
        test_labels=test_labels,
        flipped=rng.random(72) < 0.2,
    )


def fitted(data, **options):
    options = AnalysisOptions(**QUICK, **options)
    return fit_layer(data, project_layer(data, data.train["layer"], "layer", 2), options, progress=False), options


@pytest.fixture(scope="module")
def exact(problem):
    layer, options = fitted(problem)
    return analyze_layer(problem, layer, options)


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("training_density", "in_sample", OF_DENSITY),
        ("average", "log_density", OF_DENSITY | {"in_sample", "left_out", "held_out"}),
        (
            "weighting",
            "published",
            OF_DENSITY | {"in_sample", "left_out", "held_out", "relative_entropy", "divergence"},
        ),
        ("relative_entropy", "draws", {"relative_entropy"}),
        ("pair_divergence", "draws", {"divergence"}),
    ],
)
def test_an_option_alone_changes_what_it_is_about(problem, exact, option, value, changed):
    layer, options = fitted(problem, **{option: value})
    found = analyze_layer(problem, layer, options)
    for own in fields(found):
        if own.name not in changed:
            assert_same(getattr(found, own.name), getattr(exact, own.name))
    # The groups and the ranks of few examples may be the same.
    for name in changed - {"modes", "flipped_auc", "held_out"}:
        with pytest.raises(AssertionError):
            assert_same(getattr(found, name), getattr(exact, name))


def test_the_chosen_density_of_training_examples_is_one_of_the_two(problem, exact):
    np.testing.assert_array_equal(exact.log_density, exact.left_out)
    layer, options = fitted(problem, training_density="in_sample")
    np.testing.assert_array_equal(analyze_layer(problem, layer, options).log_density, exact.in_sample)
    gmm = AnalysisOptions(density="gmm", components=1, entropy_draws=50, divergence_draws=20, device="cpu")
    layer = fit_layer(problem, project_layer(problem, problem.train["layer"], "layer", 2), gmm, progress=False)
    found = analyze_layer(problem, layer, gmm)
    assert found.in_sample is None and found.left_out is None
    np.testing.assert_array_equal(found.log_density, layer.fit.models.score_samples(layer.batch).double().numpy())


def test_published_numbers_follow_from_the_draws(problem, seed):
    published = {"training_density": "in_sample", "average": "log_density", "weighting": "published"}
    layer, options = fitted(problem, **published)
    dp, labels = layer.fit.models, problem.examples.labels
    points, test = layer.points.double().numpy(), layer.projection.transform(problem.test["layer"])
    # Log-densities of the examples and the test examples in each draw, under each class.
    both = np.concatenate([points, test.double().numpy()])
    in_draws = np.empty((8, len(both), 3))
    for c in range(3):
        rows = np.flatnonzero(labels == c)
        of_draws = dp.sampled_labels_[..., torch.from_numpy(rows)].transpose(0, 1).flatten(0, 1).numpy()
        for at, (own, alpha) in enumerate(zip(of_draws, dp.alpha_[c].flatten().tolist(), strict=True)):
            in_draws[at, :, c] = scipy_log_density(both, points[rows], [own], [alpha], 0.01, 4, 6, "published")
    mean_log = in_draws.mean(0)
    found = training_log_density(dp, layer.batch, options)
    np.testing.assert_allclose(found.in_sample, mean_log[np.arange(72), labels], rtol=1e-4)
    np.testing.assert_array_equal(found.chosen(options), found.in_sample)
    np.testing.assert_allclose(log_prob_of_classes(dp, test, options), mean_log[72:], rtol=1e-4)
    f1 = [f1_score(problem.examples.test_labels, own[72:].argmax(1), average="weighted") for own in in_draws]
    np.testing.assert_allclose(f1_of_draws(dp, test, problem.examples.test_labels, options), f1, rtol=1e-9)


def test_draws_of_a_quantity_are_shared_among_those_of_the_chains(problem, monkeypatch):
    from fastdens.pipeline import definitions

    asked = []
    for name in ("kl_matrix", "relative_entropy"):
        real = getattr(definitions, name)
        monkeypatch.setattr(definitions, name, lambda *a, real=real: (asked.append(a[-2]), real(*a))[1])
    layer, options = fitted(problem, relative_entropy="draws", pair_divergence="draws")
    analyze_layer(problem, layer, options)
    assert asked == [64 // 8] * 16
    asked.clear()
    analyze_layer(problem, layer, replace(options, entropy_draws=3, divergence_draws=2))
    assert asked == [2] * 16
