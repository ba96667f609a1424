from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels.centre import central_points

from tests.problems import layout_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_models_have_the_median_of_all_their_points(rng, dtype):
    sizes = [1, 2, 31, 5]
    points = torch.from_numpy(rng.normal(size=(sum(sizes), 3))).to(dtype)
    layout = layout_of(torch.tensor([0, *sizes]).cumsum(0))
    found = central_points(points, layout)
    assert found.dtype == dtype and found.shape == (4, 3)
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        own = points[start:stop].numpy()
        assert (own.min(0) <= found[m].numpy()).all() and (found[m].numpy() <= own.max(0)).all()
    np.testing.assert_array_equal(found[2].numpy(), np.median(points[3:34].numpy(), 0))


def test_wild_rows_do_not_move_it(rng):
    """However many models there are, and wherever their wild rows are, as long as these are few."""
    n = 400
    points = torch.from_numpy(rng.normal(size=(50, n, 2))).float()
    for m in range(50):
        points[m, rng.choice(n, 20, replace=False)] = float(10.0 ** rng.uniform(2, 30))
    found = central_points(points.flatten(0, 1), layout_of(torch.arange(51) * n))
    assert float(found.abs().max()) < 3
