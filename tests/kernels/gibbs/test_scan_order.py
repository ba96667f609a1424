"""The order of updates is a random permutation."""

from __future__ import annotations

import scipy.stats
import torch
from fastdens.kernels.gibbs.scan_order import scan_order
from fastdens.kernels.layout import Layout

from tests.kernels.gibbs.posterior import CERTAIN


def test_scan_order_is_a_fresh_permutation_of_each_model(rng):
    layout = Layout.from_offsets(torch.tensor([0, 1, 40, 740]), 740)
    keys = torch.from_numpy(rng.integers(0, 2**62, size=3))
    orders = [scan_order(layout, keys, sweep) for sweep in range(3)]
    for start, stop in layout.ranges.tolist():
        assert all(order[start:stop].sort().values.tolist() == list(range(start, stop)) for order in orders)
    assert not torch.equal(orders[0][1:], orders[1][1:])
    # Each of six orders of three points as often as another.
    three = Layout.from_offsets(torch.arange(6001) * 3, 18_000)
    order = scan_order(three, torch.from_numpy(rng.integers(0, 2**62, size=6000)), 1) % 3
    count = torch.bincount(order.reshape(-1, 3) @ torch.tensor([9, 3, 1]))
    count = count[count > 0]
    assert len(count) == 6 and scipy.stats.chisquare(count.numpy()).pvalue > CERTAIN
