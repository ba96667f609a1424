"""The order of updates is a random permutation."""

from __future__ import annotations

import scipy.stats
import torch
from fastdens.kernels.gibbs import scan_order
from fastdens.kernels.gibbs.scan_order import scan_orders
from fastdens.kernels.layout import Layout

from tests.kernels.gibbs.posterior import CERTAIN


def test_scan_order_is_a_fresh_permutation_of_each_model(rng, monkeypatch):
    layout = Layout.from_offsets(torch.tensor([0, 1, 40, 740]), 740)
    keys = torch.from_numpy(rng.integers(0, 2**62, size=(3, 2)))
    orders = scan_orders(layout, keys, 5, 3)
    assert torch.equal(orders[2], scan_orders(layout, keys, 7, 1)[0])
    assert not torch.equal(orders[:, 0], orders[:, 1])
    # The keys of a sort that takes one sweep at a time are the same.
    monkeypatch.setattr(scan_order, "MOST_SORTED", 1)
    assert torch.equal(orders, scan_orders(layout, keys, 5, 3))
    orders = orders[:, 1]
    for start, stop in layout.ranges.tolist():
        assert all(order[start:stop].sort().values.tolist() == list(range(start, stop)) for order in orders)
    assert not torch.equal(orders[0][1:], orders[1][1:])
    # Each of six orders of three points as often as another.
    three = Layout.from_offsets(torch.arange(6001) * 3, 18_000)
    order = scan_orders(three, torch.from_numpy(rng.integers(0, 2**62, size=(6000, 1))), 1, 1)[0, 0].long() % 3
    count = torch.bincount(order.reshape(-1, 3) @ torch.tensor([9, 3, 1]))
    count = count[count > 0]
    assert len(count) == 6 and scipy.stats.chisquare(count.numpy()).pvalue > CERTAIN
