"""Log p(points, labels) of a chain inside Triton kernels, without the factors of alpha."""

from __future__ import annotations

from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def log_marginal(counts, log_det, marginal_norm_ptr, nu0):
    """The factors of clusters, without the determinant of the prior's scale matrix."""
    return tl.load(marginal_norm_ptr + counts) - 0.5 * (nu0 + counts) * log_det


@triton.jit
def log_joint(
    counts_ptr,  # int64 [S]
    log_det_ptr,  # [S]
    marginal_norm_ptr,  # [max n + 1]
    prior_log_det,
    nu0,
    n_slots,  # S
    BLOCK_S: tl.constexpr,
):
    """Log p(points, labels) without the factors of alpha, and the number of clusters."""
    n_clusters = tl.full([], 0, tl.int32)
    log_p = tl.full([], 0.0, tl.float64)
    for first in range(0, n_slots, BLOCK_S):
        slots = first + tl.arange(0, BLOCK_S)
        counts = tl.load(counts_ptr + slots, mask=slots < n_slots, other=0)
        is_used = counts > 0
        log_det = tl.load(log_det_ptr + slots, mask=is_used, other=0.0)
        log_p += tl.sum(tl.where(is_used, log_marginal(counts, log_det, marginal_norm_ptr, nu0), 0.0), 0)
        n_clusters += tl.sum(is_used.to(tl.int32), 0)
    return log_p + 0.5 * n_clusters.to(tl.float64) * nu0 * prior_log_det, n_clusters
