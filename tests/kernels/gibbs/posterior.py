"""The exact posterior of partitions, by enumeration, and tests of draws against it."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import torch

KAPPA0, NU0_OVER_D = 0.2, 2.5
CERTAIN = 1e-6


class Data(NamedTuple):
    points: torch.Tensor
    offsets: torch.Tensor
    prior_mean: torch.Tensor
    prior_scale: torch.Tensor


def partitions(n):
    """All partitions of n points as labels in order of first appearance."""
    labels = [[0]]
    for _ in range(n - 1):
        labels = [[*z, k] for z in labels for k in range(max(z) + 2)]
    return np.array(labels)


def log_marginal(x, m0, s0, kappa0, nu0):
    """log p(x) of one cluster: each point under scipy's Student-t predictive given those before it."""
    d, total = len(m0), 0.0
    for n in range(len(x)):
        seen = x[:n]
        kappa, nu = kappa0 + n, nu0 + n
        mean = (kappa0 * m0 + seen.sum(0)) / kappa
        scatter = np.diag(s0) + kappa0 * np.outer(m0, m0) + seen.T @ seen - kappa * np.outer(mean, mean)
        df = nu - d + 1
        total += scipy.stats.multivariate_t(mean, scatter * (kappa + 1) / (kappa * df), df).logpdf(x[n])
    return total


def log_prior_of_cluster_number(n, alpha):
    """Log of the factor of alpha in p(partition) for 1, ..., n clusters; None integrates over Gamma(1, 1)."""

    def log_factor(k, a):
        return k * math.log(a) + math.lgamma(a) - math.lgamma(a + n)

    if alpha is not None:
        return [log_factor(k, alpha) for k in range(1, n + 1)]
    integral = scipy.integrate.quad
    return [math.log(integral(lambda a, k=k: math.exp(log_factor(k, a) - a), 0, np.inf)[0]) for k in range(1, n + 1)]


def exact_posterior(data, alpha, kappa0=KAPPA0, beta=1.0):
    """Probability of every partition to the power beta, for a fixed alpha or (None) under its Gamma(1, 1) prior."""
    x, m0, s0 = data.points.numpy(), data.prior_mean[0].numpy(), data.prior_scale[0].numpy()
    n, d = x.shape
    log_prior = log_prior_of_cluster_number(n, alpha)

    @functools.cache
    def log_cluster(members):
        own = np.array(members)
        return scipy.special.gammaln(own.sum()) + log_marginal(x[own], m0, s0, kappa0, d - 1 + NU0_OVER_D)

    every = partitions(n)
    log_p = [log_prior[z.max()] + sum(log_cluster(tuple(z == k)) for k in range(z.max() + 1)) for z in every]
    log_p = beta * np.array(log_p)
    return every, np.exp(log_p - scipy.special.logsumexp(log_p))


def in_order_of_appearance(labels):
    """Labels [C, N] renamed so that equal partitions have equal labels."""
    out = np.zeros_like(labels)
    for i in range(1, labels.shape[1]):
        same = labels[:, :i] == labels[:, i : i + 1]
        first = np.where(same.any(1), same.argmax(1), -1)
        out[:, i] = np.where(first >= 0, out[np.arange(len(out)), first], out[:, :i].max(1) + 1)
    return out


def counts_of(labels, every):
    """How often each partition was drawn; labels [C, N]."""
    code = {tuple(z): j for j, z in enumerate(every.tolist())}
    return np.bincount([code[tuple(z)] for z in in_order_of_appearance(labels).tolist()], minlength=len(every))


def relative_total_variation(labels, every, probability):
    """Distance in total variation of independent draws from the exact posterior, over what sampling noise leads to."""
    distance = 0.5 * np.abs(counts_of(labels, every) / len(labels) - probability).sum()
    noise = np.sqrt(probability * (1 - probability) / len(labels)).sum()
    return distance / (0.5 * math.sqrt(2 / math.pi) * noise)


def chi_square_pvalue(labels, every, probability):
    """Of independent draws of partitions; the rarest are counted together, ten of them expected at least."""
    count = counts_of(labels, every)
    order = np.argsort(probability)
    expected, count = probability[order] * len(labels), count[order]
    # A cell begins where the ones before it have come to ten.
    cell = np.floor(np.cumsum(np.minimum(expected, 10)) / 10 - 1e-9).astype(int)
    cell = np.minimum(cell, int(np.minimum(expected, 10).sum() / 10) - 1)
    expected, count = np.bincount(cell, expected), np.bincount(cell, count)
    kept = expected > 0
    assert kept.sum() > 1
    return scipy.stats.chisquare(count[kept], expected[kept] * count.sum() / expected.sum()).pvalue
