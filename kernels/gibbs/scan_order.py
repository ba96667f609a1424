"""The order in which a sweep updates the points: a fresh permutation every sweep, from the chain's random stream."""

from __future__ import annotations

import torch
from fastdens.kernels.counter_random import hashed_bits
from fastdens.kernels.layout import Layout
from torch import Tensor


def scan_order(layout: Layout, keys: Tensor, sweep: int) -> Tensor:
    """Rows in the order of their updates in one sweep, model after model: ascending 40 random bits.

    Parameters
    ----------
    layout : Layout
        Of M models.
    keys : Tensor
        int64 [M], the stream of each model.
    sweep : int

    Returns
    -------
    Tensor
        int64 [N].
    """
    model, position = layout.rows
    bits = hashed_bits(keys[model], 4 * sweep, position) >> 13
    return (layout.ranges[model, 0] + position)[torch.argsort((model << 40) | bits, stable=True)]
