"""Collapsed Gibbs sampling in float64, one point at a time, written to be read (Neal 2000, algorithm 3)."""

from __future__ import annotations

import math

import torch
from fastdens.kernels.counter_random import hashed_bits, uniform_of_bits
from fastdens.kernels.gibbs.problem import GibbsSweeps, SweepProblem, new_sweeps
from fastdens.kernels.reference.niw import log_marginal, log_predictive
from fastdens.kernels.reference.split_merge import split_or_merge
from torch import Tensor


def _gamma(key: Tensor, draw: int, counter: int, shape: float) -> float:
    """A gamma number of rate one (Marsaglia & Tsang 2000) from counters ``counter``, ``counter + 1``, ..."""

    def uniform(offset: int) -> float:
        return float(uniform_of_bits(hashed_bits(key, draw, torch.tensor(counter + offset, device=key.device))))

    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    trial = 0
    while True:
        radius, angle = math.sqrt(-2 * math.log(uniform(trial))), 2 * math.pi * uniform(trial + 1)
        normal = radius * math.cos(angle)
        v = (1 + c * normal) ** 3
        if v > 0 and math.log(uniform(trial + 2)) < 0.5 * normal**2 + d - d * v + d * math.log(v):
            break
        trial += 3
    return d * v if shape >= 1 else d * v * uniform(1 << 31) ** (1 / shape)


def resample_concentration(
    key: Tensor, draw: int, alpha: float, n_points: int, n_clusters: int, shape: float, rate: float
) -> float:
    """A draw of alpha given its last value and the number of clusters (Escobar & West 1995, section 6).

    ``eta ~ Beta(alpha + 1, n)``, then a gamma number of rate ``b - log eta`` whose shape is ``a + K`` with odds
    ``(a + K - 1) / (n (b - log eta))``, else ``a + K - 1``.
    """
    first, second = _gamma(key, draw, 1 << 32, alpha + 1), _gamma(key, draw, 2 << 32, n_points)
    log_eta = math.log(first) - math.log(first + second)
    odds = (shape + n_clusters - 1) / (n_points * (rate - log_eta))
    u = float(uniform_of_bits(hashed_bits(key, draw, torch.tensor(0, device=key.device))))
    drawn = _gamma(key, draw, 3 << 32, shape + n_clusters - (0 if u < odds / (1 + odds) else 1))
    return max(drawn / (rate - log_eta), 1e-300)


def single_site_update(
    centred: Tensor,
    labels: Tensor,
    i: int,
    alpha: float,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    key: Tensor,
    draw: int,
    beta: float = 1.0,
) -> Tensor:
    """Labels [n] after the update of point i, all computed from the points [n, D] about the prior mean.

    Cluster k has weight ``n_k t_k(x_i)`` without the point, a new cluster ``alpha t_0(x_i)``, both to the power beta. A
    new cluster takes the lowest free label; a singleton that draws a new cluster keeps its label.
    """
    n_slots = int(labels.max()) + 1
    members = torch.nn.functional.one_hot(labels.long(), n_slots + 1).double()
    members[i] = 0
    log_t = log_predictive(centred[i], centred, members, prior_scale, kappa0, nu0)
    # The last of these clusters has no points: its predictive is that of the prior.
    n = members.sum(0)
    log_weight = (
        torch.cat([n[:-1].log(), torch.tensor([math.log(alpha)], dtype=torch.float64, device=n.device)]) + log_t
    )
    weight = torch.exp(beta * (log_weight - log_weight.max()))
    u = uniform_of_bits(hashed_bits(key, draw, torch.tensor(i, device=n.device)))
    new = int(torch.searchsorted(weight.cumsum(0), u * weight.sum(), right=True))
    out = labels.clone()
    if new == n_slots:
        used = torch.bincount(labels.long(), minlength=n_slots + 1)
        new = int(labels[i]) if used[labels[i]] == 1 else int((used == 0).nonzero()[0])
    out[i] = new
    return out


def log_joint(
    centred: Tensor,
    labels: Tensor,
    alpha: float,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    alpha_prior: tuple[float, float],
) -> float:
    """``log p(x, labels, alpha)`` of points [n, D] about the prior mean, or given alpha where the prior's shape is 0.

    ``p(labels | alpha) = alpha^K Gamma(alpha) / Gamma(alpha + n) prod_k Gamma(n_k)`` (Antoniak 1974); p(x | labels) is
    a product of marginal likelihoods of normal-inverse-Wishart models (Murphy 2007, eq. 266).
    """
    shape, rate = alpha_prior
    total = math.lgamma(alpha) - math.lgamma(alpha + len(centred))
    if shape > 0:
        total += shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * math.log(alpha) - rate * alpha
    for label in labels.unique():
        own = centred[labels == label]
        total += math.log(alpha) + math.lgamma(len(own)) + log_marginal(own, prior_scale, kappa0, nu0)
    return total


def gibbs_sweep(problem: SweepProblem, labels: Tensor, alpha: Tensor) -> GibbsSweeps:
    """Collapsed Gibbs sweeps (Neal 2000, algorithm 3), one single-site update after the other, and split-merge moves.

    Parameters
    ----------
    problem : SweepProblem
    labels : Tensor
        Integers [C, N], the cluster of each point within its model.
    alpha : Tensor
        float64 [M, C].
    """
    alpha_prior = problem.alpha_prior
    sweeps = new_sweeps(problem)
    for m, (start, stop) in enumerate(problem.layout.ranges.tolist()):
        centred = problem.points[start:stop].double() - problem.prior_mean[m]
        prior = problem.prior_scale[m], problem.kappa0, problem.nu0
        position = torch.arange(stop - start, device=centred.device)
        for c, key in enumerate(problem.keys[m]):
            own = labels[c, start:stop].unique(return_inverse=True)[1]
            concentration = float(alpha[m, c])
            for t in range(problem.n_sweeps):
                draw = 4 * (problem.first_sweep + t)
                order = torch.argsort(hashed_bits(key, draw, position) >> 13, stable=True).tolist()
                beta = float(problem.inverse_temperature[m, t])
                for i in order:
                    own = single_site_update(centred, own, i, concentration, *prior, key, draw + 1, beta)
                for move in range(int(problem.split_merge[m, t])):
                    own, counted = split_or_merge(centred, own, order, concentration, prior, key, draw + 3, move)
                    sweeps.split_merge[m, c] += torch.tensor(counted, dtype=torch.int32, device=own.device)
                n_clusters = len(own.unique())
                if alpha_prior[0] > 0:
                    concentration = resample_concentration(
                        key, draw + 2, concentration, len(own), n_clusters, *alpha_prior
                    )
                sweeps.alpha[m, c, t] = concentration
                sweeps.n_components[m, c, t] = n_clusters
                sweeps.log_joint[m, c, t] = log_joint(centred, own, concentration, *prior, alpha_prior)
                if (t + 1) % problem.thin == 0:
                    kept = own.unique(return_inverse=True)[1].int()
                    sweeps.labels[(t + 1) // problem.thin - 1, c, start:stop] = kept
    return sweeps
