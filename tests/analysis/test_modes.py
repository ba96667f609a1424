"""Groups of classes: found where they are, not announced where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from fastdens.analysis import find_modes


@pytest.mark.parametrize("draw", ["normal", "standard_t", "uniform", "exponential"])
def test_one_mode_is_one_group(rng, draw):
    arguments = (3,) if draw == "standard_t" else ()
    n_batches = 100
    announced = sum(find_modes(getattr(rng, draw)(*arguments, size=100)).n_groups == 2 for _ in range(n_batches))
    # 5 % of 100 is 5, with a binomial standard deviation of 2.2.
    assert announced <= 5 + 4 * 2.2


def test_two_groups_five_deviations_apart_are_found_and_divided(rng):
    found = 0
    for _ in range(100):
        dense = rng.permutation(np.arange(100) < 50)
        modes = find_modes(rng.normal(size=100) + 5 * dense)
        found += modes.n_groups == 2
    assert found >= 97


def test_the_line_is_the_midpoint_of_the_largest_gap():
    means = np.concatenate([np.linspace(0, 1, 30), np.linspace(11, 12, 20)])[::-1]
    modes = find_modes(means)
    assert modes.n_groups == 2 and modes.line == pytest.approx(6)
    assert modes.group.tolist() == [1] * 20 + [0] * 30
    shifted = find_modes(1e3 * means - 1e6)
    assert shifted.n_groups == 2 and shifted.line == pytest.approx(6e3 - 1e6)
    assert shifted.bic_gain == pytest.approx(modes.bic_gain, rel=1e-6)


def test_few_equal_and_bad_means():
    assert find_modes([1.0, 2.0, 9.0]).n_groups == 1
    assert find_modes(np.ones(20)).n_groups == 1 and np.isnan(find_modes(np.ones(20)).line)
    with pytest.raises(ValueError, match="class 2 is nan"):
        find_modes([1.0, 2.0, np.nan, 4.0])
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        find_modes(np.ones((2, 2)))
