"""Collapsed Gibbs sweeps of Dirichlet-process mixtures of Gaussians (Neal 2000, algorithm 3).

A turn takes point i out of its cluster, weighs cluster k by ``n_k t_k(x_i)`` and a new one by ``alpha t_0(x_i)``,
draws, and puts the point where the draw says. t_k is the Student-t predictive of a normal-inverse-Wishart posterior
(Murphy 2007, section 8): with ``q = (x - m)' S^-1 (x - m)``,

``log n t(x) = c(n) - 1/2 log det S - (nu + 1) / 2 log(1 + kappa / (kappa + 1) q)``,

c(n) depending on the count alone. Leaving x out of its own cluster needs no other S: with
``r = 1 - kappa / (kappa - 1) q`` it is ``c(n - 1) - 1/2 log det S + (nu - 1) / 2 log r``, all of the cluster with x.
After each sweep alpha is drawn anew (Escobar & West 1995, section 6).

On a GPU a program is one chain of one model and does all sweeps of a launch. Inverse scatters and the forms q of all
points under all clusters lie in device memory; a point that stays changes nothing, one that moves costs two rank-one
updates of an inverse and one dot product for each other point.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from fastdens.kernels import reference
from fastdens.kernels.counter_random import hashed_bits
from fastdens.kernels.counter_random_triton import stream_of, uniform
from fastdens.kernels.gaussian_pieces import config, quadratic_form, tiles
from fastdens.kernels.layout import rows_of
from fastdens.kernels.niw_posterior import niw_posterior
from fastdens.kernels.operation import resolve_backend, row_ranges
from fastdens.kernels.optional import tl, triton
from torch import Tensor

_IMPRECISE, _TAKEN = 2, 3
_MIN_SLOTS = 16


class GibbsSweeps(NamedTuple):
    """What W sweeps of C chains of M models leave.

    ``labels`` int32 [W / thin, C, N] after every thin-th sweep, 0 to K - 1; after every sweep ``alpha`` float64
    [M, C, W], ``n_components`` int32 [M, C, W], and ``log_joint`` float64 [M, C, W], the logarithm of
    p(points, labels, alpha), or of p(points, labels | alpha) where alpha is kept.
    """

    labels: Tensor
    alpha: Tensor
    n_components: Tensor
    log_joint: Tensor


class LogNormalisers(NamedTuple):
    """Constants of a cluster of n = 0, ..., N points, float64 [N + 1]: of its predictive density times its count (of
    n = 0 without a count), and of its marginal likelihood times Gamma(n), its factor in p(labels | alpha).
    """

    predictive: Tensor
    marginal: Tensor


def log_normalisers(n_max: int, n_features: int, kappa0: float, nu0: float) -> LogNormalisers:
    """What in predictive densities and marginal likelihoods depends on the count alone (Murphy 2007, section 8)."""
    d = n_features
    n = torch.arange(n_max + 1, dtype=torch.float64)
    kappa, nu = kappa0 + n, nu0 + n
    predictive = torch.lgamma((nu + 1) / 2) - torch.lgamma((nu - d + 1) / 2)
    predictive -= 0.5 * d * (((kappa + 1) / kappa).log() + math.log(math.pi))
    predictive[1:] += n[1:].log()
    marginal = torch.special.multigammaln(nu / 2, d) - torch.special.multigammaln(nu[0] / 2, d)
    marginal += 0.5 * d * (math.log(kappa0) - kappa.log() - n * math.log(math.pi))
    marginal[1:] += torch.lgamma(n[1:])
    return LogNormalisers(predictive, marginal)


def scan_order(ranges: Tensor, keys: Tensor, sweep: int) -> Tensor:
    """Rows in the order of their turns in one sweep, int64 [n], model after model: ascending 40 random bits.

    Parameters
    ----------
    ranges : Tensor
        int64 [M, 2].
    keys : Tensor
        int64 [M], the stream of each model.
    sweep : int
    """
    model, position = rows_of(ranges)
    bits = hashed_bits(keys[model], 4 * sweep, position) >> 13
    return (ranges[model, 0] + position)[torch.argsort((model << 40) | bits, stable=True)]


@triton.jit
def _gamma(stream, counter, shape):
    """A gamma number of rate one (Marsaglia & Tsang 2000)."""
    d = tl.where(shape >= 1.0, shape, shape + 1.0) - 1.0 / 3.0
    c = 1.0 / tl.sqrt(9.0 * d)
    value = d
    accepted = shape < 0.0
    trial = counter
    while not accepted:
        radius = tl.sqrt(-2.0 * tl.log(uniform(stream, trial)))
        normal = radius * tl.cos(6.283185307179586 * uniform(stream, trial + 1))
        root = 1.0 + c * normal
        v = root * root * root
        log_u = tl.log(uniform(stream, trial + 2))
        bound = 0.5 * normal * normal + d - d * v + d * tl.log(tl.where(root > 0.0, v, 1.0))
        accepted = (root > 0.0) & (log_u < bound)
        value = d * v
        trial += 3
    boost = tl.exp(tl.log(uniform(stream, counter + 2147483648)) / shape)
    return tl.where(shape >= 1.0, value, value * boost)


@triton.jit
def _resample_concentration(stream, alpha, n_points, n_clusters, shape, rate):
    """Escobar & West (1995), section 6."""
    n = n_points.to(tl.float64)
    k = n_clusters.to(tl.float64)
    # Counters of the three gamma numbers lie 2^32 apart.
    first_counter = n_points.to(tl.int64) * 0 + 4294967296
    first = _gamma(stream, first_counter, alpha + 1.0)
    second = _gamma(stream, first_counter * 2, n)
    log_eta = tl.log(first) - tl.log(first + second)
    odds = (shape + k - 1.0) / (n * (rate - log_eta))
    zero = first_counter * 0
    drawn_shape = tl.where(uniform(stream, zero) * (1.0 + odds) < odds, shape + k, shape + k - 1.0)
    drawn = _gamma(stream, first_counter * 3, drawn_shape)
    return tl.maximum(drawn / (rate - log_eta), 1e-300)


@triton.jit
def _move_point(
    sign,
    row,
    start,
    stop,
    points,
    count,
    mean,
    inverse,
    log_det,
    form,
    w,
    n_features,
    n_slots,
    kappa0,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Put a point into the cluster (sign 1) or take it out (-1), by Sherman & Morrison; pointers are the cluster's own.

    With d = x - m and w = S^-1 d: S changes by ``sign kappa / (kappa + sign) d d'``, m by ``sign / (kappa + sign) d``.
    """
    kappa = kappa0 + tl.load(count)
    g = kappa * 0.0
    offset = g
    for j in range(NUM_D_BLOCKS):
        columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
        inside = columns < n_features
        total = tl.zeros([BLOCK_D], tl.float64)
        for i in range(NUM_D_BLOCKS):
            rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
            mask = rows < n_features
            delta = tl.load(points + row * n_features + rows, mask=mask, other=0.0)
            delta -= tl.load(mean + rows, mask=mask, other=0.0)
            p = tl.load(
                inverse + rows[:, None] * n_features + columns[None, :], mask=mask[:, None] & inside[None, :], other=0.0
            )
            total += tl.sum(p * delta[:, None], 0)
        centre = tl.load(mean + columns, mask=inside, other=0.0)
        x = tl.load(points + row * n_features + columns, mask=inside, other=0.0)
        g += tl.sum((x - centre) * total, 0)
        offset += tl.sum(centre * total, 0)
        tl.store(w + columns, total, mask=inside)
    # Here and below: nobody writes what others have yet to read, nobody reads what others have yet to write.
    tl.debug_barrier()
    step = -sign / (kappa + sign)
    scale = kappa / (kappa + sign)
    ratio = 1.0 + sign * scale * g
    coefficient = -sign * scale / ratio
    for i in range(NUM_D_BLOCKS):
        rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
        mask = rows < n_features
        w_rows = tl.load(w + rows, mask=mask, other=0.0)
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            inside = columns < n_features
            w_columns = tl.load(w + columns, mask=inside, other=0.0)
            place = inverse + rows[:, None] * n_features + columns[None, :]
            p = tl.load(place, mask=mask[:, None] & inside[None, :], other=0.0)
            p += coefficient * w_rows[:, None] * w_columns[None, :]
            tl.store(place, p, mask=mask[:, None] & inside[None, :])
        centre = tl.load(mean + rows, mask=mask, other=0.0)
        x = tl.load(points + row * n_features + rows, mask=mask, other=0.0)
        tl.debug_barrier()
        tl.store(mean + rows, centre - step * (x - centre), mask=mask)
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        in_model = others < stop
        shift = tl.zeros([BLOCK_N], tl.float64) - offset
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            inside = columns < n_features
            x = tl.load(
                points + others[:, None] * n_features + columns[None, :],
                mask=in_model[:, None] & inside[None, :],
                other=0.0,
            )
            shift += tl.sum(x * tl.load(w + columns, mask=inside, other=0.0)[None, :], 1)
        moved = shift + step * g
        q = tl.load(form + others * n_slots, mask=in_model, other=0.0)
        q += 2.0 * step * shift + step * step * g + coefficient * moved * moved
        tl.store(form + others * n_slots, q, mask=in_model)
    determinant = tl.load(log_det) + tl.log(ratio)
    tl.debug_barrier()
    tl.store(log_det, determinant)
    tl.store(count, (kappa - kappa0 + sign + 0.5).to(tl.int64))
    tl.debug_barrier()


