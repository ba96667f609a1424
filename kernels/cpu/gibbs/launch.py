"""Chains on the threads of a CPU."""

from __future__ import annotations

import numpy as np
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu.gibbs import kernel
from fastdens.kernels.gibbs.normalisers import log_normalisers
from fastdens.kernels.gibbs.problem import GibbsSweeps, SweepProblem, new_sweeps, raise_singular
from torch import Tensor, from_numpy


def sweep_chains(problem: SweepProblem, labels: Tensor, alpha: Tensor) -> GibbsSweeps:
    """All sweeps of all chains; the log-joint lacks the factors of alpha.

    Parameters
    ----------
    problem : SweepProblem
    labels : Tensor
        int32 [C, N].
    alpha : Tensor
        float64 [M, C].

    Raises
    ------
    SingularScatterError
        If rounding leaves the scale matrix of a cluster without a Cholesky factor.
    """
    alpha_shape, alpha_rate = problem.alpha_prior
    normalisers = log_normalisers(int(problem.layout.sizes.max()), problem.points.shape[1], problem.kappa0, problem.nu0)
    arrays = kernel.ProblemArrays(
        problem.points.contiguous().numpy(),
        problem.layout.ranges.numpy(),
        problem.keys.numpy(),
        problem.prior_mean.numpy(),
        problem.prior_scale.numpy(),
        normalisers.predictive.numpy(),
        normalisers.marginal.numpy(),
        float(problem.kappa0),
        float(problem.nu0),
        float(alpha_shape),
        float(alpha_rate),
        problem.first_sweep,
        problem.n_sweeps,
        problem.thin,
        problem.inverse_temperature.numpy(),
        problem.split_merge.numpy(),
    )
    sweeps = new_sweeps(problem)
    status = np.full(alpha.shape, kernel.RUNNING)
    stop = np.zeros(1, np.int64)
    filled = kernel.SweepArrays(*(field.numpy() for field in sweeps))
    try:
        parallel_for(kernel.sweep_chains, alpha.numel(), arrays, labels.numpy(), alpha.numpy(), stop, status, filled)
    except BaseException:
        # Ctrl-C reaches this thread alone: the others end after the sweep they are in.
        stop[0] = 1
        raise
    raise_singular(from_numpy(status == kernel.SINGULAR))
    return sweeps
