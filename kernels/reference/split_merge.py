"""Split-merge moves in float64, written to be read; :mod:`fastdens.kernels.gibbs.split_merge` describes the move."""

from __future__ import annotations

import math

import torch
from fastdens.kernels.counter_random import hashed_bits, uniform_of_bits
from fastdens.kernels.gibbs.split_merge import ACCEPTANCE, ALLOCATION, CANDIDATES, MOVE, NEARBY, SCAN
from fastdens.kernels.reference.niw import log_marginal, log_predictive, posterior
from torch import Tensor

# The point's own side is weighed without it only where that keeps all but six digits.
SMALLEST_RATIO = 1e-6


class _Move:
    """Points about the prior mean, the prior, and the random numbers of one move."""

    def __init__(self, centred: Tensor, prior: tuple[Tensor, float, float], key: Tensor, draw: int, move: int) -> None:
        self.x, self.prior = centred, prior
        self.key, self.draw, self.base = key, draw, move * MOVE

    def uniform(self, counter: int) -> float:
        counters = torch.tensor(self.base + counter, device=self.x.device)
        return float(uniform_of_bits(hashed_bits(self.key, self.draw, counters)))

    def log_weight(self, p: int, members: Tensor) -> float:
        """``log n t(x_p)`` of a side, bool [n], that does not hold p."""
        return math.log(int(members.sum())) + float(log_predictive(self.x[p], self.x, members[:, None], *self.prior))

    def log_marginal(self, members: Tensor) -> float:
        """Log p(points of the cluster) and the cluster's factor of p(labels | alpha), without alpha."""
        return log_marginal(self.x[members], *self.prior) + math.lgamma(int(members.sum()))

    def is_precise(self, p: int, members: Tensor) -> bool:
        """Whether the fast backends can weigh the side of p without p by their closed form."""
        own = posterior(self.x, members[:, None], *self.prior)
        difference = self.x[p] - own.location[0]
        q = float(difference @ torch.linalg.solve(own.scale[0], difference))
        kappa = float(own.kappa)
        return 1 - kappa / (kappa - 1) * q > SMALLEST_RATIO

    def anchors(self) -> tuple[int, int]:
        """Two points; twice the same where there is no other."""
        n = len(self.x)
        i = int(self.uniform(0) * n)
        n_candidates = CANDIDATES if self.uniform(NEARBY) < 0.5 else 1
        candidates = [int(self.uniform(r) * n) for r in range(1, n_candidates + 1)]
        distance = {j: float(((self.x[j] - self.x[i]) ** 2 / self.prior[0]).sum()) for j in candidates if j != i}
        return i, min(distance, key=lambda j: distance[j], default=i)

    def launch(self, i: int, j: int, others: list[int]) -> tuple[Tensor, Tensor]:
        """Sides, bool [n] each: the anchors, then the others one after the other."""
        first, second = (torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device) for _ in range(2))
        first[i] = second[j] = True
        for p in others:
            log_odds = self.log_weight(p, first) - self.log_weight(p, second)
            (first if self.uniform(ALLOCATION + p) < _sigmoid(log_odds) else second)[p] = True
        return first, second

    def scan(self, first: Tensor, second: Tensor, others: list[int], goal: Tensor | None) -> float:
        """One Gibbs scan of the sides, in place, to a goal (the first side, bool [n]) if there is one; its log q."""
        log_q = 0.0
        for p in others:
            own, other = (first, second) if first[p] else (second, first)
            stays = goal is None or bool(goal[p]) == bool(first[p])
            if not self.is_precise(p, own):
                if not stays:
                    return -math.inf
                continue
            own[p] = False
            log_odds = self.log_weight(p, own) - self.log_weight(p, other)
            if goal is None:
                stays = self.uniform(SCAN + p) < _sigmoid(log_odds)
            chosen = torch.tensor(log_odds if stays else -log_odds, dtype=torch.float64, device="cpu")
            log_q += float(torch.nn.functional.logsigmoid(chosen))
            (own if stays else other)[p] = True
        return log_q


def _sigmoid(x: float) -> float:
    return float(torch.sigmoid(torch.tensor(x, dtype=torch.float64, device="cpu")))


def split_or_merge(
    centred: Tensor,
    labels: Tensor,
    order: list[int],
    alpha: float,
    prior: tuple[Tensor, float, float],
    key: Tensor,
    draw: int,
    move: int,
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Labels [n] after one move, and what was proposed and accepted: of splits, then of merges.

    Points [n, D] are about the prior mean; ``prior`` is the diagonal of S0, kappa0 and nu0. The second side of a split
    takes the lowest free label; a merge takes the label of the first anchor.
    """
    proposal = _Move(centred, prior, key, draw, move)
    i, j = proposal.anchors()
    if i == j:
        return labels, (0, 0, 0, 0)
    log_u = math.log(proposal.uniform(ACCEPTANCE))
    a, b = labels == labels[i], labels == labels[j]
    both = a | b
    others = [p for p in order if both[p] and p not in (i, j)]
    first, second = proposal.launch(i, j, others)
    out = labels.clone()
    if labels[i] == labels[j]:
        log_q = proposal.scan(first, second, others, None)
        log_ratio = math.log(alpha) + proposal.log_marginal(first) + proposal.log_marginal(second)
        if log_u >= log_ratio - proposal.log_marginal(both) - log_q:
            return labels, (1, 0, 0, 0)
        used = torch.bincount(labels.long(), minlength=int(labels.max()) + 2)
        out[second] = int((used == 0).nonzero()[0])
        return out, (1, 1, 0, 0)
    log_q = proposal.scan(first, second, others, a)
    log_ratio = math.log(alpha) + proposal.log_marginal(a) + proposal.log_marginal(b)
    if log_u >= proposal.log_marginal(both) - log_ratio + log_q:
        return labels, (0, 0, 1, 0)
    out[both] = labels[i]
    return out, (0, 0, 1, 1)
