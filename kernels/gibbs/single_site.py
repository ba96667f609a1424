"""Weights of the clusters for one point, and the draw of one of them.

Vectors over clusters have SLOTS elements; a slot without points is free and has no weight.
"""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def weigh(counts, mahalanobis_sq, log_det, predictive_norm_ptr, kappa0, nu0):
    """Log-weights [SLOTS] of clusters that do not hold the point, ``log n t(x)``."""
    kappa = kappa0 + counts
    # The distances of free slots are those of clusters that are gone.
    q = tl.where(counts > 0, mahalanobis_sq, 0.0)
    log_weight = tl.load(predictive_norm_ptr + counts) - 0.5 * (
        log_det + (nu0 + counts + 1.0) * tl.log(1.0 + kappa / (kappa + 1.0) * q)
    )
    return tl.where(counts > 0, log_weight, float("-inf"))


@triton.jit
def weigh_own(count, mahalanobis_sq, log_det, predictive_norm_ptr, kappa0, nu0, SMALLEST_RATIO: tl.constexpr):
    """Log-weight of the point's own cluster without the point, in closed form, and whether that is precise.

    The ratio is that of the determinants of S without the point and with it, up to a factor: where it is small, the
    point carries its cluster, and the difference has lost its digits.
    """
    kappa = kappa0 + count
    is_singleton = count == 1
    ratio = 1.0 - tl.where(is_singleton, 0.0, kappa / (kappa - 1.0) * mahalanobis_sq)
    is_precise = ratio > SMALLEST_RATIO
    log_ratio = tl.log(tl.where(is_precise, ratio, 1.0))
    log_weight = tl.load(predictive_norm_ptr + count - 1) - 0.5 * (log_det - (nu0 + count - 1.0) * log_ratio)
    return tl.where(is_singleton, float("-inf"), log_weight), is_precise


@triton.jit
def draw(stream, counter, counts, log_weight, log_weight_new, SLOTS: tl.constexpr):
    """A slot with probability proportional to its weight, or SLOTS for a new cluster; and the lowest free slot.

    That is SLOTS too where no slot is free.
    """
    slots = tl.arange(0, SLOTS)
    top = tl.maximum(tl.max(log_weight, 0), log_weight_new)
    # Next to the largest weight, anything smaller than this is lost in rounding.
    weight = tl.where(log_weight - top > -45.0, tl.exp(log_weight - top), 0.0)
    weight_new = tl.where(log_weight_new - top > -45.0, tl.exp(log_weight_new - top), 0.0)
    target = uniform(stream, counter) * (tl.sum(weight, 0) + weight_new)
    drawn = tl.min(tl.where(target < tl.cumsum(weight, 0), slots, SLOTS), 0)
    free = tl.min(tl.where(counts == 0, slots, SLOTS), 0)
    return drawn, free
