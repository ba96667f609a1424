"""What must hold of every fit: rows and models in any order, other units, another precision, a file in between."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastdens as fd
from tests.contract import outcome

SIZES = st.lists(st.integers(6, 25), min_size=1, max_size=4)
KINDS = st.sampled_from(["full", "diag", "spherical", "tied"])


def parts(seed, sizes, d=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, d)) + rng.normal(size=d) for n in sizes]


def fit(estimator, batch):
    """The fit, without a word about convergence."""
    return outcome(lambda: estimator.fit(batch))[0]


def gaussian(kind, **options):
    return fd.GaussianMixtures(**{"n_components": 2, "covariance_type": kind, "max_iter": 4, "tol": 0, **options})


def estimators(kind):
    return {
        "gm": lambda: gaussian(kind),
        "dp": lambda: fd.DirichletProcessMixtures(n_sweeps=6, burn_in=2, thin=2, progress=False),
        "vb": lambda: fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3, tol=0),
    }


@given(st.integers(0, 999), SIZES, KINDS, st.sampled_from(["gm", "dp", "vb"]))
def test_a_model_does_not_depend_on_the_others(seed, sizes, kind, which):
    arrays, make = parts(seed, sizes), estimators(kind)[which]
    # The random streams of a sampler are those of a model's number among all: the first stays the first.
    together = fit(make(), fd.RaggedBatch.from_list(arrays))
    alone = fit(make(), fd.RaggedBatch.from_list(arrays[:1]))
    assert torch.equal(together.log_prob(arrays[0])[:, 0], alone.log_prob(arrays[0])[:, 0])


@given(st.integers(0, 999), SIZES, st.sampled_from(["gm", "dp", "vb"]))
def test_rows_in_another_order_score_the_same(seed, sizes, which):
    x, y = np.concatenate(parts(seed, sizes)), np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(seed).permutation(len(x))
    made = fit(estimators("full")[which](), fd.RaggedBatch.from_labels(x, y))
    scores = made.score_samples(fd.RaggedBatch.from_labels(x, y))
    assert torch.equal(made.score_samples(fd.RaggedBatch.from_labels(x[order], y[order])), scores[order])
    everything = made.log_prob(x)
    assert torch.equal(made.log_prob(x[order]), everything[order])
    torch.testing.assert_close(everything[torch.arange(len(x)), torch.from_numpy(y)], scores)


@given(st.integers(0, 999), KINDS, st.sampled_from([-1e6, 0.0, 1e3]), st.sampled_from([2.0**-20, 1.0, 2.0**20]))
def test_other_units_change_a_density_by_their_volume(seed, kind, shift, scale):
    (x,) = parts(seed, [25])
    means = x[None, :2]
    plain = fit(gaussian(kind, means_init=means, reg_covar=0), fd.RaggedBatch.from_list([x]))
    moved_means = means * scale + shift
    moved = fit(gaussian(kind, means_init=moved_means, reg_covar=0), fd.RaggedBatch.from_list([x * scale + shift]))
    if plain is None or moved is None:
        return
    # Numbers moved by 1e6 keep ten digits.
    expected = plain.log_prob(x) - 2 * np.log(scale)
    tolerance = 1e-8 + 1e-9 * abs(shift) / scale
    torch.testing.assert_close(moved.log_prob(x * scale + shift), expected, rtol=tolerance, atol=100 * tolerance)


@given(st.integers(0, 999), KINDS)
def test_float32_is_near_float64(seed, kind):
    arrays = parts(seed, [20, 25])
    batch = fd.RaggedBatch.from_list(arrays)
    wide = fit(gaussian(kind, max_iter=2, means_init=np.stack([a[:2] for a in arrays])), batch)
    narrow = gaussian(kind, max_iter=2, means_init=np.stack([a[:2] for a in arrays]), dtype=torch.float32)
    found = fit(narrow, batch)
    if wide is not None and found is not None:
        torch.testing.assert_close(found.log_prob(arrays[0]).double(), wide.log_prob(arrays[0]), rtol=2e-3, atol=2e-3)


@given(st.integers(0, 999), SIZES, KINDS, st.sampled_from(["gm", "dp", "vb"]), st.booleans())
def test_a_state_comes_back_bit_for_bit(seed, sizes, kind, which, skip):
    arrays = parts(seed, sizes)
    if skip:
        arrays = [*arrays, np.full((3, 2), np.nan)]
    estimator = estimators(kind)[which]()
    estimator.on_error = "skip"
    made = fit(estimator, fd.RaggedBatch.from_list(arrays))
    again = type(made).from_state(*made.get_state())
    assert again.failures_ == made.failures_ and again.classes_ == made.classes_
    x = arrays[0]
    assert torch.equal(again.log_prob(x).nan_to_num(7.0), made.log_prob(x).nan_to_num(7.0))
    tensors, metadata = again.get_state()
    first, facts = made.get_state()
    assert metadata == facts and tensors.keys() == first.keys()
    assert all(torch.equal(tensors[name].nan_to_num(7), first[name].nan_to_num(7)) for name in first)


@given(st.integers(0, 999), SIZES)
def test_labels_and_a_list_give_the_same_fit(seed, sizes):
    arrays = parts(seed, sizes)
    y = np.repeat(np.arange(len(sizes)), sizes)
    one = fit(gaussian("full"), fd.RaggedBatch.from_list(arrays))
    other = fit(gaussian("full"), fd.RaggedBatch.from_labels(np.concatenate(arrays), y))
    assert torch.equal(one.means_, other.means_) and torch.equal(one.lower_bound_, other.lower_bound_)
