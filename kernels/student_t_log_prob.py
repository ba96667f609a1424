"""Log-density of points under mixtures of multivariate Student-t distributions, ragged in their components.

``log t(x | mu, (U U')^-1, nu) = log Gamma((nu + D)/2) - log Gamma(nu/2) - D/2 log(nu pi) + log det U
- (nu + D)/2 log(1 + |(x - mu) U|^2 / nu)`` (Kotz & Nadarajah, Multivariate t Distributions and Their Applications,
2004, eq. 1.1), the predictive density of a Gaussian under a normal-inverse-Wishart prior (Murphy, Conjugate Bayesian
analysis of the Gaussian distribution, 2007, section 9).
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels import reference
from fastdens.kernels.gaussian_log_prob import precision_times_centred, refuse_parameter_gradients
from fastdens.kernels.gaussian_pieces import config, quadratic_form, tiles
from fastdens.kernels.operation import check_alike, resolve_backend, row_ranges
from fastdens.kernels.optional import tl, triton
from fastdens.kernels.options import MATMUL_PRECISIONS, check_choice
from torch import Tensor


@triton.jit
def _log1p(y):
    """``log(1 + y)`` for ``y >= 0``; what the sum loses of a small y is added to first order."""
    u = 1.0 + y
    return tl.log(u) + tl.where(y < 1.0, (y - (u - 1.0)) / u, 0.0)


@triton.jit
def _student_t_log_prob_kernel(
    points,
    tile_model,
    tile_start,
    tile_stop,
    offsets,
    log_joint_norm,
    locations,
    factors,
    degrees_of_freedom,
    out,
    n_features,
    n_columns,
    LOWEST: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: a tile of points under one mixture, its components summed as they come (online log-sum-exp)."""
    tile = tl.program_id(0)
    m = tl.load(tile_model + tile)
    rows = tl.load(tile_start + tile) + tl.arange(0, BLOCK_N)
    mask = rows < tl.load(tile_stop + tile)
    begin, end = tl.load(offsets + m), tl.load(offsets + m + 1)
    width = tl.cast(n_features, tl.int64)
    dtype = points.dtype.element_ty
    # Below every log-density, yet finite: the first component needs no case of its own.
    top = tl.full([BLOCK_N], LOWEST, dtype)
    total = tl.zeros([BLOCK_N], dtype)
    for k in range((end - begin).to(tl.int32)):
        g = begin + k
        mean, factor = locations + g * width, factors + g * width * width
        form = quadratic_form(points, rows, mask, mean, factor, width, True, BLOCK_N, BLOCK_D, NUM_D_BLOCKS, PRECISION)
        norm, dof = tl.load(log_joint_norm + g), tl.load(degrees_of_freedom + g)
        joint = norm - 0.5 * (dof + width) * _log1p(form / dof)
        joint = tl.where(norm == float("-inf"), norm, joint)
        rise = joint - top
        # The smaller of the two terms in units of the larger; NaN is neither and stays NaN.
        ratio = tl.exp(-tl.abs(rise))
        total = tl.where(rise > 0.0, total * ratio + 1.0, total + ratio)
        top = tl.where(rise > 0.0, joint, top)
    value = tl.where(total == 0.0, float("-inf"), top + tl.log(total))
    value = tl.where(begin == end, float("nan"), value)
    tl.store(out + rows * n_columns + m % n_columns, value, mask=mask)


