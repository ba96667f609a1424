"""Log p(points, labels) of a chain inside Triton kernels, without the factors of alpha."""

from __future__ import annotations

from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def log_marginal(counts, log_det, marginal_norm_ptr, nu0):
    """The factors of clusters, without the determinant of the prior's scale matrix."""
    return tl.load(marginal_norm_ptr + counts) - 0.5 * (nu0 + counts) * log_det


@triton.jit
def log_joint(counts, log_det, marginal_norm_ptr, prior_log_det, nu0):
    """Log p(points, labels) without the factors of alpha, and the number of clusters."""
    is_used = counts > 0
    n_clusters = tl.sum(is_used.to(tl.int32), 0)
    terms = log_marginal(counts, log_det, marginal_norm_ptr, nu0)
    prior_terms = 0.5 * n_clusters.to(tl.float64) * nu0 * prior_log_det
    return tl.sum(tl.where(is_used, terms, 0.0), 0) + prior_terms, n_clusters
