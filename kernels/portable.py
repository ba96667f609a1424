"""Log-densities as programs hold them that are exported: in plain operations of torch, to run without this library.

``log p(x | m) = log sum_g exp(log_joint_norm_g + shape(|(x - mean_g) U_g|^2))`` as in :mod:`fastdens.kernels.mixture`,
in the dtype of the points, which are centred before anything is squared. Numbers of size N x G x D are formed.
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels.mixture import Components
from torch import Tensor

# Coefficients of z^-1, z^-3, ... in the series of Stirling, which this shift makes exact to the last digits of float64.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_SHIFT = 12


def log_prob(points: Tensor, components: Components) -> Tensor:
    """Log-densities of points [N, D] under all models, [N, M]; with torch.export and ONNX in mind."""
    norm = components.log_joint_norm
    joint = norm.to(points.dtype) - _energy(points, components)
    # A component of weight zero adds nothing, whatever its parameters are.
    joint = torch.where(norm == -math.inf, -math.inf, joint)
    return torch.logsumexp(joint, -1) if norm.ndim == 2 else _ragged_logsumexp(joint, components.offsets)


def _energy(points: Tensor, components: Components) -> Tensor:
    """What distance takes from the log-density of each component, [N, G] or [N, M, K]."""
    d, dof = points.shape[1], components.degrees_of_freedom
    form = _whitened(points, components).square().sum(-1)
    form = form.movedim(-1, 0) if components.triangular else form
    return 0.5 * form if dof is None else 0.5 * (dof + d) * torch.log1p(form / dof)


def _whitened(points: Tensor, components: Components) -> Tensor:
    """``(x - mean) U``: with matrices U [..., N, D], with diagonals [N, ..., D]."""
    means, factors = (tensor.to(points.dtype) for tensor in (components.means, components.factors))
    if not components.triangular:
        scaled = (points.reshape(-1, *[1] * (means.ndim - 1), means.shape[-1]) - means) * factors
        return scaled if components.directions is None else _outside(scaled, components.directions.to(points.dtype))
    return (points - means[..., None, :]) @ (factors[:, None] if components.tied else factors)


def _outside(vectors: Tensor, directions: Tensor) -> Tensor:
    """``(I - A A') v`` of vectors [N, M, K, D] and directions A [M, K, D, Q]."""
    inside = vectors.movedim(0, -2) @ directions @ directions.mT
    return vectors - inside.movedim(-2, 0)


def _ragged_logsumexp(joint: Tensor, offsets: Tensor) -> Tensor:
    """Log of the sum of exponentials over the components [N, G] of each model, [N, M]; NaN where there is none."""
    n_points, n_components = joint.shape
    component = torch.arange(n_components, device=joint.device)
    model = (component >= offsets[1:, None]).sum(0)
    lowest = joint.new_full((n_points, offsets.shape[0] - 1), torch.finfo(joint.dtype).min)
    # Any number near the largest does, and has no part in derivatives.
    top = lowest.scatter_reduce(1, model.expand(n_points, -1), joint.detach(), "amax")
    is_own = (model[:, None] == torch.arange(offsets.shape[0] - 1, device=joint.device)).to(joint.dtype)
    total = (joint - top[:, model]).exp() @ is_own
    return torch.where(offsets.diff() == 0, math.nan, top + total.log())


def log_gamma(x: Tensor) -> Tensor:
    """``log Gamma(x)`` of positive numbers, float64: ONNX has no such operator.

    By the series of Stirling at ``x + 12`` and the recurrence down from there (Abramowitz & Stegun, Handbook of
    Mathematical Functions, 1964, eqs. 6.1.15 and 6.1.41).
    """
    z = x + _SHIFT
    series = sum(c * z ** -(2 * i + 1) for i, c in enumerate(_STIRLING))
    steps = torch.stack([x + i for i in range(_SHIFT)]).log().sum(0)
    return (z - 0.5) * z.log() - z + 0.5 * math.log(2 * math.pi) + series - steps
