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
