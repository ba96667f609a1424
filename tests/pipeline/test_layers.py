from __future__ import annotations

import numpy as np
import pytest

from fastdens.pipeline import AnalysisData, AnalysisOptions
from fastdens.pipeline.layers import analyze_layer, fit_layer, project_layer, projected_dimensions

QUICK = AnalysisOptions(density="gmm", components=1, entropy_draws=50, divergence_draws=20, device="cpu")


def data_of(rng, n_each, widths):
    labels = np.repeat(np.arange(3), n_each)
    return AnalysisData.from_activations(
        {f"stage {k}": (rng.normal(size=(len(labels), d)) + 2).astype(np.float32) for k, d in enumerate(widths)},
        labels=labels,
    )


@pytest.mark.parametrize(
    ("n_each", "asked", "expected"),
    [(512, None, [16, 16, 64, 64]), (160, None, [16, 16, 20, 20]), (20, None, [2, 2, 2, 2]), (20, (7,), [7, 7, 7, 7])],
)
def test_dimensions_are_the_papers_as_far_as_the_classes_allow(rng, n_each, asked, expected):
    data = data_of(rng, n_each, (64, 128, 256, 512))
    assert list(projected_dimensions(data, AnalysisOptions(dimensions=asked)).values()) == expected


@pytest.mark.parametrize(("n_each", "widths", "expected"), [(20, (64, 128), [16, 60]), (50, (9, 128), [9, 64])])
def test_dimensions_need_not_go_by_the_classes(rng, n_each, widths, expected):
    """Three classes: there are no more dimensions than examples or features."""
    data = data_of(rng, n_each, widths)
    assert list(projected_dimensions(data, AnalysisOptions(limit_dimensions=False)).values()) == expected


def test_the_projection_keeps_the_share_that_singular_values_say(rng):
    data = data_of(rng, 40, (6,))
    (features,) = data.train.values()
    layer = analyze_layer(
        data, fit_layer(data, project_layer(data, features, "stage 0", 2), QUICK, progress=False), QUICK
    )
    squares = np.linalg.svd(features.double().numpy(), compute_uv=False) ** 2
    assert layer.explained == pytest.approx(squares[:2].sum() / squares.sum(), rel=1e-5)
    assert (layer.n_features, layer.n_dimensions, layer.held_out, layer.chains) == (6, 2, None, None)
