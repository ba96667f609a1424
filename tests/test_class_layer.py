"""Models of several layers."""

from __future__ import annotations

import numpy as np
import pytest

import fastdens as fd


def test_class_layer_models(rng):
    x, y = rng.normal(size=(60, 5)), np.arange(60) % 4
    batches = {n: fd.RaggedBatch.from_labels(x[:, :d], y, layer=n) for n, d in (("layer1", 2), ("layer2", 5))}
    models = fd.ClassLayerModels.fit(fd.GaussianMixtures(1), batches)
    assert list(models) == ["layer1", "layer2"] and models["layer2"].means_.shape == (4, 1, 5)
    assert models.map(lambda gm, batch: gm.score_samples(batch))["layer1"].shape == (len(x),)
    with pytest.raises(KeyError, match="layer1"):
        models["layer3"]
