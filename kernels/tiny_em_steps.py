"""Steps of EM of tiny models on a GPU: several models in a program, all steps in one launch.

The formulas of :mod:`~fastdens.kernels.expectation_maximization`, written out for at most four dimensions: no product
is worth a matrix unit there, and no pass over a model's points is worth a launch. A thread has one component of one
model and goes through its points one by one; parameters stay in registers from step to step, a matrix as the tuple of
its lower triangle, row by row. The parallelism is that of the models, of which there should be thousands.
"""

# Tuples grow in loops that Triton unrolls, which a type checker does not follow.
# mypy: disable-error-code="assignment, var-annotated"

from __future__ import annotations

import math

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

# Beyond so many rows, the passes of one thread take longer than launches that share them.
_MAX_FEATURES, _MAX_ROWS = 4, 128
# A program is a warp: it holds the components of a model, or of several.
_THREADS = 32


def are_tiny(layout: Layout, n_components: int, n_features: int) -> Tensor | None:
    """The models of this kernel, bool [M], which is a matter of each one alone; None where there is none."""
    if n_features > _MAX_FEATURES or n_components > _THREADS:
        return None
    tiny = layout.sizes <= _MAX_ROWS
    return tiny if bool(tiny.any()) else None


@triton.jit
def _entry(m, g, i, j, D: tl.constexpr, COVARIANCE_TYPE: tl.constexpr):
    """Where entry (i, j) of a covariance or a factor lies, of model m and component g of all."""
    if COVARIANCE_TYPE == "full":
        return (g * D + i) * D + j
    elif COVARIANCE_TYPE == "tied":
        return (m * D + i) * D + j + g * 0
    elif COVARIANCE_TYPE == "diag":
        return g * D + i
    else:
        return g


@triton.jit
def _load_point(points_ptr, row, mask, D: tl.constexpr):
    """The coordinates of a row of each model, a tuple of D tensors [B, 1]."""
    x = ()
    for d in tl.static_range(D):
        x = x + (tl.load(points_ptr + row * D + d, mask=mask, other=0.0),)
    return x


