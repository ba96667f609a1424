"""Counts of torch kernels, synchronisations and Triton launches: the counting itself, and what operations need."""

from __future__ import annotations

import pytest
import torch

import fastdens as fd
from fastdens import kernels
from tests.kernels.counting import Counts, counted
from tests.problems import mixture_problem

X = torch.arange(6.0)
LENGTHS = torch.tensor([2, 4])


@pytest.mark.parametrize(
    ("run", "n_kernels", "n_synchronizations"),
    [
        (lambda x, n: x.reshape(2, 3).mT[1:].detach(), 0, 0),
        (lambda x, n: torch.empty(3), 0, 0),
        (lambda x, n: (x + 1).exp_(), 2, 0),
        (lambda x, n: float(x.sum()), 1, 1),
        (lambda x, n: bool((x > 2).any()), 2, 1),
        (lambda x, n: x.tolist(), 0, 1),
        (lambda x, n: x.cpu(), 0, 1),
        (lambda x, n: torch.tensor([1.0, 2.0], device=x.device), 0, 1),
        (lambda x, n: x[n], 1, 0),
        (lambda x, n: n[n > 2], 2, 1),
        (lambda x, n: n.nonzero(), 1, 1),
        (lambda x, n: torch.repeat_interleave(n), 1, 1),
        (lambda x, n: torch.repeat_interleave(n, output_size=6), 1, 0),
        (lambda x, n: torch.segment_reduce(x, "sum", lengths=n), 1, 2),
        (lambda x, n: torch.segment_reduce(x, "sum", lengths=n, unsafe=True), 1, 0),
    ],
)
def test_of_operators(run, n_kernels, n_synchronizations):
    with counted() as counts:
        run(X, LENGTHS)
    assert counts.totals == (n_kernels, n_synchronizations, 0), counts


def test_of_two_runs(rng):
    with counted() as short:
        X.exp()
    with counted() as long:
        X.exp().exp().sum().item()
    assert long - short == Counts({"exp": 1, "sum": 1}, {"_local_scalar_dense": 1}, {})


def test_log_prob(rng):
    x, _, weights, means, factor = mixture_problem(rng, [20, 9], 3, 2, "full", torch.float32)
    with counted() as counts:
        kernels.mixture_log_prob(x, weights, means, factor, backend="triton")
    n_kernels, n_synchronizations, n_launches = counts.totals
    # The one synchronisation tells whether a parameter is not finite.
    assert n_kernels <= 10 and n_synchronizations <= 1 and n_launches == 1, counts


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_em_iteration(rng, covariance_type):
    x, _, *_ = mixture_problem(rng, [20, 9], 5, 2, "full", torch.float32)
    batch = fd.RaggedBatch.from_labels(x, torch.arange(2).repeat_interleave(torch.tensor([20, 9])))
    counts = []
    # Convergence is looked at every few iterations: whether it is then falls into the difference of the two runs.
    for n_iter in (20, 40):
        models = fd.GaussianMixtures(
            2, covariance_type=covariance_type, tol=0, max_iter=n_iter, init_params="random", backend="triton"
        )
        with counted() as of_run:
            models.fit(batch)
        counts.append(of_run)
    n_kernels, n_synchronizations, _ = (counts[1] - counts[0]).totals
    assert n_kernels <= 20 * 25, counts[1] - counts[0]
    assert n_synchronizations <= 20 / 4, counts[1] - counts[0]