@triton.jit
def _gibbs_sweep_kernel(
    points,
    ranges,
    order,
    labels,
    keys,
    alpha,
    prior_form,
    prior_log_prob,
    prior_scale,
    prior_log_det,
    predictive_norm,
    marginal_norm,
    count,
    mean,
    inverse,
    log_det,
    form,
    w,
    progress,
    status,
    out_labels,
    trace_alpha,
    trace_components,
    trace_log_joint,
    constants,
    n_rows,
    n_features,
    n_chains,
    first_sweep,
    n_sweeps,
    thin,
    SLOTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """One program: all sweeps of a launch of one chain of one model, from the turn where it stands.

    It stops before a turn that needs more slots, or whose point cannot be left out of its cluster precisely; with
    status 3 its first turn has been taken elsewhere. ``constants`` are kappa0, nu0 and the shape and rate of alpha's
    prior: as arguments they would come as float32.
    """
    item = tl.program_id(0).to(tl.int64)
    kappa0, nu0 = tl.load(constants), tl.load(constants + 1)
    shape, rate = tl.load(constants + 2), tl.load(constants + 3)
    m, c = item // n_chains, item % n_chains
    width = tl.cast(n_features, tl.int64)
    start, stop = tl.load(ranges + 2 * m), tl.load(ranges + 2 * m + 1)
    n_points = stop - start
    key = tl.load(keys + item)
    own_alpha = tl.load(alpha + item)
    own_prior_log_det = tl.load(prior_log_det + m)
    slots = tl.arange(0, SLOTS)
    own_count, own_log_det = count + item * SLOTS, log_det + item * SLOTS
    own_mean, own_inverse = mean + item * SLOTS * width, inverse + item * SLOTS * width * width
    own_form, own_labels, own_w = form + c * n_rows * SLOTS, labels + c * n_rows, w + item * width
    step = tl.load(progress + item)
    state = tl.load(status + item)
    taken = state == 3
    state = tl.where(taken, 0, state)
    while (step < n_points * n_sweeps) & (state == 0):
        sweep = step // n_points
        position = step % n_points
        draw = 4 * (first_sweep + sweep)
        row = tl.load(order + (sweep * n_chains + c) * n_rows + start + position).to(tl.int64)
        old = tl.load(own_labels + row).to(tl.int64)
        n_old = tl.load(own_count + old)
        q_old = tl.load(own_form + row * SLOTS + old)
        n = tl.load(own_count + slots)
        q = tl.load(own_form + row * SLOTS + slots)
        determinant = tl.load(own_log_det + slots)
        kappa = kappa0 + n
        weight = tl.load(predictive_norm + n) - 0.5 * (
            determinant + (nu0 + n + 1.0) * tl.log(1.0 + kappa / (kappa + 1.0) * tl.where(n > 0, q, 0.0))
        )
        # The point is left out of its own cluster in closed form.
        kappa_old = kappa0 + n_old
        alone = n_old == 1
        ratio = 1.0 - tl.where(alone, 0.0, kappa_old / (kappa_old - 1.0) * q_old)
        state = tl.where((ratio > 1e-6) | taken, 0, 2)
        log_ratio = tl.log(tl.where(ratio > 1e-6, ratio, 1.0))
        own_weight = tl.load(predictive_norm + n_old - 1) - 0.5 * (
            tl.load(own_log_det + old) - (nu0 + n_old - 1.0) * log_ratio
        )
        weight = tl.where(slots == old, tl.where(alone, float("-inf"), own_weight), weight)
        weight = tl.where(n > 0, weight, float("-inf"))
        fresh = tl.log(own_alpha) + tl.load(prior_log_prob + row)
        top = tl.maximum(tl.max(weight, 0), fresh)
        # Next to the largest weight, what is smaller than this is lost in rounding.
        share = tl.where(weight - top > -45.0, tl.exp(weight - top), 0.0)
        fresh_share = tl.where(fresh - top > -45.0, tl.exp(fresh - top), 0.0)
        u = uniform(stream_of(key, draw + 1), row - start)
        target = u * (tl.sum(share, 0) + fresh_share)
        new = tl.min(tl.where(target < tl.cumsum(share, 0), slots, SLOTS), 0)
        founds = new == SLOTS
        free = tl.min(tl.where(n == 0, slots, SLOTS), 0)
        stays = (new == old) | (founds & alone) | taken
        taken = state == 3
        new = tl.where(founds, free, new).to(tl.int64)
        state = tl.where((state == 0) & (stays == 0) & (new == SLOTS), 1, state)
        # All have read the state of the clusters before anyone changes it.
        tl.debug_barrier()
        if (stays == 0) & (state == 0):
            if founds:
                for i in range(NUM_D_BLOCKS):
                    rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
                    mask = rows < n_features
                    matmul_precision = 1.0 / tl.load(prior_scale + m * width + rows, mask=mask, other=1.0)
                    tl.store(own_mean + new * width + rows, matmul_precision * 0.0, mask=mask)
                    for j in range(NUM_D_BLOCKS):
                        columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
                        place = own_inverse + (new * width + rows[:, None]) * width + columns[None, :]
                        diagonal = tl.where(rows[:, None] == columns[None, :], matmul_precision[:, None], 0.0)
                        tl.store(place, diagonal, mask=mask[:, None] & (columns < n_features)[None, :])
                for first in range(start, stop, BLOCK_N):
                    others = first + tl.arange(0, BLOCK_N)
                    q0 = tl.load(prior_form + others, mask=others < stop, other=0.0)
                    tl.store(own_form + others * SLOTS + new, q0, mask=others < stop)
                tl.store(own_log_det + new, own_prior_log_det)
            tl.store(own_labels + row, new.to(tl.int32))
            if alone:
                tl.store(own_count + old, n_old * 0)
            tl.debug_barrier()
            if alone == 0:
                _move_point(
                    -1.0,
                    row,
                    start,
                    stop,
                    points,
                    own_count + old,
                    own_mean + old * width,
                    own_inverse + old * width * width,
                    own_log_det + old,
                    own_form + old,
                    own_w,
                    width,
                    SLOTS,
                    kappa0,
                    BLOCK_N,
                    BLOCK_D,
                    NUM_D_BLOCKS,
                )
            _move_point(
                1.0,
                row,
                start,
                stop,
                points,
                own_count + new,
                own_mean + new * width,
                own_inverse + new * width * width,
                own_log_det + new,
                own_form + new,
                own_w,
                width,
                SLOTS,
                kappa0,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
        if (position == n_points - 1) & (state == 0):
            n = tl.load(own_count + slots)
            used = n > 0
            n_clusters = tl.sum(used.to(tl.int32), 0)
            k = n_clusters.to(tl.float64)
            terms = tl.load(marginal_norm + n) - 0.5 * (nu0 + n) * tl.load(own_log_det + slots)
            log_joint = tl.sum(tl.where(used, terms, 0.0), 0) + 0.5 * k * nu0 * own_prior_log_det
            if shape > 0.0:
                stream = stream_of(key, draw + 2)
                own_alpha = _resample_concentration(stream, own_alpha, n_points, n_clusters, shape, rate)
            tl.store(trace_alpha + item * n_sweeps + sweep, own_alpha)
            tl.store(trace_components + item * n_sweeps + sweep, n_clusters)
            tl.store(trace_log_joint + item * n_sweeps + sweep, log_joint)
            if (sweep + 1) % thin == 0:
                kept = out_labels + ((sweep + 1) // thin - 1) * n_chains * n_rows + c * n_rows
                for first in range(start, stop, BLOCK_N):
                    others = first + tl.arange(0, BLOCK_N)
                    label = tl.load(own_labels + others, mask=others < stop, other=0)
                    # The rank of a slot among those in use.
                    below = used[None, :] & (slots[None, :] < label[:, None])
                    tl.store(kept + others, tl.sum(below.to(tl.int32), 1), mask=others < stop)
        step = tl.where(state == 0, step + 1, step)
    tl.store(progress + item, step)
    tl.store(status + item, state)
    tl.store(alpha + item, own_alpha)


@triton.jit
def _forms_kernel(
    points,
    tile_model,
    tile_start,
    tile_stop,
    mean,
    factors,
    form,
    n_rows,
    n_features,
    n_chains,
    n_slots,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """One program: the forms of a tile of a model's points under all slots of one chain."""
    tile, c = tl.program_id(0), tl.program_id(1).to(tl.int64)
    m = tl.load(tile_model + tile)
    rows = tl.load(tile_start + tile) + tl.arange(0, BLOCK_N)
    mask = rows < tl.load(tile_stop + tile)
    width = tl.cast(n_features, tl.int64)
    for k in range(n_slots):
        g = (m * n_chains + c) * n_slots + k
        q = quadratic_form(
            points,
            rows,
            mask,
            mean + g * width,
            factors + g * width * width,
            width,
            True,
            BLOCK_N,
            BLOCK_D,
            NUM_D_BLOCKS,
            "ieee",
        )
        tl.store(form + (c * n_rows + rows) * n_slots + k, q, mask=mask)


class Blocks(NamedTuple):
    """Block sizes of a launch of the sweep kernel."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int


def blocks(n_features: int) -> Blocks:
    """Block sizes by D: tiles of float64 that stay in registers, more threads where there are many of them."""
    block_d = min(32, max(16, 1 << (n_features - 1).bit_length()))
    return Blocks(64, block_d, -(-n_features // block_d), 4 if n_features <= 64 else 8)


class _Chains(NamedTuple):
    """Clusters of every chain on the device, from the points."""

    counts: Tensor
    mean: Tensor
    inverse: Tensor
    log_det: Tensor
    form: Tensor


def _chains_from_labels(
    centred: Tensor, ranges: Tensor, labels: Tensor, n_slots: int, prior_scale: Tensor, kappa0: float
) -> _Chains:
    n_features = prior_scale.shape[1]
    n_chains, n_rows = labels.shape
    origin = torch.zeros_like(prior_scale)
    parts = [
        niw_posterior(centred, ranges, own, n_slots, origin, prior_scale, kappa0, backend="triton") for own in labels
    ]
    count, mean, factors, log_det = (torch.stack(column, 1).contiguous() for column in zip(*parts, strict=True))
    form = torch.zeros(n_chains, n_rows, n_slots, dtype=torch.float64, device=centred.device)
    sizes = config(n_features, torch.float64)
    table = tiles(ranges, sizes.block_n)
    _forms_kernel[(len(table.model), n_chains)](
        centred,
        table.model,
        table.start,
        table.stop,
        mean,
        factors,
        form,
        n_rows,
        n_features,
        n_chains,
        n_slots,
        BLOCK_N=sizes.block_n,
        BLOCK_D=sizes.block_d,
        NUM_D_BLOCKS=sizes.num_d_blocks,
        num_warps=sizes.num_warps,
        num_stages=sizes.num_stages,
    )
    return _Chains(count, mean, factors @ factors.mT, log_det, form)


def _compact(labels: Tensor, model: Tensor, n_models: int) -> Tensor:
    """Labels [C, N] renumbered 0, 1, ... within every chain and model, in the order of their values."""
    out = torch.empty_like(labels)
    n_labels = int(labels.max()) + 1 if labels.numel() else 1
    for c, own in enumerate(labels):
        used = torch.zeros(n_models, n_labels, dtype=torch.int64, device=labels.device)
        used[model, own.long()] = 1
        out[c] = (used.cumsum(1) - 1)[model, own.long()].to(labels.dtype)
    return out


def _launch(
    points: Tensor,
    ranges: Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    norms: LogNormalisers,
    alpha_prior: tuple[float, float],
    first_sweep: int,
    n_sweeps: int,
    thin: int,
) -> GibbsSweeps:
    device = points.device
    n_rows, n_features = points.shape
    n_models, n_chains = alpha.shape
    model = rows_of(ranges).model
    centred = points.double() - prior_mean[model]
    prior_log_det = prior_scale.log().sum(1)
    prior_form = (centred.square() / prior_scale[model]).sum(1)
    prior_log_prob = float(norms.predictive[0]) - 0.5 * (
        prior_log_det[model] + (nu0 + 1) * torch.log1p(kappa0 / (kappa0 + 1) * prior_form)
    )
    order = torch.empty(n_sweeps, n_chains, n_rows, dtype=torch.int32, device=device)
    for t in range(n_sweeps):
        for c in range(n_chains):
            order[t, c] = scan_order(ranges, keys[:, c], first_sweep + t)
    labels = _compact(labels, model, n_models)
    alpha = alpha.clone()
    shape = (n_models, n_chains)
    progress = torch.zeros(shape, dtype=torch.int64, device=device)
    status = torch.zeros(shape, dtype=torch.int32, device=device)
    w = torch.empty(*shape, n_features, dtype=torch.float64, device=device)
    out = GibbsSweeps(
        torch.zeros(n_sweeps // thin, n_chains, n_rows, dtype=torch.int32, device=device),
        torch.empty(*shape, n_sweeps, dtype=torch.float64, device=device),
        torch.empty(*shape, n_sweeps, dtype=torch.int32, device=device),
        torch.empty(*shape, n_sweeps, dtype=torch.float64, device=device),
    )
    constants = torch.tensor([kappa0, nu0, *alpha_prior], dtype=torch.float64, device=device)
    tables = [norm.to(device) for norm in norms]
    config_ = blocks(n_features)
    while True:
        n_slots = max(_MIN_SLOTS, 1 << (int(labels.max()) + 8).bit_length())
        chains = _chains_from_labels(centred, ranges, labels, n_slots, prior_scale, kappa0)
        _gibbs_sweep_kernel[(n_models * n_chains,)](
            centred,
            ranges,
            order,
            labels,
            keys,
            alpha,
            prior_form,
            prior_log_prob,
            prior_scale,
            prior_log_det,
            *tables,
            chains.counts,
            chains.mean,
            chains.inverse,
            chains.log_det,
            chains.form,
            w,
            progress,
            status,
            out.labels,
            out.alpha,
            out.n_components,
            out.log_joint,
            constants,
            n_rows,
            n_features,
            n_chains,
            first_sweep,
            n_sweeps,
            thin,
            SLOTS=n_slots,
            BLOCK_N=config_.block_n,
            BLOCK_D=config_.block_d,
            NUM_D_BLOCKS=config_.num_d_blocks,
            num_warps=config_.num_warps,
        )
        if not bool((status > 0).any()):
            return out
        for m, c in torch.nonzero(status == _IMPRECISE).tolist():
            # A turn that closed forms would get wrong is taken from the points themselves.
            start, stop = ranges[m].tolist()
            sweep, position = divmod(int(progress[m, c]), stop - start)
            labels[c, start:stop] = reference.gibbs_turn(
                centred[start:stop],
                labels[c, start:stop],
                int(order[sweep, c, start + position]) - start,
                float(alpha[m, c]),
                prior_scale[m],
                kappa0,
                nu0,
                keys[m, c],
                first_sweep + sweep,
            )
        status = torch.where(status == _IMPRECISE, _TAKEN, 0).to(torch.int32)


def gibbs_sweep(
    points: Tensor,
    offsets: Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    *,
    kappa0: float,
    nu0: float,
    alpha_prior: tuple[float, float] | None = (1.0, 1.0),
    first_sweep: int = 0,
    n_sweeps: int = 1,
    thin: int = 1,
    backend: str = "auto",
) -> GibbsSweeps:
    """Sweeps of collapsed Gibbs sampling, of every chain of every model.

    The clusters' statistics are made from the points at the start, then updated; they live as long as the call.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite, sorted by model.
    offsets : Tensor
        int64 [M + 1], or row ranges [M, 2]; every row belongs to a model.
    labels : Tensor
        Integers [C, N], not negative: the cluster of each point within its model.
    alpha : Tensor
        float64 [M, C], concentration.
    keys : Tensor
        int64 [M, C], not negative: the random stream of each chain.
    prior_mean, prior_scale : Tensor
        float64 [M, D], m0 and the diagonal of S0 of the normal-inverse-Wishart prior.
    kappa0, nu0 : float
        Of the prior; nu0 is greater than D - 1.
    alpha_prior : (float, float) or None
        Shape and rate of the gamma prior of alpha, drawn anew after each sweep; None keeps alpha as it is.
    first_sweep : int
        Number of the first sweep in the random streams.
    n_sweeps, thin : int
        Sweeps, a multiple of ``thin``, the distance between kept labels.
    backend : {"auto", "triton", "cpu", "reference"}

    Returns
    -------
    GibbsSweeps

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes or options do not fit.

    References
    ----------
    Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. Escobar & West, Bayesian
    density estimation and inference using mixtures, JASA 90, 1995. Murphy, Conjugate Bayesian analysis of the Gaussian
    distribution, 2007.
    """
    chosen = resolve_backend(backend, points)
    n_models, n_features = prior_mean.shape
    ranges = row_ranges(offsets, n_models, len(points))
    _check(points, ranges, labels, alpha, keys, prior_mean, prior_scale, kappa0, nu0, n_sweeps, thin)
    prior = alpha_prior if alpha_prior is not None else (0.0, 0.0)
    shared = (alpha.contiguous(), keys.contiguous(), prior_mean.contiguous(), prior_scale.contiguous(), kappa0, nu0)
    labels = labels.to(torch.int32).contiguous()
    if chosen == "reference":
        return GibbsSweeps(*reference.gibbs_sweep(points, ranges, labels, *shared, prior, first_sweep, n_sweeps, thin))
    sizes = ranges[:, 1] - ranges[:, 0]
    norms = log_normalisers(int(sizes.max()), n_features, kappa0, nu0)
    if chosen == "triton":
        sweeps = _launch(points, ranges, labels, *shared, norms, prior, first_sweep, n_sweeps, thin)
    else:
        from fastdens.kernels.cpu.gibbs.gibbs_sweep import gibbs_sweep as on_cpu

        done = on_cpu(points.contiguous(), ranges, labels, *shared, *norms, prior, first_sweep, n_sweeps, thin)
        sweeps = GibbsSweeps(*done)
    # What the kernels return lacks the factors of alpha.
    sweeps.log_joint.add_(_log_alpha_terms(sweeps.alpha, sweeps.n_components, sizes[:, None, None], prior))
    return sweeps


def _log_alpha_terms(alpha: Tensor, n_components: Tensor, sizes: Tensor, prior: tuple[float, float]) -> Tensor:
    """What alpha contributes to p(labels | alpha) p(alpha) (Antoniak 1974); no prior of alpha where its shape is 0."""
    terms = n_components * alpha.log() + torch.lgamma(alpha) - torch.lgamma(alpha + sizes)
    shape, rate = prior
    if shape > 0:
        terms += shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * alpha.log() - rate * alpha
    return terms


def _check(
    points: Tensor,
    ranges: Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    n_sweeps: int,
    thin: int,
) -> None:
    n_models, n_features = prior_mean.shape
    n_chains = alpha.shape[-1]
    wanted = {
        "points": (points, (len(points), n_features), (torch.float32, torch.float64)),
        "labels": (labels, (n_chains, len(points)), (torch.int16, torch.int32, torch.int64)),
        "alpha": (alpha, (n_models, n_chains), (torch.float64,)),
        "keys": (keys, (n_models, n_chains), (torch.int64,)),
        "prior_mean": (prior_mean, (n_models, n_features), (torch.float64,)),
        "prior_scale": (prior_scale, (n_models, n_features), (torch.float64,)),
    }
    for name, (tensor, shape, dtypes) in wanted.items():
        if tensor.dtype not in dtypes:
            raise TypeError(f"{name} is {tensor.dtype}, but must be {' or '.join(map(str, dtypes))}.")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but must have {shape}.")
        if tensor.device != points.device:
            raise ValueError(f"{name} is on {tensor.device} and points are on {points.device}: move one of them.")
    sizes = ranges[:, 1] - ranges[:, 0]
    if int(sizes.sum()) != len(points) or not bool((ranges[1:, 0] == ranges[:-1, 1]).all()):
        raise ValueError("the rows of the models leave out some points or overlap: pass offsets of sorted points.")
    if not bool((sizes > 0).all()):
        raise ValueError(f"model {int((sizes == 0).nonzero()[0])} has no points: leave it out.")
    for name, tensor, positive in (("alpha", alpha, True), ("prior_scale", prior_scale, True), ("keys", keys, False)):
        if not bool((tensor > 0 if positive else tensor >= 0).all()):
            raise ValueError(f"{name} must be {'positive' if positive else 'at least 0'} everywhere.")
    if bool((labels < 0).any()):
        raise ValueError("labels must be at least 0 everywhere.")
    if not (kappa0 > 0 and nu0 > n_features - 1):
        raise ValueError(
            f"kappa0 is {kappa0} and nu0 is {nu0}, but they must be over 0 and over D - 1 = {n_features - 1}."
        )
    if n_sweeps < 1 or thin < 1 or n_sweeps % thin:
        raise ValueError(f"n_sweeps is {n_sweeps}, but it must be a multiple of thin, {thin}.")
