"""Sweeps of the chains of a batch, a thread a chain, in float64.

A point that is left out of its own cluster is a closed form of its distance, so a point that stays changes nothing.
One that moves costs two rank-one updates, and the distances of all other points from the two clusters follow from one
dot product each: N D operations, where computing them anew takes N D^2 / 2. A cluster that changes so often in a sweep
that this would not pay is volatile: its distances are computed for each block of points when the block is reached, and
only those of the block follow its changes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from fastdens.kernels.cpu._numba import inlined, kernel
from fastdens.kernels.cpu._random import stream_of
from fastdens.kernels.cpu.gibbs.concentration import resample_concentration
from fastdens.kernels.cpu.gibbs.distances import fit_block_distances, fit_distances, load_block
from fastdens.kernels.cpu.gibbs.moves import free_slot, grow_cluster, open_cluster, transfer_point
from fastdens.kernels.cpu.gibbs.refit import fit_cluster, weigh_without
from fastdens.kernels.cpu.gibbs.scan_order import scan_order
from fastdens.kernels.cpu.gibbs.single_site import draw_slot, refresh_weights, weigh_own
from fastdens.kernels.cpu.gibbs.split_merge import new_sides, split_or_merge
from fastdens.kernels.cpu.gibbs.statistics import (
    Prior,
    add_slots,
    free_clusters,
    load_points,
    new_clusters,
    new_scratch,
)
from numpy.typing import NDArray

# Status of a chain, as in the Triton kernel.
RUNNING, DONE, SINGULAR = 0, 1, 4

# Points whose updates follow each other, for which distances from volatile clusters are computed together.
BLOCK = 64


class ProblemArrays(NamedTuple):
    """A :class:`~fastdens.kernels.gibbs.problem.SweepProblem` as arrays, with the constants that depend on counts."""

    points: NDArray[Any]  # [N, D]
    ranges: NDArray[Any]  # int64 [M, 2]
    keys: NDArray[Any]  # int64 [M, C]
    prior_mean: NDArray[Any]  # [M, D]
    prior_scale: NDArray[Any]  # [M, D]
    predictive_norm: NDArray[Any]  # [max n + 1]
    marginal_norm: NDArray[Any]  # [max n + 1]
    kappa0: float
    nu0: float
    alpha_shape: float
    alpha_rate: float
    first_sweep: int
    n_sweeps: int
    thin: int
    inverse_temperature: NDArray[Any]  # [M, W]
    split_merge: NDArray[Any]  # int32 [M, W]


class SweepArrays(NamedTuple):
    """A :class:`~fastdens.kernels.gibbs.problem.GibbsSweeps` as arrays, to be filled."""

    labels: NDArray[Any]  # int32 [W / thin, C, N]
    alpha: NDArray[Any]  # [M, C, W]
    n_components: NDArray[Any]  # int32 [M, C, W]
    log_joint: NDArray[Any]  # [M, C, W]
    split_merge: NDArray[Any]  # int32 [M, C, 4]


@kernel
def slot_ranks(used, high, rank):
    """Number of the slots in use, and the rank of each among them."""
    n = 0
    for k in range(high):
        rank[k] = n
        n += used[k] > 0
    return n


@kernel
def slots_of_labels(labels, label):
    """Labels as slots 0, 1, ... in the order of their values, into ``label``; the number of slots in use."""
    highest = 0
    for i in range(len(label)):
        label[i] = labels[i]
        highest = max(highest, label[i] + 1)
    used, rank = np.zeros(highest, np.int64), np.zeros(highest, np.int64)
    for i in range(len(label)):
        used[label[i]] = 1
    high = slot_ranks(used, highest, rank)
    for i in range(len(label)):
        label[i] = rank[label[i]]
    return high


@kernel
def mark_volatile(high, points, prior, clusters, scratch):
    """At the start of a sweep: a cluster is volatile if it changed often in the last one."""
    n_padded = points.columns.shape[0]
    for k in range(high):
        often = 2 * clusters.moves[k] > n_padded
        if clusters.volatile[k] and not often and clusters.counts[k] > 0:
            fit_distances(k, points, prior, clusters, scratch)
        clusters.volatile[k] = often
        clusters.moves[k] = 0


@kernel
def begin_block(order, first, n_block, high, points, prior, clusters, scratch):
    """Distances of the points of a block from the volatile clusters."""
    n_padded = points.columns.shape[0]
    loaded = False
    for k in range(high):
        clusters.volatile[k] = clusters.volatile[k] or 2 * clusters.moves[k] > n_padded
        if clusters.volatile[k] and clusters.counts[k] > 0:
            if not loaded:
                load_block(points, order, first, n_block, scratch)
                loaded = True
            fit_block_distances(k, order, first, n_block, prior, clusters, scratch)


@kernel
def sweep(stream, order, log_alpha, beta, high, label, points, prior, clusters, scratch):
    """A single-site update of every point; the clusters, the number of slots in use, which may grow, and a status."""
    n_points = len(label)
    # Taken out of their tuples once: to do so for each point would cost more than its update.
    counts, log_det, mahalanobis_sq = clusters.counts, clusters.log_det, clusters.mahalanobis_sq
    base, power, logs, log_weight = clusters.base, clusters.power, clusters.logs, clusters.log_weight
    prior_log_prob, predictive_norm, kappa0, nu0 = points.prior_log_prob, prior.predictive_norm, prior.kappa, prior.nu
    mark_volatile(high, points, prior, clusters, scratch)
    for first in range(0, n_points, BLOCK):
        n_block = min(BLOCK, n_points - first)
        begin_block(order, first, n_block, high, points, prior, clusters, scratch)
        for b in range(n_block):
            i = order[first + b]
            old = label[i]
            own = weigh_own(counts[old], mahalanobis_sq[old, i], log_det[old], predictive_norm, kappa0, nu0)
            if math.isnan(own):
                own = weigh_without(i, old, label, points, prior, clusters, scratch)
                load_block(points, order, first, n_block, scratch)
                if math.isnan(own):
                    return clusters, high, SINGULAR
            log_weight_new = log_alpha + prior_log_prob[i]
            new = draw_slot(old, own, log_weight_new, i, high, beta, stream, base, power, logs, log_weight)
            # A singleton that draws a new cluster stays where it is.
            if new == old or (new < 0 and counts[old] == 1):
                continue
            if new < 0:
                new = free_slot(high, clusters)
                if new == len(clusters.counts) - 1:
                    clusters = add_slots(clusters)
                    counts, log_det, mahalanobis_sq = clusters.counts, clusters.log_det, clusters.mahalanobis_sq
                    base, power, logs, log_weight = clusters.base, clusters.power, clusters.logs, clusters.log_weight
                high = max(high, new + 1)
                open_cluster(new, points, prior, clusters)
            label[i] = new
            transfer_point(old, new, i, order, first, n_block, label, points, prior, clusters, scratch)
    return clusters, high, RUNNING


@inlined
def sweep_chain(m, c, problem, labels, alpha, stop, clusters, scratch, sweeps):
    """All sweeps of chain c of model m; the memory of its clusters, for the next chain, and its status at the end."""
    start, end = problem.ranges[m, 0], problem.ranges[m, 1]
    n_points, n_features = end - start, problem.points.shape[1]
    key = problem.keys[m, c]
    prior_log_det = 0.0
    for d in range(n_features):
        prior_log_det += math.log(problem.prior_scale[m, d])
    prior = Prior(
        problem.prior_scale[m],
        prior_log_det,
        problem.kappa0,
        problem.nu0,
        problem.predictive_norm,
        problem.marginal_norm,
    )
    points = load_points(problem.points, start, end, problem.prior_mean[m], prior)
    order, bits = np.empty(n_points, np.int64), np.empty(n_points, np.int64)
    bucket = np.empty(n_points + 1, np.int64)
    label = np.empty(n_points, np.int64)
    high = slots_of_labels(labels[c, start:end], label)
    clusters = free_clusters(high + 8, points.columns.shape[1], clusters)
    size = np.bincount(label, minlength=high)
    for k in range(high):
        if 3 * size[k] < n_features:
            grow_cluster(k, label, points, prior, clusters, scratch)
        else:
            fit_cluster(k, k, -1, label, points, prior, clusters, scratch)
            refresh_weights(k, prior, clusters)
            fit_distances(k, points, prior, clusters, scratch)
    sides = new_sides(n_points, points.columns.shape[0])
    for t in range(problem.n_sweeps):
        if stop[0] != 0:
            return clusters, RUNNING
        draw = 4 * (problem.first_sweep + t)
        scan_order(stream_of(key, draw), n_points, bits, bucket, order)
        clusters, high, status = sweep(
            stream_of(key, draw + 1),
            order,
            math.log(alpha),
            problem.inverse_temperature[m, t],
            high,
            label,
            points,
            prior,
            clusters,
            scratch,
        )
        if status == RUNNING:
            for move in range(problem.split_merge[m, t]):
                # The slot of a split, and the last one, which is scratch.
                if free_slot(high, clusters) >= len(clusters.counts) - 1:
                    clusters = add_slots(clusters)
                high = split_or_merge(
                    stream_of(key, draw + 3),
                    move,
                    order,
                    math.log(alpha),
                    high,
                    label,
                    points,
                    prior,
                    clusters,
                    sides,
                    scratch,
                    sweeps.split_merge[m, c],
                )
        rank = np.empty(high, np.int64)
        n_clusters = slot_ranks(clusters.counts, high, rank)
        # Log p(points, labels) without the factors of alpha.
        log_joint = 0.5 * n_clusters * problem.nu0 * prior_log_det
        for k in range(high):
            n = clusters.counts[k]
            if n > 0:
                log_joint += problem.marginal_norm[n] - 0.5 * (problem.nu0 + n) * clusters.log_det[k]
        if status == SINGULAR or math.isnan(log_joint):
            return clusters, SINGULAR
        if problem.alpha_shape > 0:
            alpha = resample_concentration(
                stream_of(key, draw + 2), alpha, n_points, n_clusters, problem.alpha_shape, problem.alpha_rate
            )
        sweeps.alpha[m, c, t] = alpha
        sweeps.n_components[m, c, t] = n_clusters
        sweeps.log_joint[m, c, t] = log_joint
        if (t + 1) % problem.thin == 0:
            for i in range(n_points):
                sweeps.labels[(t + 1) // problem.thin - 1, c, start + i] = rank[label[i]]
    return clusters, DONE


@kernel
def sweep_chains(begin, end, problem, labels, alpha, stop, status, sweeps):
    """The chains ``begin`` to ``end`` of the batch, chain c of model m being number ``m C + c``.

    ``labels`` are int32 [C, N], ``alpha`` [M, C]; ``stop`` [1] is set when the launch is given up; ``status`` int64
    [M, C] and ``sweeps`` are filled.
    """
    n_chains = alpha.shape[1]
    scratch = new_scratch(problem.points.shape[1])
    clusters = new_clusters(0, scratch.tile.shape[0], 0)
    for item in range(begin, end):
        m, c = item // n_chains, item % n_chains
        clusters, status[m, c] = sweep_chain(m, c, problem, labels, alpha[m, c], stop, clusters, scratch, sweeps)
