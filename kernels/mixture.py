"""The loop over the components of mixtures, with a running log-sum-exp: log-densities and responsibilities.

Every density of this library is ``log p(x | m) = log sum_g exp(log_joint_norm_g + shape(|(x - mean_g) U_g|^2))``, g
over the components of model m, where the shape is that of the family: ``-q / 2`` of a Gaussian, and
``-(nu + D)/2 log(1 + q / nu)`` of a Student-t distribution. A point is weighed under every model, or under the model
that owns its row; the responsibilities are the terms of the sum divided by it (Bishop 2006, eqs. 9.7 and 9.23).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.mahalanobis import Config, config, product_precision, quadratic_form
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor


class Components(NamedTuple):
    """The G components of M mixtures, one mixture after the other, as the loops over them read them.

    Mixtures of K components each may keep their two axes [M, K] in the place of [G].
    """

    offsets: Tensor  # int64 [M + 1]: the components of model m are offsets[m]:offsets[m + 1]
    log_joint_norm: Tensor  # float64 [G], log weight plus log normaliser
    means: Tensor  # [G, D]
    factors: Tensor  # U [G, D, D], or with triangular False its diagonal [G, D]; tied [M, D, D]
    triangular: bool
    tied: bool  # the components of a model share one factor
    degrees_of_freedom: Tensor | None  # [G] of Student-t distributions, None of Gaussians
    # A [G, D, Q] of factor analysers: U is a diagonal times I - A A'. The loops of this module do not know it.
    directions: Tensor | None = None

    @property
    def n_models(self) -> int:
        """Number of mixtures M."""
        return self.offsets.shape[0] - 1


def empty_log_prob(points: Tensor, components: Components, layout: Layout | None) -> Tensor:
    """Room for log-densities: [N, M]; with a layout [N], zero where no model owns the row."""
    n_points = points.shape[0]
    return points.new_empty(n_points, components.n_models) if layout is None else points.new_zeros(n_points)


def empty_responsibilities(points: Tensor, components: Components) -> Tensor:
    """Room for responsibilities [N, K], zero where no model owns the row, of mixtures [M, K]."""
    return points.new_zeros(points.shape[0], components.log_joint_norm.shape[1])


@triton.jit
def _log1p(y):
    """``log(1 + y)`` for ``y >= 0``; the digits of a small y that the sum loses are added to first order."""
    u = 1.0 + y
    return tl.log(u) + tl.where(y < 1.0, (y - (u - 1.0)) / u, 0.0)


@triton.jit
def add_log_term(top, total, term):
    """Add ``exp(term)`` to the sums ``exp(top) total``; start with the lowest finite number and zero."""
    rise = term - top
    # The smaller of the two terms in units of the larger; NaN is neither and stays NaN.
    ratio = tl.exp(-tl.abs(rise))
    total = tl.where(rise > 0.0, total * ratio + 1.0, total + ratio)
    return tl.where(rise > 0.0, term, top), total


@triton.jit
def _mixture_kernel(
    points_ptr,  # [N, D]
    tile_model_ptr,  # [T], or None: every tile under all models
    tile_start_ptr,  # [T]
    tile_stop_ptr,  # [T]
    offsets_ptr,  # [M + 1]
    log_joint_norm_ptr,  # [G]
    means_ptr,  # [G, D]
    factors_ptr,  # [G, D, D] or [G, D]; TIED: [M, D, D]
    degrees_of_freedom_ptr,  # [G], or None: Gaussians
    done_ptr,  # int8 [M], models that are left as they are; or None
    log_prob_ptr,  # [N, M], or [N] with tiles of own rows
    resp_ptr,  # [N, K], or None: no responsibilities
    n_points,
    n_features,
    n_models,
    n_components,  # K
    LOWEST: tl.constexpr,
    TIED: tl.constexpr,
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: a tile of points under one mixture."""
    program = tl.program_id(0).to(tl.int64)
    if tile_model_ptr is None:
        m = program % n_models
        rows = program // n_models * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = rows < n_points
        out_ptr = log_prob_ptr + rows * n_models + m
    else:
        m = tl.load(tile_model_ptr + program)
        if done_ptr is not None and tl.load(done_ptr + m) != 0:
            return
        rows = tl.load(tile_start_ptr + program) + tl.arange(0, BLOCK_N)
        mask = rows < tl.load(tile_stop_ptr + program)
        out_ptr = log_prob_ptr + rows
    begin, end = tl.load(offsets_ptr + m), tl.load(offsets_ptr + m + 1)
    width = tl.cast(n_features, tl.int64)
    dtype = points_ptr.dtype.element_ty
    top = tl.full([BLOCK_N], LOWEST, dtype)
    total = tl.zeros([BLOCK_N], dtype)
    size = (end - begin).to(tl.int32)
    for k in range(size):
        g = begin + k
        factor_ptr = factors_ptr + (m if TIED else g) * (width * width if TRIANGULAR else width)
        form = quadratic_form(
            points_ptr,
            rows,
            mask,
            means_ptr + g * width,
            factor_ptr,
            width,
            TRIANGULAR,
            BLOCK_N,
            BLOCK_D,
            NUM_D_BLOCKS,
            PRECISION,
        )
        norm = tl.load(log_joint_norm_ptr + g)
        if degrees_of_freedom_ptr is None:
            joint = norm - 0.5 * form
        else:
            dof = tl.load(degrees_of_freedom_ptr + g)
            joint = norm - 0.5 * (dof + width) * _log1p(form / dof)
            # A component of weight zero adds nothing, whatever its parameters are.
            joint = tl.where(norm == float("-inf"), norm, joint)
        if resp_ptr is not None:
            tl.store(resp_ptr + rows * n_components + k, joint, mask=mask)
        top, total = add_log_term(top, total, joint)
    log_prob = tl.where(total == 0.0, float("-inf"), top + tl.log(total))
    tl.store(out_ptr, tl.where(size == 0, float("nan"), log_prob), mask=mask)
    if resp_ptr is not None:
        # The joint densities were parked in the output: they must be visible to the whole program before they are read.
        tl.debug_barrier()
        for k in range(n_components):
            joint = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=float("-inf"))
            tl.store(resp_ptr + rows * n_components + k, tl.exp(joint - log_prob), mask=mask)