def _log_joint_norm(log_weights: Tensor, scale_precisions_cholesky: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """Log weight plus log normaliser of each component, float64 [G]."""
    d, nu = scale_precisions_cholesky.shape[-1], degrees_of_freedom.double()
    log_det = scale_precisions_cholesky.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    log_gammas = torch.lgamma(0.5 * (nu + d)) - torch.lgamma(0.5 * nu)
    return log_weights.double() + log_gammas - 0.5 * d * (nu * math.pi).log() + log_det


def _ranges(offsets: Tensor, rows: Tensor | None, n_points: int, n_components: int) -> Tensor | None:
    """The row ranges [M, 2] of ``rows``, once the values of both are known to be in range."""
    steps = torch.stack([offsets[:-1], offsets[1:]], 1)
    bad = (steps[:, 0] < 0) | (steps[:, 0] > steps[:, 1]) | (steps[:, 1] > n_components)
    if bool(bad.any()):
        m = int(bad.nonzero()[0])
        raise ValueError(
            f"the components of model {m} are {steps[m].tolist()}, no range of {n_components} components: offsets "
            "must not decrease."
        )
    return None if rows is None else row_ranges(rows, len(offsets) - 1, n_points)


def _launch(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    ranges: Tensor | None,
    matmul_precision: str,
) -> Tensor:
    n_points, n_features = points.shape
    n_models = len(offsets) - 1
    # Under all models, each model owns all rows and a column of the output.
    n_columns = n_models if ranges is None else 1
    out = torch.zeros(n_points, n_columns, dtype=points.dtype, device=points.device)
    everything = offsets.new_tensor([[0, n_points]]).expand(n_models, 2)
    blocks = config(n_features, points.dtype)
    table = tiles(everything if ranges is None else ranges, blocks.block_n)
    log_joint_norm = _log_joint_norm(log_weights, scale_precisions_cholesky, degrees_of_freedom)
    if len(table.model):
        _student_t_log_prob_kernel[(len(table.model),)](
            points.contiguous(),
            table.model,
            table.start,
            table.stop,
            offsets.contiguous(),
            log_joint_norm.to(points.dtype),
            locations.contiguous(),
            scale_precisions_cholesky.contiguous(),
            degrees_of_freedom.contiguous(),
            out,
            n_features,
            n_columns,
            LOWEST=torch.finfo(points.dtype).min,
            BLOCK_N=blocks.block_n,
            BLOCK_D=blocks.block_d,
            NUM_D_BLOCKS=blocks.num_d_blocks,
            PRECISION=matmul_precision,
            num_warps=blocks.num_warps,
            num_stages=blocks.num_stages,
        )
    return out if ranges is None else out[:, 0]


@torch.library.custom_op("fastdens::student_t_log_prob", mutates_args=())
def _student_t_log_prob(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    rows: Tensor | None,
    backend: str,
    matmul_precision: str,
) -> Tensor:
    ranges = _ranges(offsets, rows, len(points), len(locations))
    parameters = (locations, scale_precisions_cholesky, degrees_of_freedom)
    chosen = resolve_backend(backend, points)
    if chosen == "triton":
        return _launch(points, offsets, log_weights, *parameters, ranges, matmul_precision)
    if chosen == "cpu":
        from fastdens.kernels.cpu.student_t_log_prob import student_t_log_prob as on_cpu

        log_joint_norm = _log_joint_norm(log_weights, scale_precisions_cholesky, degrees_of_freedom)
        return on_cpu(points, offsets, log_joint_norm, *parameters, ranges)
    return reference.student_t_log_prob(points, offsets, log_weights, *parameters, ranges=ranges).to(points.dtype)


@_student_t_log_prob.register_fake
def _(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    rows: Tensor | None,
    backend: str,
    matmul_precision: str,
) -> Tensor:
    n_points, n_models = points.shape[0], offsets.shape[0] - 1
    return points.new_empty((n_points, n_models) if rows is None else (n_points,))


@torch.library.custom_op("fastdens::student_t_log_prob_backward", mutates_args=())
def _student_t_log_prob_backward(
    grad: Tensor,
    log_prob: Tensor,
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    rows: Tensor | None,
) -> Tensor:
    """``d log p / dx = -sum_g r_g (nu + D)/(nu + |(x - mu) U|^2) U U' (x - mu)``, one component at a time.

    Memory stays at [N, D]. An operator of its own, because torch.compile traces no loop over ragged components.
    """
    n_points, n_features = points.shape
    out = torch.zeros_like(points)
    ranges = _ranges(offsets, rows, n_points, len(locations))
    bounds = [(0, n_points)] * (len(offsets) - 1) if ranges is None else ranges.tolist()
    grad, log_prob = (t if t.ndim == 2 else t[:, None] for t in (grad, log_prob))
    log_joint_norm = _log_joint_norm(log_weights, scale_precisions_cholesky, degrees_of_freedom).tolist()
    dof, components = degrees_of_freedom.tolist(), offsets.tolist()
    for m, (start, stop) in enumerate(bounds):
        x, column = points[start:stop], m % grad.shape[1]
        for g in range(components[m], components[m + 1]):
            if log_joint_norm[g] == -math.inf:
                continue
            factor = scale_precisions_cholesky[g]
            form = ((x - locations[g]) @ factor).square().sum(1)
            power = 0.5 * (dof[g] + n_features)
            joint = log_joint_norm[g] - power * torch.log1p(form / dof[g])
            resp = torch.exp(joint - log_prob[start:stop, column])
            pull = precision_times_centred(x, locations[g], factor, "full")
            out[start:stop] -= (grad[start:stop, column] * resp * 2 * power / (dof[g] + form))[:, None] * pull
    return out


@_student_t_log_prob_backward.register_fake
def _(
    grad: Tensor,
    log_prob: Tensor,
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    rows: Tensor | None,
) -> Tensor:
    return torch.empty_like(points)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs[:7])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # type: ignore[attr-defined]
    return torch.ops.fastdens.student_t_log_prob_backward(grad, *saved), *[None] * 8


