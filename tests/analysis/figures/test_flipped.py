from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_flipped
from tests.analysis.figures.drawing import assert_legible, new_axes


def test_flipped_and_kept_examples_are_shares_that_add_to_one(axes, rng):
    values, flipped = np.r_[rng.normal(0, 1, 400), -1e6, np.nan, -np.inf], np.zeros(403, bool)
    flipped[:50] = True
    plot_flipped(axes, torch.from_numpy(values), flipped)
    kept = [patch.get_height() for patch in axes.containers[0]]
    assert len(kept) == 30 and sum(kept) == pytest.approx(1)
    # The value far out is counted in the leftmost bin and does not stretch the axis.
    assert kept[0] > 0 and axes.get_xlim()[0] > -10
    edges = [*(bar.get_x() for bar in axes.containers[0]), np.nanmax(values)]
    counts, _ = np.histogram(values[:50], np.array(edges) + 1e-12)
    assert axes.patches[-1].get_xy()[:, 1].max() == pytest.approx(counts.max() / 50)
    assert axes.patches[-1].get_hatch()
    assert axes.get_title(loc="right") == "2 of 403 examples not finite, left out"
    assert_legible(axes)
    plot_flipped(new_axes(), [1.0, 1.0], [False, False])
    with pytest.raises(ValueError, match=r"^flipped has shape \(3,\), but it must be \[N\] with N = 2\.$"):
        plot_flipped(axes, [1.0, 2.0], [True, False, True])
    with pytest.raises(ValueError, match=r"^none of the 2 values of log_density is finite"):
        plot_flipped(axes, [np.nan, np.inf], [True, False])
