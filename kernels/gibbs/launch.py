"""Launches of the sweep kernel until all chains are done."""

from __future__ import annotations

import torch
from fastdens.kernels.gibbs.kernel import blocks, gibbs_sweep_kernel
from fastdens.kernels.gibbs.normalisers import log_normalisers
from fastdens.kernels.gibbs.problem import GibbsSweeps, SweepProblem, new_sweeps, raise_singular
from fastdens.kernels.gibbs.scan_order import scan_order
from fastdens.kernels.gibbs.statistics import add_slots, fit_statistics, select_chains, slots_for
from fastdens.kernels.gibbs.status import DONE, NEEDS_MOVES, NEEDS_REFIT, NEEDS_SLOTS, SINGULAR
from torch import Tensor


def compact_labels(labels: Tensor, problem: SweepProblem) -> Tensor:
    """Labels [C, N] renumbered 0, 1, ... within every chain and model, in the order of their values."""
    model = problem.layout.rows.model
    compact = torch.empty_like(labels)
    n_labels = int(labels.max()) + 1 if labels.numel() else 1
    for c, own in enumerate(labels):
        used = torch.zeros(problem.layout.n_models, n_labels, dtype=torch.int64, device=labels.device)
        used[model, own.long()] = 1
        compact[c] = (used.cumsum(1) - 1)[model, own.long()].to(labels.dtype)
    return compact


def scan_orders(problem: SweepProblem) -> Tensor:
    """The order of updates of every chain in every sweep, int32 [W, C, N]."""
    n_chains = problem.keys.shape[1]
    order = torch.empty(
        problem.n_sweeps, n_chains, len(problem.points), dtype=torch.int32, device=problem.points.device
    )
    for t in range(problem.n_sweeps):
        for c in range(n_chains):
            order[t, c] = scan_order(problem.layout, problem.keys[:, c], problem.first_sweep + t)
    return order


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
        Slots of every chain at the start, a power of two; by default some more than there are labels.

    Raises
    ------
    SingularScatterError
        If rounding leaves the scale matrix of a cluster without a Cholesky factor.
    """
    points, layout, device = problem.points, problem.layout, problem.points.device
    n_rows, n_features = points.shape
    n_models, n_chains = alpha.shape
    model = layout.rows.model
    centred = points.double() - problem.prior_mean[model]
    prior_log_det = problem.prior_scale.log().sum(1)
    prior_mahalanobis_sq = (centred.square() / problem.prior_scale[model]).sum(1)
    normalisers = log_normalisers(int(layout.sizes.max()), n_features, problem.kappa0, problem.nu0)
    kappa_ratio = problem.kappa0 / (problem.kappa0 + 1)
    prior_log_prob = float(normalisers.predictive[0]) - 0.5 * (
        prior_log_det[model] + (problem.nu0 + 1) * torch.log1p(kappa_ratio * prior_mahalanobis_sq)
    )
    predictive_norm, marginal_norm = (norm.to(device) for norm in normalisers)
    constants = torch.tensor([problem.kappa0, problem.nu0, *problem.alpha_prior], dtype=torch.float64, device=device)
    order = scan_orders(problem)
    labels = compact_labels(labels, problem)
    alpha = alpha.clone()
    has_moves = bool(problem.split_merge.any())
    progress = torch.zeros(n_models, n_chains, 2, dtype=torch.int64, device=device)
    status = torch.zeros(n_models, n_chains, dtype=torch.int32, device=device)
    sweeps = new_sweeps(problem)
    statistics = fit_statistics(problem, centred, labels, n_slots or slots_for(labels))
    raise_singular(~statistics.log_det.isfinite().all(1).reshape(n_models, n_chains))
    unfinished = [(statistics, False)]
    while unfinished:
        statistics, refit = unfinished.pop()
        n_launched = len(statistics.chain)
        makes_moves = has_moves and not refit
        sizes = blocks(n_features, refit, makes_moves)
        gibbs_sweep_kernel[(n_launched,)](
            statistics.chain,
            centred,
            layout.ranges,
            order,
            problem.inverse_temperature,
            problem.split_merge if has_moves else None,
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
            torch.empty(n_launched, n_features + 3, n_features, dtype=torch.float64, device=device),
            *(move_memory(n_launched, n_features, labels) if makes_moves else [None] * 4),
            progress,
            status,
            *sweeps,
            constants,
            n_rows,
            n_features,
            n_chains,
            problem.first_sweep,
            problem.n_sweeps,
            problem.thin,
            SLOTS=statistics.n_slots,
            REFIT=refit,
            MOVES=makes_moves,
            BLOCK_N=sizes.block_n,
            BLOCK_D=sizes.block_d,
            NUM_D_BLOCKS=sizes.num_d_blocks,
            num_warps=sizes.num_warps,
            maxnreg=sizes.max_registers,
        )
        if bool((status == DONE.value).all()):
            break
        launched = status.flatten()[statistics.chain]
        raise_singular(status == SINGULAR.value)
        for reason in (NEEDS_SLOTS.value, NEEDS_REFIT.value, NEEDS_MOVES.value):
            stopped = (launched == reason).nonzero()[:, 0]
            if len(stopped):
                own = select_chains(statistics, stopped, problem)
                if reason == NEEDS_SLOTS.value:
                    unfinished.append((add_slots(own), refit))
                else:
                    unfinished.append((own, reason == NEEDS_REFIT.value))
    return sweeps
