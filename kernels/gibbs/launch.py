"""Launches of the sweep kernel until all chains are done."""

from __future__ import annotations

import math

import torch
from fastdens.kernels.gibbs.kernel import blocks, gibbs_sweep_kernel
from fastdens.kernels.gibbs.normalisers import log_normalisers
from fastdens.kernels.gibbs.problem import GibbsSweeps, SweepProblem, new_sweeps, raise_singular
from fastdens.kernels.gibbs.scan_order import scan_orders
from fastdens.kernels.gibbs.statistics import add_slots, fit_statistics, slots_for
from fastdens.kernels.gibbs.status import NEEDS_MOVES, NEEDS_REFIT, NEEDS_SLOTS, RUNNING, SINGULAR
from torch import Tensor


def compact_labels(labels: Tensor, n_labels: int, problem: SweepProblem) -> tuple[Tensor, int]:
    """Labels [C, N] under ``n_labels`` renumbered 0, 1, ... within every chain and model, in the order of their values.

    Returns them with the largest number of clusters of a chain.
    """
    n_models, n_chains = problem.keys.shape
    chain = torch.arange(n_chains, device=labels.device)[:, None] * n_models + problem.layout.rows.model
    index = (chain * n_labels + labels).flatten()
    used = torch.zeros(n_chains * n_models * n_labels, dtype=torch.int32, device=labels.device)
    used.index_fill_(0, index, 1)
    number = used.view(-1, n_labels).cumsum(1, dtype=torch.int32)
    return (number.flatten()[index] - 1).view(labels.shape), int(number.max())


def move_memory(n_launched: int, n_features: int, labels: Tensor) -> list[Tensor]:
    """Working memory of the moves of a launch: rows and sides of points, counts and statistics of sides."""
    return [
        torch.empty_like(labels),
        torch.empty_like(labels),
        torch.empty(n_launched, 3, dtype=torch.int64, device=labels.device),
        torch.empty(n_launched, 3, n_features + 3, n_features, dtype=torch.float64, device=labels.device),
    ]


def sweep_chains(problem: SweepProblem, labels: Tensor, alpha: Tensor, n_slots: int | None = None) -> GibbsSweeps:
    """All sweeps of all chains on the device of the points; the log-joint lacks the factors of alpha.

    A chain for which no slot is free stops before that update or split. It goes on from there in twice as many slots,
    with the same statistics: the same chain as if it had had them from the start. A chain with a cluster that is to be
    fitted anew stops likewise, and goes on in the variant of the kernel that does so, until the next split-merge move.

    Parameters
    ----------
    problem : SweepProblem
    labels : Tensor
        int32 [C, N].
    alpha : Tensor
        float64 [M, C].
    n_slots : int, optional
        Slots of every chain at the start; by default some more than there are labels.

    Raises
    ------
    SingularScatterError
        If rounding leaves the scale matrix of a cluster without a Cholesky factor.
    """
    points, layout, device = problem.points, problem.layout, problem.points.device
    n_rows, n_features = points.shape
    n_models, n_chains = alpha.shape
    model = layout.rows.model
    # The host waits for the device here, for the number of clusters, and for the status of the chains.
    highest, n_max, most_moves = torch.stack([labels.max(), layout.sizes.max(), problem.split_merge.max()]).tolist()
    centred = points.double() - problem.prior_mean[model]
    prior_log_det = problem.prior_scale.log().sum(1)
    prior_mahalanobis_sq = (centred.square() / problem.prior_scale[model]).sum(1)
    predictive_norm, marginal_norm = log_normalisers(n_max, n_features, problem.kappa0, problem.nu0, device)
    kappa_ratio = problem.kappa0 / (problem.kappa0 + 1)
    log_spread = torch.log1p(kappa_ratio * prior_mahalanobis_sq)
    prior_log_prob = predictive_norm[0] - 0.5 * (prior_log_det[model] + (problem.nu0 + 1) * log_spread)
    constants = torch.tensor([problem.kappa0, problem.nu0, *problem.alpha_prior], dtype=torch.float64, device=device)
    order = scan_orders(layout, problem.keys, problem.first_sweep, problem.n_sweeps)
    labels, n_labels = compact_labels(labels, highest + 1, problem)
    alpha = alpha.clone()
    progress = torch.zeros(n_models, n_chains, 2, dtype=torch.int64, device=device)
    sweeps = new_sweeps(problem)
    statistics = fit_statistics(problem, centred, constants, labels, n_labels, n_slots or slots_for(n_labels))
    is_sound = (statistics.log_det.abs() < math.inf).all(1)
    status = torch.where(is_sound, RUNNING.value, SINGULAR.value).int().view(n_models, n_chains)
    unfinished = [(statistics, False)]
    while unfinished:
        statistics, refit = unfinished.pop()
        n_launched = len(statistics.chain)
        makes_moves = most_moves > 0 and not refit
        sizes = blocks(n_features, refit, makes_moves)
        gibbs_sweep_kernel[(n_launched,)](
            statistics.chain,
            statistics.place,
            centred,
            layout.ranges,
            order,
            problem.inverse_temperature,
            problem.split_merge,
            labels,
            problem.keys,
            alpha,
            prior_mahalanobis_sq,
            prior_log_prob,
            problem.prior_scale,
            prior_log_det,
            predictive_norm,
            marginal_norm,
            statistics.counts,
            statistics.mean,
            statistics.inverse,
            statistics.log_det,
            statistics.mahalanobis_sq,
            statistics.row_offset,
            torch.empty(n_launched, n_features + 4, n_features, dtype=torch.float64, device=device),
            *(move_memory(n_launched, n_features, labels) if makes_moves else [None] * 4),
            progress,
            status,
            *sweeps,
            constants,
            n_rows,
            n_features,
            n_chains,
            statistics.n_slots,
            problem.first_sweep,
            problem.n_sweeps,
            problem.thin,
            REFIT=refit,
            MOVES=makes_moves,
            TURNS=sizes.turns,
            BLOCK_S=sizes.block_s,
            BLOCK_N=sizes.block_n,
            BLOCK_D=sizes.block_d,
            NUM_D_BLOCKS=sizes.num_d_blocks,
            num_warps=sizes.num_warps,
            num_stages=sizes.num_stages,
            maxnreg=sizes.max_registers,
        )
        launched = status.view(-1)[statistics.chain].tolist()
        if SINGULAR.value in launched:
            raise_singular(status == SINGULAR.value)
        for reason in (NEEDS_SLOTS.value, NEEDS_REFIT.value, NEEDS_MOVES.value):
            if reason not in launched:
                continue
            stopped = [place for place, why in enumerate(launched) if why == reason]
            own = statistics.select(torch.tensor(stopped, device=device))
            status.view(-1)[own.chain] = RUNNING.value
            if reason == NEEDS_SLOTS.value:
                unfinished.append((add_slots(own, problem), refit))
            else:
                unfinished.append((own, reason == NEEDS_REFIT.value))
    return sweeps
