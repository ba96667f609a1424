"""The exact posterior of partitions, by enumeration, and a chi-square test of draws against it."""

from __future__ import annotations

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


def exact_posterior(data, alpha, kappa0=KAPPA0):
    """Probability of every partition, for a fixed alpha or (None) under its Gamma(1, 1) prior."""
    x, m0, s0 = data.points.numpy(), data.prior_mean[0].numpy(), data.prior_scale[0].numpy()
    n, d = x.shape
    log_prior = {}
    for k in range(1, n + 1):
        if alpha is None:

            def density(a, k=k):
                log_p = k * math.log(a) + math.lgamma(a) - math.lgamma(a + n) - a
                return math.exp(log_p)

            log_prior[k] = math.log(scipy.integrate.quad(density, 0, np.inf)[0])
        else:
            log_prior[k] = k * math.log(alpha) + math.lgamma(alpha) - math.lgamma(alpha + n)
    every = partitions(n)
    log_p = []
    for z in every:
        sizes = np.bincount(z)
        own = sum(log_marginal(x[z == k], m0, s0, kappa0, d - 1 + NU0_OVER_D) for k in range(len(sizes)))
        log_p.append(log_prior[len(sizes)] + scipy.special.gammaln(sizes).sum() + own)
    return every, np.exp(log_p - scipy.special.logsumexp(log_p))


def in_order_of_appearance(labels):
    """Labels [C, N] renamed so that equal partitions have equal labels."""
    out = np.zeros_like(labels)
    for i in range(1, labels.shape[1]):
        same = labels[:, :i] == labels[:, i : i + 1]
        first = np.where(same.any(1), same.argmax(1), -1)
        out[:, i] = np.where(first >= 0, out[np.arange(len(out)), first], out[:, :i].max(1) + 1)
    return out


def chi_square_pvalue(labels, every, probability):
    """Of independent draws of partitions; the rarest are counted together, ten of them expected at least."""
    code = {tuple(z): j for j, z in enumerate(every.tolist())}
    count = np.bincount([code[tuple(z)] for z in in_order_of_appearance(labels).tolist()], minlength=len(every))
    order = np.argsort(probability)
    expected, count = probability[order] * len(labels), count[order]
    # A cell begins where the ones before it have come to ten.
    cell = np.floor(np.cumsum(np.minimum(expected, 10)) / 10 - 1e-9).astype(int)
    cell = np.minimum(cell, int(np.minimum(expected, 10).sum() / 10) - 1)
    expected, count = np.bincount(cell, expected), np.bincount(cell, count)
    kept = expected > 0
    assert kept.sum() > 1
    return scipy.stats.chisquare(count[kept], expected[kept] * count.sum() / expected.sum()).pvalue