@triton.jit
def _responsibilities(
    x, mask, means, factors, log_joint_norm, D: tl.constexpr, MATRICES: tl.constexpr, LOWEST: tl.constexpr
):
    """Responsibilities [B, K], zero outside the mask, and log-densities [B, 1] of a point of each model."""
    joint = log_joint_norm
    for j in tl.static_range(D):
        y = (x[j] - means[j]) * factors[j * (j + 3) // 2 if MATRICES else j]
        if MATRICES:
            for i in tl.static_range(j):
                y += (x[i] - means[i]) * factors[j * (j + 1) // 2 + i]
        joint = joint - 0.5 * (y * y)
    top = tl.maximum(tl.max(joint, 1, keep_dims=True), LOWEST)
    log_prob = top + tl.log(tl.sum(tl.exp(joint - top), 1, keep_dims=True))
    return tl.where(mask, tl.exp(joint - log_prob), 0.0), log_prob


@triton.jit
def _weigh(
    points_ptr,
    sample_weight_ptr,
    row,
    mask,
    means,
    factors,
    log_joint_norm,
    D: tl.constexpr,
    MATRICES: tl.constexpr,
    LOWEST: tl.constexpr,
):
    """A row of each model; its responsibilities and log-density, times its weight if there are weights."""
    x = _load_point(points_ptr, row, mask, D)
    r, log_prob = _responsibilities(x, mask, means, factors, log_joint_norm, D, MATRICES, LOWEST)
    if sample_weight_ptr is not None:
        weight = tl.load(sample_weight_ptr + row, mask=mask, other=0.0)
        r, log_prob = r * weight, log_prob * weight
    return x, r, log_prob


@triton.jit
def _inverse_factor(a, D: tl.constexpr):
    """``L^-1`` of ``a = L L'``, lower triangles; NaN where a pivot is not positive and finite."""
    lower = ()
    for i in tl.static_range(D):
        for j in tl.static_range(i + 1):
            rest = a[i * (i + 1) // 2 + j]
            for q in tl.static_range(j):
                rest -= lower[i * (i + 1) // 2 + q] * lower[j * (j + 1) // 2 + q]
            if i == j:
                rest = tl.sqrt(tl.where((rest > 0.0) & (rest < float("inf")), rest, float("nan")))
            else:
                rest /= lower[j * (j + 3) // 2]
            lower = lower + (rest,)
    inverse = ()
    for i in tl.static_range(D):
        for j in tl.static_range(i):
            total = lower[i * (i + 1) // 2 + j] * inverse[j * (j + 3) // 2]
            for q in tl.static_range(j + 1, i):
                total += lower[i * (i + 1) // 2 + q] * inverse[q * (q + 1) // 2 + j]
            inverse = inverse + (-total / lower[i * (i + 3) // 2],)
        inverse = inverse + (1.0 / lower[i * (i + 3) // 2],)
    return inverse


@triton.jit
def _tiny_em_steps_kernel(
    points_ptr,  # [N, D]
    ranges_ptr,  # int64 [M, 2]
    sample_weight_ptr,  # [N], or None
    total_weight_ptr,  # float64 [M], or None: the number of rows
    tol_ptr,  # float64 [1]
    reg_covar_ptr,  # float64 [1]
    weights_ptr,  # [M, K]
    means_ptr,  # [M, K, D]
    covariances_ptr,  # full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K]
    factors_ptr,  # as the covariances
    lower_bound_ptr,  # float64 [M]
    n_steps_ptr,  # int64 [M]
    converged_ptr,  # int8 [M]
    bad_ptr,  # int8 [M]
    n_models,
    n_components,
    max_steps,
    D: tl.constexpr,
    COVARIANCE_TYPE: tl.constexpr,
    MATRICES: tl.constexpr,
    TEN_EPS: tl.constexpr,
    LOWEST: tl.constexpr,
    HALF_LOG_TWO_PI: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: BATCH models, each until it converges or turns bad."""
    dtype = points_ptr.dtype.element_ty
    m = tl.program_id(0).to(tl.int64) * BATCH + tl.arange(0, BATCH)[:, None]
    k = tl.arange(0, BLOCK_K)[None, :]
    going = m < n_models
    inside = going & (k < n_components)
    g = m * n_components + k
    start = tl.load(ranges_ptr + 2 * m, mask=going, other=0)
    stop = tl.load(ranges_ptr + 2 * m + 1, mask=going, other=0)
    # Past the rows of a model its sums take up zeros, so that the other models of the program do not touch them.
    longest = tl.max(tl.max(stop - start, 1), 0)
    total_weight = (stop - start).to(tl.float64)
    if total_weight_ptr is not None:
        total_weight = tl.load(total_weight_ptr + m, mask=going, other=1.0)
    tol, reg_covar = tl.load(tol_ptr), tl.load(reg_covar_ptr)
    bound = tl.load(lower_bound_ptr + m, mask=going, other=0.0)
    weights = tl.load(weights_ptr + g, mask=inside, other=0.0)
    means, factors = (), ()
    for i in tl.static_range(D):
        means = means + (tl.load(means_ptr + g * D + i, mask=inside, other=0.0),)
        for j in tl.static_range(0 if MATRICES else i, i + 1):
            at = factors_ptr + _entry(m, g, j, i, D, COVARIANCE_TYPE)
            factors = factors + (tl.load(at, mask=inside, other=1.0),)

    step = 0
    more = tl.max(tl.max(going.to(tl.int32), 1), 0)
    while (step < max_steps) & (more > 0):
        step += 1
        log_joint_norm = tl.where(weights > 0.0, tl.log(weights.to(tl.float64)), float("-inf"))
        for i in tl.static_range(D):
            factor = factors[i * (i + 3) // 2 if MATRICES else i].to(tl.float64)
            log_joint_norm = log_joint_norm + (tl.log(factor) - HALF_LOG_TWO_PI)
        log_joint_norm = tl.where(inside, log_joint_norm, float("-inf")).to(dtype)

        nk = tl.zeros([BATCH, BLOCK_K], dtype)
        log_likelihood = tl.zeros([BATCH, 1], tl.float64)
        moments = ()
        for i in tl.static_range(D):
            moments = moments + (tl.zeros([BATCH, BLOCK_K], dtype),)
        for n in range(longest):
            own = start + n < stop
            x, r, log_prob = _weigh(
                points_ptr, sample_weight_ptr, start + n, own, means, factors, log_joint_norm, D, MATRICES, LOWEST
            )
            log_likelihood += tl.where(own, log_prob, 0.0)
            nk += r
            sums = ()
            for i in tl.static_range(D):
                sums = sums + (moments[i] + r * tl.where(own, x[i] - means[i], 0.0),)
            moments = sums
        nk += TEN_EPS
        new_means = ()
        for i in tl.static_range(D):
            new_means = new_means + (means[i] + moments[i] / nk,)

        N_ENTRIES: tl.constexpr = D * (D + 1) // 2 if MATRICES else D
        scatter = ()
        for i in tl.static_range(N_ENTRIES):
            scatter = scatter + (tl.zeros([BATCH, BLOCK_K], dtype),)
        for n in range(longest):
            own = start + n < stop
            x, r, log_prob = _weigh(
                points_ptr, sample_weight_ptr, start + n, own, means, factors, log_joint_norm, D, MATRICES, LOWEST
            )
            sums = ()
            for i in tl.static_range(D):
                z = r * tl.where(own, x[i] - new_means[i], 0.0)
                for j in tl.static_range(0 if MATRICES else i, i + 1):
                    sums = sums + (scatter[len(sums)] + z * tl.where(own, x[j] - new_means[j], 0.0),)
            scatter = sums

        count = nk.to(tl.float64)
        total_count = tl.sum(tl.where(inside, count, 0.0), 1, keep_dims=True)
        weights = tl.where(inside, count / total_count, 0.0).to(dtype)
        covariances = ()
        for i in tl.static_range(D):
            for j in tl.static_range(0 if MATRICES else i, i + 1):
                entry = scatter[len(covariances)].to(tl.float64)
                if COVARIANCE_TYPE == "tied":
                    entry = tl.sum(tl.where(inside, entry, 0.0), 1, keep_dims=True) / total_count + 0.0 * count
                elif COVARIANCE_TYPE == "spherical":
                    entry = scatter[0].to(tl.float64)
                    for d in tl.static_range(1, D):
                        entry += scatter[d]
                    entry /= D * count
                else:
                    entry /= count
                if i == j:
                    entry += reg_covar
                covariances = covariances + (entry.to(dtype).to(tl.float64),)
        if MATRICES:
            new_factors = _inverse_factor(covariances, D)
        else:
            new_factors = ()
            for i in tl.static_range(D):
                variance = covariances[i]
                new_factors = new_factors + (1.0 / tl.sqrt(tl.where(variance > 0.0, variance, float("nan"))),)
        factors, means = (), new_means
        lost = tl.zeros([BATCH, BLOCK_K], tl.int32)
        for e in tl.static_range(N_ENTRIES):
            factors = factors + (new_factors[e].to(dtype),)
            lost |= (new_factors[e] != new_factors[e]).to(tl.int32)

        before, bound = bound, log_likelihood / total_weight
        bad = tl.max(tl.where(inside, lost, 0), 1, keep_dims=True)
        converged = tl.where((tl.abs(bound - before) < tol) & (bad == 0), 1, 0)
        # A model that is done goes on in registers for the sake of the others, and is not stored again.
        storing = inside & going
        tl.store(weights_ptr + g, weights, mask=storing)
        for i in tl.static_range(D):
            tl.store(means_ptr + g * D + i, means[i], mask=storing)
            for j in tl.static_range(0 if MATRICES else i, i + 1):
                covariance = covariances[i * (i + 1) // 2 + j if MATRICES else i]
                factor = factors[i * (i + 1) // 2 + j if MATRICES else i]
                chosen = (
                    storing & ((k == 0) | (COVARIANCE_TYPE != "tied")) & ((i == 0) | (COVARIANCE_TYPE != "spherical"))
                )
                upper, lower = _entry(m, g, j, i, D, COVARIANCE_TYPE), _entry(m, g, i, j, D, COVARIANCE_TYPE)
                tl.store(covariances_ptr + upper, covariance, mask=chosen)
                tl.store(factors_ptr + upper, factor, mask=chosen)
                if i != j:
                    tl.store(covariances_ptr + lower, covariance, mask=chosen)
                    tl.store(factors_ptr + lower, tl.zeros([BATCH, BLOCK_K], dtype), mask=chosen)
        tl.store(lower_bound_ptr + m, bound, mask=going)
        tl.store(n_steps_ptr + m, step + m * 0, mask=going)
        tl.store(converged_ptr + m, converged.to(tl.int8), mask=going)
        tl.store(bad_ptr + m, bad.to(tl.int8), mask=going)
        going = going & (converged == 0) & (bad == 0)
        more = tl.max(tl.max(going.to(tl.int32), 1), 0)


def launch(
    points: Tensor,
    layout: Layout,
    covariance_type: str,
    n_steps: int,
    sample_weight: Tensor | None,
    tol: Tensor,
    reg_covar: Tensor,
    weights: Tensor,
    means: Tensor,
    covariances: Tensor,
    factors: Tensor,
    *progress: Tensor,
) -> None:
    """Take the steps, in place; ``tol`` and ``reg_covar`` are float64 [1], and the rest as the kernel has it."""
    n_models, n_components, n_features = means.shape
    block_k = 1 << (n_components - 1).bit_length()
    _tiny_em_steps_kernel[(-(-n_models * block_k // _THREADS),)](
        points,
        layout.ranges,
        sample_weight,
        None if sample_weight is None else layout.sum(sample_weight),
        tol,
        reg_covar,
        weights,
        means,
        covariances,
        factors,
        *progress,
        n_models,
        n_components,
        n_steps,
        D=n_features,
        COVARIANCE_TYPE=covariance_type,
        MATRICES=covariance_type in ("full", "tied"),
        TEN_EPS=10 * torch.finfo(points.dtype).eps,
        LOWEST=torch.finfo(points.dtype).min,
        HALF_LOG_TWO_PI=0.5 * math.log(2 * math.pi),
        BATCH=_THREADS // block_k,
        BLOCK_K=block_k,
        num_warps=1,
    )