_student_t_log_prob.register_autograd(_backward, setup_context=_setup_context)


def _check(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    rows: Tensor | None,
    matmul_precision: str,
) -> None:
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    if points.ndim != 2 or points.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"points are {points.dtype} of shape {tuple(points.shape)}, but must be float32 or float64 [N, D]."
        )
    if locations.ndim != 2 or locations.shape[1] != points.shape[1]:
        raise ValueError(
            f"locations have shape {tuple(locations.shape)}, but points with D = {points.shape[1]} need "
            f"[G, {points.shape[1]}]."
        )
    n_components, d = locations.shape
    shapes = {
        "log_weights": (log_weights, (n_components,)),
        "scale_precisions_cholesky": (scale_precisions_cholesky, (n_components, d, d)),
        "degrees_of_freedom": (degrees_of_freedom, (n_components,)),
    }
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but locations {tuple(locations.shape)} need {shape}."
            )
    check_alike(points, locations=locations, **{name: tensor for name, (tensor, _) in shapes.items()})
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or len(offsets) == 0:
        raise ValueError(
            f"offsets are {offsets.dtype} of shape {tuple(offsets.shape)}, but must be int64 [M + 1]: the components "
            "of model m are offsets[m]:offsets[m + 1]."
        )
    n_models = len(offsets) - 1
    if rows is not None and (rows.dtype != torch.int64 or tuple(rows.shape) not in ((n_models + 1,), (n_models, 2))):
        raise ValueError(
            f"rows are {rows.dtype} of shape {tuple(rows.shape)}, but {n_models} models need int64 [{n_models + 1}], "
            f"or row ranges [{n_models}, 2]."
        )
    for name, index in (("offsets", offsets), ("rows", rows)):
        if index is not None and index.device != points.device:
            raise ValueError(f"{name} are on {index.device} and points are on {points.device}: move one of them.")


def student_t_log_prob(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    *,
    rows: Tensor | None = None,
    backend: str = "auto",
    matmul_precision: str = "ieee",
) -> Tensor:
    """Log-density of each point under each of M Student-t mixtures, or under its own; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64; sorted by model where ``rows`` is given.
    offsets : Tensor
        int64 [M + 1]: the components of model m are ``offsets[m]:offsets[m + 1]``.
    log_weights, degrees_of_freedom : Tensor
        [G], of each component. A component of log weight minus infinity adds nothing.
    locations : Tensor
        [G, D].
    scale_precisions_cholesky : Tensor
        [G, D, D], upper-triangular U with ``scale^-1 = U U'``.
    rows : Tensor, optional
        The rows of each model, int64 [M + 1] offsets or [M, 2] ranges: each point under its own model.
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the float32 matrix products of the Triton kernel.

    Returns
    -------
    Tensor
        [N, M], each point under every model; with ``rows`` [N], each under its own, zero for rows that no model owns.
        In nats and in the dtype of the points; NaN for a model without components. Nothing of size N x G is formed.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices, offsets or options do not fit.
    NotImplementedError
        If a parameter requires a gradient.

    References
    ----------
    Kotz & Nadarajah, Multivariate t Distributions and Their Applications, 2004, eq. 1.1.
    """
    parameters = (log_weights, locations, scale_precisions_cholesky, degrees_of_freedom)
    _check(points, offsets, *parameters, rows, matmul_precision)
    refuse_parameter_gradients(
        log_weights=log_weights,
        locations=locations,
        scale_precisions_cholesky=scale_precisions_cholesky,
        degrees_of_freedom=degrees_of_freedom,
    )
    return _student_t_log_prob(points, offsets, *parameters, rows, backend, matmul_precision)
