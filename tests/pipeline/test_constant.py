from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze
from fastdens.pipeline.constant import project, without_constant_classes

QUICK = AnalysisOptions(density="gmm", components=1, entropy_draws=50, divergence_draws=20, device="cpu")
N_EACH, N_CLASSES, WIDTH = 20, 5, 6


@pytest.fixture
def labels():
    return np.repeat(np.arange(N_CLASSES), N_EACH)


def normal(rng, n=N_CLASSES * N_EACH):
    return (rng.normal(size=(n, WIDTH)) + 2).astype(np.float32)


def data_of(rng, labels, *layers):
    return AnalysisData.from_activations(
        {f"stage {k}": x for k, x in enumerate(layers)},
        {f"stage {k}": normal(rng, 2 * N_CLASSES) for k in range(len(layers))},
        rng.normal(size=len(labels)),
        labels=labels,
        test_labels=np.arange(2 * N_CLASSES) % N_CLASSES,
        class_names=[f"name {c}" for c in range(N_CLASSES)],
        flipped=rng.random(len(labels)) < 0.1,
    )


def test_classes_that_hardly_vary_are_left_out_and_the_others_renumbered(rng, labels):
    first, second = normal(rng), normal(rng)
    second[labels == 1] = second[labels == 1][0]
    second[np.ix_(labels == 3, range(4))] = 0
    data = replace(data_of(rng, labels, first, second), images=torch.arange(len(labels)))
    found = without_constant_classes(data, {"stage 0": 5, "stage 1": 6})
    assert found.examples.left_out_classes == ("name 1", "name 3")
    assert found.examples.class_names == ("name 0", "name 2", "name 4")
    kept = ~np.isin(labels, (1, 3))
    assert found.examples.labels.tolist() == np.repeat(np.arange(3), N_EACH).tolist()
    assert np.array_equal(found.train["stage 0"].numpy(), first[kept])
    assert found.images.tolist() == np.flatnonzero(kept).tolist()
    assert np.array_equal(found.scores.values, data.scores.values[kept])
    assert np.array_equal(found.examples.flipped, data.examples.flipped[kept])
    assert found.examples.test_labels.tolist() == [0, 1, 2] * 2
    assert np.array_equal(found.test["stage 1"].numpy(), data.test["stage 1"].numpy()[[0, 2, 4, 5, 7, 9]])
    # Three of six features are enough for five or six dimensions, two are not.
    second[np.ix_(labels == 3, range(3))] = rng.normal(size=(N_EACH, 3))
    assert without_constant_classes(data_of(rng, labels, second), {"stage 0": 6}).examples.left_out_classes == (
        "name 1",
    )


def test_nothing_is_left_out_where_every_class_varies(rng, labels):
    data = data_of(rng, labels, normal(rng))
    assert without_constant_classes(data, {"stage 0": 6}) is data


def test_without_two_classes_or_with_images_it_is_an_error(rng, labels):
    x = normal(rng)
    x[labels > 0] = 1
    with pytest.raises(ValueError, match=r"class 'name 1' at stage 0 are all alike.*no two classes are left"):
        without_constant_classes(data_of(rng, labels, x), {"stage 0": 6})
    with pytest.raises(ValueError, match=r"class 'name 1' at stage 0 .* train for more epochs"):
        without_constant_classes(replace(data_of(rng, labels, x), experiment=object()), {"stage 0": 6})


def test_a_dimension_that_one_class_does_not_vary_in_is_left_out_for_all(rng, labels):
    """The last feature is at right angles to the others, and constant in all classes but one."""
    x = np.zeros((len(labels), WIDTH))
    x[:, :4] = rng.normal(size=(len(labels), 4)) * [9, 8, 7, 6]
    half = np.flatnonzero(labels == 2)[: N_EACH // 2]
    x[half] = 0
    x[half, 5] = rng.normal(size=len(half))
    data = data_of(rng, labels, x)
    (features,) = data.train.values()
    projection, points = project(features, labels, data.examples.class_names, "stage 0", 6)
    assert points.shape == (len(labels), 4) and projection.n_left_out == 2 and projection.constant.all()
    assert np.allclose(projection.transform(features), points) and projection.explained < 1
    layer = analyze(data, replace(QUICK, dimensions=(6,)), progress=False).layers[0]
    assert (layer.n_dimensions, layer.n_left_out) == (4, 2) and np.isfinite(layer.log_density).all()
    assert layer.constant_classes == data.examples.class_names


def test_a_layer_without_a_common_dimension_is_an_error(rng, labels):
    x = np.zeros((len(labels), WIDTH))
    for c in range(N_CLASSES):
        x[labels == c, c] = rng.normal(size=N_EACH) + 10 * c
    with pytest.raises(ValueError, match=r"activations of stage 0 varies within every class, least within class 'a'"):
        project(data_of(rng, labels, x).train["stage 0"], labels, tuple("abcde"), "stage 0", 5)
