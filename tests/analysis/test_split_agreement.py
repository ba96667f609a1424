"""Agreement of splits: the adjusted Rand index of its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from fastdens.analysis import split_agreement


def adjusted_rand_index(a, b):
    """By pairs of classes: together in both, in one, in the other."""
    pairs = list(combinations(range(len(a)), 2))
    in_a = np.array([a[i] == a[j] for i, j in pairs])
    in_b = np.array([b[i] == b[j] for i, j in pairs])
    expected = in_a.sum() * in_b.sum() / len(pairs)
    return ((in_a & in_b).sum() - expected) / ((in_a.sum() + in_b.sum()) / 2 - expected)


def test_every_pair_has_the_index_of_its_pairs_of_classes(rng):
    groups = rng.integers(2, size=(4, 23))
    agreement = split_agreement(groups)
    assert agreement.shape == (4, 4) and agreement.dtype == np.float64
    for i, j in combinations(range(4), 2):
        assert agreement[i, j] == pytest.approx(adjusted_rand_index(groups[i], groups[j]))
    assert np.array_equal(agreement, agreement.T) and np.all(np.diag(agreement) == 1)


def test_names_of_the_groups_do_not_matter_and_one_group_has_nothing_to_compare(rng):
    split = (rng.permutation(40) < 15).astype(int)
    one = np.zeros(40, int)
    agreement = split_agreement({"a": split, "b": torch.from_numpy(1 - split), "c": one, "d": one + 1})
    expected = np.kron(np.array([[1, 0], [0, np.nan]]), np.ones((2, 2)))
    np.testing.assert_allclose(agreement, expected, atol=1e-12)
    assert np.isnan(split_agreement([[7]])).all()


def test_random_splits_agree_as_by_chance(rng):
    off_diagonal = split_agreement(rng.integers(2, size=(40, 60)))[np.triu_indices(40, 1)]
    assert abs(off_diagonal.mean()) < 0.02


def test_splits_of_different_classes_are_named():
    with pytest.raises(ValueError, match=r"groups of 'second'.*shape \(2,\)"):
        split_agreement({"first": [0, 1, 1], "second": [0, 1]})
    with pytest.raises(ValueError, match="groups of 0 are float64"):
        split_agreement([np.array([0.5, 1.0])])
    assert split_agreement([]).shape == (0, 0)
