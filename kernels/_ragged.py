"""Sums over the rows of ragged models, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_per_model(values: Tensor, ranges: Tensor) -> Tensor:
    """Sum of each model's rows, float64 [M], in an order that depends on the model alone."""
    sizes = ranges[:, 1] - ranges[:, 0]
    contiguous = len(ranges) == 0 or bool((ranges[1:, 0] == ranges[:-1, 1]).all())
    if contiguous and len(ranges):
        values = values[int(ranges[0, 0]) : int(ranges[-1, 1])]
    else:
        ends = sizes.cumsum(0)
        position = torch.arange(int(sizes.sum()), device=values.device)
        values = values[position + torch.repeat_interleave(ranges[:, 0] - (ends - sizes), sizes)]
    return torch.segment_reduce(values.double(), "sum", lengths=sizes)
