"""The problem that sweeps are given and the draws that they return, the same for every backend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.arguments import real
from fastdens.kernels.layout import Layout
from fastdens.kernels.operation import check_points
from fastdens.kernels.surroundings import is_differentiated
from torch import Tensor


class SweepProblem(NamedTuple):
    """What does not change while the chains of a launch run: points, prior, random streams and numbers of sweeps.

    Attributes
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    layout : Layout
        Rows of the M models, one model after the other.
    keys : Tensor
        int64 [M, C], the random stream of each chain.
    prior_mean, prior_scale : Tensor
        float64 [M, D], m0 and the diagonal of S0 of the normal-inverse-Wishart prior.
    kappa0, nu0 : float
        Of the same prior.
    alpha_prior : (float, float)
        Shape and rate of the gamma prior of alpha; a shape of zero keeps alpha as it is.
    first_sweep : int
        Number of the first sweep in the random streams.
    n_sweeps, thin : int
        Sweeps W of the launch, and the distance between kept labels, which divides them.
    inverse_temperature : Tensor
        float64 [M, W], over 0 and at most 1: the power of the posterior that each sweep samples from.
    split_merge : Tensor
        int32 [M, W], split-merge moves after each sweep.
    """

    points: Tensor
    layout: Layout
    keys: Tensor
    prior_mean: Tensor
    prior_scale: Tensor
    kappa0: float
    nu0: float
    alpha_prior: tuple[float, float]
    first_sweep: int
    n_sweeps: int
    thin: int
    inverse_temperature: Tensor
    split_merge: Tensor


class GibbsSweeps(NamedTuple):
    """Draws of W sweeps of C chains of M models.

    Attributes
    ----------
    labels : Tensor
        int32 [W / thin, C, N] after every thin-th sweep, 0 to K - 1 within each model.
    alpha : Tensor
        float64 [M, C, W], concentration after every sweep.
    n_components : Tensor
        int32 [M, C, W], number of clusters K after every sweep.
    log_joint : Tensor
        float64 [M, C, W], log p(points, labels, alpha) after every sweep, or log p(points, labels | alpha) where alpha
        is kept.
    split_merge : Tensor
        int32 [M, C, 4]: splits that were proposed, splits that were accepted, and merges likewise.
    """

    labels: Tensor
    alpha: Tensor
    n_components: Tensor
    log_joint: Tensor
    split_merge: Tensor


def new_sweeps(problem: SweepProblem) -> GibbsSweeps:
    """Memory for the draws of a problem, to be filled by a backend."""
    device = problem.points.device
    n_sweeps = problem.n_sweeps
    n_models, n_chains = problem.keys.shape
    return GibbsSweeps(
        torch.zeros(n_sweeps // problem.thin, n_chains, len(problem.points), dtype=torch.int32, device=device),
        torch.empty(n_models, n_chains, n_sweeps, dtype=torch.float64, device=device),
        torch.empty(n_models, n_chains, n_sweeps, dtype=torch.int32, device=device),
        torch.empty(n_models, n_chains, n_sweeps, dtype=torch.float64, device=device),
        torch.zeros(n_models, n_chains, 4, dtype=torch.int32, device=device),
    )


def check_problem(problem: SweepProblem, labels: Tensor, alpha: Tensor) -> None:
    """Check a problem and the state that its chains start from.

    Raises
    ------
    TypeError
        If a dtype is wrong.
    ValueError
        If a shape, a device or a value is wrong.
    """
    points, layout = problem.points, problem.layout
    check_points(points)
    if problem.prior_mean.ndim != 2 or alpha.ndim != 2 or 0 in (*problem.prior_mean.shape, *alpha.shape):
        raise ValueError(
            f"prior_mean has shape {tuple(problem.prior_mean.shape)} and alpha {tuple(alpha.shape)}, but they must be "
            "[M, D] and [M, C], none of them zero."
        )
    if problem.n_sweeps < 1 or problem.thin < 1 or problem.n_sweeps % problem.thin:
        raise ValueError(f"n_sweeps is {problem.n_sweeps}, but it must be a multiple of thin, {problem.thin}.")
    n_models, n_features = problem.prior_mean.shape
    n_chains = alpha.shape[-1]
    wanted = {
        "points": (points, (len(points), n_features), (torch.float32, torch.float64)),
        "the layout": (layout.ranges, (n_models, 2), (torch.int64,)),
        "labels": (labels, (n_chains, len(points)), (torch.int16, torch.int32, torch.int64)),
        "alpha": (alpha, (n_models, n_chains), (torch.float64,)),
        "keys": (problem.keys, (n_models, n_chains), (torch.int64,)),
        "prior_mean": (problem.prior_mean, (n_models, n_features), (torch.float64,)),
        "prior_scale": (problem.prior_scale, (n_models, n_features), (torch.float64,)),
        "inverse_temperature": (problem.inverse_temperature, (n_models, problem.n_sweeps), (torch.float64,)),
        "split_merge": (problem.split_merge, (n_models, problem.n_sweeps), (torch.int32,)),
    }
    for name, (tensor, shape, dtypes) in wanted.items():
        if tensor.dtype not in dtypes:
            raise TypeError(f"{name} is {tensor.dtype}, but must be {' or '.join(map(str, dtypes))}.")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but must have {shape}.")
        if tensor.device != points.device:
            raise ValueError(f"{name} is on {tensor.device} and points are on {points.device}: move one of them.")
        if is_differentiated(tensor):
            raise NotImplementedError(f"{name} requires a gradient, but chains have none: pass {name}.detach().")
    prior = problem.alpha_prior
    if not isinstance(prior, tuple) or len(prior) != 2 or not all(real("alpha_prior", part) >= 0 for part in prior):
        raise ValueError(f"alpha_prior is {prior}, but it must be the shape and the rate of a gamma.")
    if layout.span != slice(0, len(points)):
        raise ValueError("the rows of the models leave out some points or overlap: pass offsets of sorted points.")
    beta = problem.inverse_temperature
    lowest = {
        "alpha must be positive": alpha,
        "prior_scale must be positive": problem.prior_scale,
        "keys must be at least 0": problem.keys,
        "labels must be at least 0": labels,
        "split_merge must be at least 0": problem.split_merge,
        "inverse_temperature must be over 0 and at most 1": torch.where(beta <= 1, beta, -1.0),
    }
    # The host waits for the device once for all of them; the lowest of values with a NaN is NaN.
    fewest, *minima = torch.stack([values.min().double() for values in (layout.sizes, *lowest.values())]).tolist()
    if fewest < 1:
        raise ValueError(f"model {int((layout.sizes == 0).nonzero()[0])} has no points: leave it out.")
    for message, minimum in zip(lowest, minima, strict=True):
        if not (minimum > 0 or (minimum == 0 and message.endswith("at least 0"))):
            raise ValueError(f"{message} everywhere.")
    if not (problem.kappa0 > 0 and problem.nu0 > n_features - 1):
        raise ValueError(
            f"kappa0 is {problem.kappa0} and nu0 is {problem.nu0}, but they must be over 0 and over D - 1 = "
            f"{n_features - 1}."
        )


class SingularScatterError(ArithmeticError, ValueError):
    """A scale matrix that rounding has left not positive definite."""


def raise_singular(failed: Tensor) -> None:
    """Raise where a chain of a model met a scale matrix without a Cholesky factor; ``failed`` is bool [M, C].

    Raises
    ------
    SingularScatterError
        If any did.
    """
    if bool(failed.any()):
        m, c = failed.nonzero()[0].tolist()
        raise SingularScatterError(
            f"the scale matrix of a cluster of model {m}, chain {c}, is not positive definite in float64: prior_scale "
            "is too small beside the spread of the points."
        )
