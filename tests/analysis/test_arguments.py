"""Arguments of the analysis: arrays and labels of every kind, half precision included."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fastdens import RaggedBatch, analysis
from fastdens.analysis import figures
from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.convergence import split_rhat

N, M, D = 60, 3, 4


def parts(result):
    """Everything in a result that can be compared."""
    if is_dataclass(result):
        return [part for field in fields(result) for part in parts(getattr(result, field.name))]
    if isinstance(result, dict):
        return [part for value in result.values() for part in parts(value)]
    if isinstance(result, tuple | list):
        return [part for value in result for part in parts(value)]
    return [result]


def assert_same(found, expected):
    for left, right in zip(parts(found), parts(expected), strict=True):
        if left is None or isinstance(left, str):
            assert left == right
        else:
            np.testing.assert_array_equal(as_numpy(left), as_numpy(right))


LINEAR = nn.Linear(D, M)
CALLS = {
    "certify": lambda v, y: analysis.certify(LINEAR, v.points, 0.5, n0=5, n=50, progress=False),
    "class_log_density": lambda v, y: analysis.class_log_density(v.log_prob, y),
    "compare_predictors": lambda v, y: analysis.compare_predictors(
        v.scores, {"a": v.values, "b": v.other}, y, n_resamples=20
    ),
    "correlate": lambda v, y: analysis.correlate(v.scores, {"l": v.log_prob}, y, n_resamples=20),
    "density_bins": lambda v, y: analysis.density_bins(v.values, 4, y),
    "find_modes": lambda v, y: analysis.find_modes(v.values),
    "generative_classification": lambda v, y: analysis.generative_classification(v.log_prob, y),
    "holm": lambda v, y: analysis.holm(v.shares),
    "mean_pairwise_distance": lambda v, y: analysis.mean_pairwise_distance(RaggedBatch.from_labels(v.points, y)),
    "memorization_subsets": lambda v, y: analysis.memorization_subsets(v.shares, y, 10),
    "mode_intervals": lambda v, y: analysis.mode_intervals(v.values, np.arange(N) // 5, n_resamples=20),
    "neighbour_distance": lambda v, y: analysis.neighbour_distance(v.points, y, 3),
    "pgd_accuracy": lambda v, y: analysis.pgd_accuracy(LINEAR, v.points, y, 0.1, bounds=(v.points.min(), 9.0)),
    "roc_auc": lambda v, y: analysis.roc_auc(v.values, y == 0),
    "roc_auc of a list": lambda v, y: analysis.roc_auc(list(v.values), y == 0),
}


class Values:
    """Inputs of the functions in one type."""

    def __init__(self, seed, dtype, kind):
        rng = np.random.default_rng(seed)

        def of(array):
            # Rounded to the narrow type first, so that only the type differs.
            tensor = torch.from_numpy(array).to(dtype)
            return tensor.numpy() if kind == "numpy" else tensor.float() if kind == "float32" else tensor

        self.points, self.log_prob = of(rng.normal(size=(N, D))), of(rng.normal(size=(N, M)) - 300)
        self.scores, self.values, self.other = (of(rng.normal(size=N)) for _ in range(3))
        self.shares = of(rng.uniform(0, 1, N))


@pytest.fixture
def labels(rng):
    return rng.permutation(np.arange(N) % M)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (torch.bfloat16, "tensor"),
        (torch.float16, "tensor"),
        (torch.float16, "numpy"),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_half_precision_is_computed_in_float32_or_more(seed, labels, name, dtype, kind):
    found = CALLS[name](Values(seed, dtype, kind), labels)
    expected = CALLS[name](Values(seed, dtype, "float32"), labels)
    assert_same(found, expected)
    assert not any(getattr(part, "dtype", None) in (np.float16, torch.float16, torch.bfloat16) for part in parts(found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_figures_take_half_precision(rng, dtype):
    from matplotlib.figure import Figure

    values = torch.from_numpy(rng.uniform(0.1, 0.9, (4, 5))).to(dtype)
    names = [str(k) for k in range(5)]
    for draw in (
        lambda axes: figures.plot_by_bin(axes, values[0], "score", errors=values[1]),
        lambda axes: figures.plot_certified_accuracy(axes, torch.arange(5).to(dtype) / 4, {"low": values[1]}),
        lambda axes: figures.plot_flipped(axes, values[0], torch.arange(5) < 2),
        lambda axes: figures.plot_kl_matrix(axes, values[:, :4], names[:4]),
        lambda axes: figures.plot_scores(axes, names, values[0], 0.5),
        lambda axes: figures.plot_split_agreement(axes, values[:, :4], names[:4]),
        lambda axes: figures.plot_subset_scores(axes, names, {"low": values[0]}, {"low": values[1]}),
        lambda axes: figures.plot_trace(axes, values, "log-joint"),
        lambda axes: figures.plot_divergence_by_layer(axes, names[:4], {"kl": values}),
        lambda axes: figures.plot_distance_and_divergence(axes, *values[:3], log_density_error=values[3]),
    ):
        draw(Figure().subplots())


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int16, torch.bool]
)
def test_tensors_become_arrays_that_numpy_computes_with(rng, dtype):
    x = torch.from_numpy(rng.normal(size=(3, 2))).to(dtype).requires_grad_(dtype.is_floating_point)
    array = as_numpy(x)
    assert array.dtype == (np.float32 if dtype in (torch.bfloat16, torch.float16) else x.detach().numpy().dtype)
    assert np.array_equal(array, x.detach().double().numpy())
    assert np.array_equal(as_numpy(list(x)), array)


def test_half_precision_is_computed_in_float32(rng):
    x, y = rng.integers(-9, 9, 30) / 4, np.arange(30) % 3
    expected = analysis.class_log_density(x, y).mean
    for given in (torch.from_numpy(x).bfloat16(), torch.from_numpy(x).half(), x.astype(np.float16), x.astype(">f4")):
        assert as_numpy(given).dtype == np.float32 and as_numpy(given).dtype.isnative
        np.testing.assert_allclose(analysis.class_log_density(given, y).mean, expected, rtol=1e-6)


def test_labels_are_classes_or_names_in_their_order():
    y = np.array([2, 0, 1, 2])
    for given in (y, y.astype(">i2"), y * 1.0, torch.from_numpy(y), y * 10**12, y - 5, np.array(["a", "b", "c"])[y]):
        np.testing.assert_array_equal(as_labels(given, 4), y)
    np.testing.assert_array_equal(as_labels(2 * y, 4), 2 * y)
    np.testing.assert_array_equal(as_labels(["u", "v", "u", "w"], 4, 3), [0, 1, 0, 2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 3], "labels run from 0 to 3, but classes count from 0 and are under the number of classes, 3"),
        ([0, -1, 2, 1], "labels run from -1 to 2"),
        (["u", "v", "u", "v"], "labels are 2 different names, but there are 3 classes"),
        ([0, 1, np.nan, 2], r"labels has a missing label \(NaN\) in row 2"),
        ([0, 1], r"labels has shape \(2,\), but there are 4 examples"),
    ],
)
def test_labels_that_are_no_classes_are_one_sentence(labels, message):
    with pytest.raises(ValueError, match=message):
        as_labels(labels, 4, 3)


def test_draws_come_in_any_byte_order(rng):
    draws = rng.normal(size=(3, 2, 40))
    for given in (draws.astype(">f8"), draws.tolist(), draws[::-1].copy()[::-1]):
        assert torch.equal(split_rhat(given), split_rhat(draws))
