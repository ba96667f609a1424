from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.pipeline import AnalysisData, AnalysisOptions, memorization
from fastdens.pipeline.memorization import compare_subsets

N_CLASSES, N_EACH = 4, 48


def test_subsets_are_held_out_of_the_classes_and_fitted_alone(rng, monkeypatch):
    labels = np.tile(np.arange(N_CLASSES), N_EACH)
    points = torch.from_numpy(rng.normal(size=(len(labels), 3)))
    scores = rng.random(len(labels))
    data = AnalysisData.from_activations({"layer": points}, labels=labels)
    fitted = []

    def spy(own, *arguments, **options):
        fitted.append({tuple(row) for row in own.tolist()})
        return fit_classes(own, *arguments, **options)

    fit_classes = memorization.fit_classes
    monkeypatch.setattr(memorization, "fit_classes", spy)
    options = AnalysisOptions(density="gmm", components=1, divergence_draws=20, device="cpu")
    found = compare_subsets(data, {"layer": points}, scores, options, progress=False)

    # Three times an eighth of a class is held out, and a quarter is fitted.
    assert (found.held_out, found.fitted) == (N_EACH // 8, N_EACH // 4)
    kept, most, least, random = fitted
    # Random examples may be among the others.
    left_out = len(labels) - len(kept)
    assert 2 * N_CLASSES * found.held_out <= left_out <= 3 * N_CLASSES * found.held_out
    for c in range(N_CLASSES):
        rows = np.flatnonzero(labels == c)
        rows = rows[np.argsort(scores[rows])]
        assert not kept & {tuple(points[i].tolist()) for i in [*rows[: N_EACH // 8], *rows[-N_EACH // 8 :]]}
        assert most >= {tuple(points[i].tolist()) for i in rows[-N_EACH // 4 :]}
        assert least >= {tuple(points[i].tolist()) for i in rows[: N_EACH // 4]}
    assert len(most) == len(least) == len(random) == N_CLASSES * N_EACH // 4
    assert found.divergence["most"][0].value.shape == (N_CLASSES, N_CLASSES)
    assert set(found.classification) == {"most", "least", "random"}
    assert found.classification["most"][0].accuracy == pytest.approx(1 / N_CLASSES, abs=0.4)


@pytest.fixture
def problem(rng):
    """Scored examples of which class 3 has none of a high score; a layer; and quick options."""
    labels = rng.permutation(np.repeat(np.arange(N_CLASSES), 40))
    scores = np.where(labels == 3, 0.1, rng.uniform(size=len(labels)))
    scores[rng.random(len(labels)) < 0.1] = np.nan
    points = torch.from_numpy(rng.normal(size=(len(labels), 2)) + 2 * labels[:, None])
    data = AnalysisData.from_activations({"layer": points}, labels=labels)
    options = {"density": "gmm", "components": 1, "divergence_draws": 20, "device": "cpu"}
    return data, {"layer": points}, scores, options


def test_subsets_of_all_classes_are_held_out_together(problem, monkeypatch):
    data, points, scores, options = problem
    fitted = []
    fit_classes = memorization.fit_classes

    def spy(own, *arguments, **named):
        fitted.append(own)
        return fit_classes(own, *arguments, **named)

    monkeypatch.setattr(memorization, "fit_classes", spy)
    options = AnalysisOptions(**options, label_subsets="global", label_examples=20)
    found = compare_subsets(data, points, scores, options, progress=False)
    rising = np.sort(scores[np.isfinite(scores)])
    assert found.label_scores == {"most": rising[-20], "least": rising[19]} and found.held_out == 20
    # Three disjoint subsets are left out of the fit.
    assert len(fitted[0]) == len(scores) - 60 and not found.f1_of_draws
    assert all(len(own.predicted) == 20 for (own,) in found.classification.values())


def test_sampled_densities_have_an_f1_of_each_draw(problem):
    data, points, scores, _ = problem
    options = AnalysisOptions(
        sweeps=20, thin=1, label_subsets="global", label_examples=20, divergence_draws=20, device="cpu"
    )
    found = compare_subsets(data, points, scores, options, progress=False)
    for name in ("most", "least", "random"):
        ((f1,), (own,)) = found.f1_of_draws[name], found.classification[name]
        assert f1.shape == (4,) and ((f1 >= 0) & (f1 <= 1)).all() and abs(f1.mean() - own.f1) < 0.3


@pytest.mark.parametrize("size", [50, 30])
def test_classes_that_would_become_too_small_are_not_classified(problem, size):
    data, points, scores, options = problem
    if size == 30:
        # The examples of one class are those of the highest scores.
        scores = np.where(data.examples.labels == 0, 2.0, scores)
    options = AnalysisOptions(**options, label_subsets="global", label_examples=size)
    found = compare_subsets(data, points, scores, options, progress=False)
    assert found.held_out == size and not found.classification and not found.label_scores
    assert found.divergence.keys() == {"most", "least", "random"}


def test_classes_are_compared_that_have_enough_examples_of_a_score(problem):
    data, points, scores, options = problem
    options = AnalysisOptions(**options, kl_subsets="threshold", kl_high=0.5, kl_low=0.09, kl_examples=8)
    found = compare_subsets(data, points, scores, options, progress=False)
    for name, chosen in (("most", scores >= 0.5), ("least", scores <= 0.09), ("random", np.isfinite(scores))):
        n = int((np.bincount(data.examples.labels[chosen], minlength=N_CLASSES) >= 8).sum())
        assert found.n_classes[name] == n
        if n >= 2:
            assert found.divergence[name][0].value.shape == (n, n)
        else:
            assert name not in found.divergence
    assert found.n_classes["most"] == 3 and found.fitted == 8 and found.classification.keys() == found.n_classes.keys()
