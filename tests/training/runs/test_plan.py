"""Plans: subsets that are random and each its own, bins that are left out."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fastdens.training.runs import left_out_runs, subset_runs


def test_subsets_have_the_share_and_are_drawn_one_by_one(seed):
    runs = subset_runs(60, 301, 0.7, seed)
    assert [run.name for run in runs[:2]] == ["memorization-0000", "memorization-0001"]
    included = torch.stack([run.included for run in runs])
    assert included.dtype == torch.bool and (included.sum(1) == 211).all()
    # An example is in each with probability 211/301, so in 42 of 60 with standard deviation 3.5: six of them.
    assert ((included.sum(0) - 60 * 211 / 301).abs() < 6 * 3.55).all()
    # Two subsets share 211^2 / 301 examples, standard deviation 3.7.
    overlap = (included[1:] & included[:-1]).sum(1)
    assert ((overlap - 211**2 / 301).abs() < 6 * 3.7).all()
    assert len({run.seed for run in runs}) == 60
    for more, one in zip(subset_runs(70, 301, 0.7, seed), runs, strict=False):
        assert more.name == one.name and more.seed == one.seed and torch.equal(more.included, one.included)
    assert not torch.equal(subset_runs(1, 301, 0.7, seed + 1)[0].included, runs[0].included)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "n_networks is 0"),
        ((1, 10, 1.0), "a share of 1.0 of 10 examples leaves none in or none out"),
        ((1, 10, 0.0), "a share of 0.0 of 10"),
        ((1, 10, float("nan")), "a share of nan"),
        ((1, 10, 0.01), "a share of 0.01 of 10"),
        ((1, 10, 0.7, -1), "seed is -1"),
    ],
)
def test_impossible_subsets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        subset_runs(*arguments)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_each_bin_is_left_out_once(rng, kind):
    bins = rng.permutation(np.arange(90) % 4)
    runs = left_out_runs(kind(bins), 4, seed=9)
    assert [run.name for run in runs] == [f"without-bin-{b}" for b in range(4)]
    for b, run in enumerate(runs):
        np.testing.assert_array_equal(run.included.numpy(), bins != b)
        assert run.seed == 9 and run.included.dtype == torch.bool


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([0, 1, 3], "an example is in bin 3, but the 3 bins"),
        ([0, -1, 2], "an example is in bin -1"),
        ([0, 2, 2], "bin 1 has 0 of the 3 examples"),
        ([0.0, 1.0, 2.0], "bins are torch.float32"),
        ([[0, 1, 2]], "bins are torch.int64 of shape [1, 3]"),
    ],
)
def test_impossible_bins_are_refused(bins, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        left_out_runs(bins, 3)
    with pytest.raises(ValueError, match="bin 0 has 3 of the 3 examples"):
        left_out_runs([0, 0, 0], 1)