def blocks(n_features: int, dtype: torch.dtype, matmul_precision: str) -> Config:
    """Block sizes of a launch; left to itself, the assembler gives some of the variants fewer registers and spills."""
    precision = product_precision(n_features, dtype, matmul_precision)
    return config(n_features, dtype)._replace(precision=precision, max_registers=255)


def launch(
    points: Tensor,
    components: Components,
    layout: Layout | None,
    log_prob: Tensor,
    resp: Tensor | None,
    done: Tensor | None = None,
    *,
    matmul_precision: str,
) -> None:
    """Fill ``log_prob`` [N, M], with a layout [N], and responsibilities [N, K], but for rows of models in ``done``."""
    n_points, n_features = points.shape
    n_models = components.n_models
    sizes = blocks(n_features, points.dtype, matmul_precision)
    if layout is None:
        tiles: tuple[Tensor | None, ...] = (None, None, None)
        n_programs = -(-n_points // sizes.block_n) * n_models
    else:
        tiles = layout.tiles(sizes.block_n)[:3]
        n_programs = len(layout.tiles(sizes.block_n).model)
    if n_programs:
        _mixture_kernel[(n_programs,)](
            points.contiguous(),
            *tiles,
            components.offsets.contiguous(),
            components.log_joint_norm.to(points.dtype).contiguous(),
            components.means.contiguous(),
            components.factors.contiguous(),
            None if components.degrees_of_freedom is None else components.degrees_of_freedom.contiguous(),
            done,
            log_prob,
            resp,
            n_points,
            n_features,
            n_models,
            0 if resp is None else resp.shape[1],
            LOWEST=torch.finfo(points.dtype).min,
            TIED=components.tied,
            TRIANGULAR=components.triangular,
            BLOCK_N=sizes.block_n,
            BLOCK_D=sizes.block_d,
            NUM_D_BLOCKS=sizes.num_d_blocks,
            PRECISION=sizes.precision,
            num_warps=sizes.num_warps,
            num_stages=sizes.num_stages,
            maxnreg=sizes.max_registers,
        )


def log_prob(points: Tensor, components: Components, layout: Layout | None = None, *, matmul_precision: str) -> Tensor:
    """Log-densities under all models [N, M]; with a layout [N], under the model that owns the row, zero where none."""
    out = empty_log_prob(points, components, layout)
    launch(points, components, layout, out, None, matmul_precision=matmul_precision)
    return out


def responsibilities(
    points: Tensor, components: Components, layout: Layout, *, matmul_precision: str
) -> tuple[Tensor, Tensor]:
    """Responsibilities [N, K] under the model that owns the row, and its log-density [N]; zero where none does."""
    resp, out = empty_responsibilities(points, components), empty_log_prob(points, components, layout)
    launch(points, components, layout, out, resp, matmul_precision=matmul_precision)
    return resp, out
