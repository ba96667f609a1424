"""Rows of ragged models in plain torch: whose they are, sums over them, runs of models that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Of the rows of all ranges, one range after the other, int64 [N]: their model, and their place within it."""

    model: Tensor
    position: Tensor


def rows_of(ranges: Tensor) -> Rows:
    """The rows that row ranges [M, 2] hold."""
    sizes = ranges[:, 1] - ranges[:, 0]
    model = torch.repeat_interleave(torch.arange(len(sizes), device=ranges.device), sizes)
    first = sizes.cumsum(0) - sizes
    return Rows(model, torch.arange(len(model), device=ranges.device) - first[model])


def bounded_runs(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Runs of consecutive models whose sizes sum to ``limit`` at most, or that are one model."""
    runs, begin, total = [], 0, 0
    for m, size in enumerate(sizes):
        if m > begin and total + size > limit:
            runs.append((begin, m))
            begin, total = m, 0
        total += size
    return [*runs, (begin, len(sizes))]


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
