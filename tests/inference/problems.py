"""Small problems of chains that the tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fastdens.kernels.gibbs import GibbsSweeps
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import data_prior
from fastdens.inference.gibbs import ChainProblem, stream_keys
from fastdens.inference.schedule import Schedule
from fastdens.inference.starts import random_labels
from tests.problems import layout_of


def chain_problem(
    rng: np.random.Generator,
    schedule: Schedule,
    sizes: tuple[int, ...] = (15, 25),
    n_chains: int = 2,
    d: int = 2,
    split_merge: float = 0.0,
) -> ChainProblem:
    """Models of normal points, in chains of the given schedule."""
    points = torch.from_numpy(rng.normal(size=(sum(sizes), d)))
    layout = layout_of(torch.tensor([0, *sizes]).cumsum(0))
    prior = data_prior(points, layout)
    # A model of one point has no variance of its own.
    prior = prior._replace(scale_diagonal=prior.scale_diagonal.clamp_min(0.1))
    keys = stream_keys(points, layout, n_chains, int(rng.integers(2**31)))
    contrast = random_labels(keys, layout, 2) if schedule.n_search else None
    moves = torch.full((len(sizes),), split_merge, dtype=torch.float64)
    return ChainProblem(points, layout, prior, keys, moves, (1.0, 1.0), schedule, "cpu", contrast)


def sweeps_of(
    problem: ChainProblem, labels: Tensor, alpha: Tensor, first_sweep: int, n_sweeps: int, **options: Any
) -> GibbsSweeps:
    """Sweeps of the chains of a problem by the kernel itself."""
    prior = problem.prior
    return kernels.gibbs_sweep(
        problem.points,
        problem.layout,
        labels,
        alpha,
        problem.keys,
        prior.mean,
        prior.scale_diagonal,
        kappa0=prior.kappa,
        nu0=prior.nu,
        alpha_prior=problem.alpha_prior,
        first_sweep=first_sweep,
        n_sweeps=n_sweeps,
        backend="cpu",
        **options,
    )
