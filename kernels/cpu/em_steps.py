"""CPU twin of :mod:`fastdens.kernels.em_steps`."""

from __future__ import annotations

from fastdens.kernels.em_steps import EMSteps, composed
from fastdens.kernels.layout import Layout
from torch import Tensor


def em_steps(points: Tensor, layout: Layout, *state: Tensor, **options) -> EMSteps:
    """As :func:`fastdens.kernels.em_steps`."""
    return composed(points, layout, *state, backend="cpu", matmul_precision="ieee", **options)
