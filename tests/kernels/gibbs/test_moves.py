"""Split-merge moves alone, without single-site updates, against enumeration; wrong moves fail the same tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.kernels.gibbs.chains import CPU, GPU, chain_start, clustered, run
from tests.kernels.gibbs.moves import Fault, compiled_moves, reference_moves
from tests.kernels.gibbs.posterior import (
    CERTAIN,
    chi_square_pvalue,
    exact_posterior,
    in_order_of_appearance,
    relative_total_variation,
)

WRONG = [fault for fault in Fault if fault not in (Fault.PRODUCTION, Fault.NONE)]


@pytest.mark.parametrize(("n", "d"), [(7, 2), (6, 5)])
@pytest.mark.parametrize("alpha", [0.7, None])
def test_moves_reach_every_partition(rng, n, d, alpha):
    data = clustered(rng, [n], d, separation=1.0)
    exact = exact_posterior(data, alpha)
    start = chain_start(rng, data, 10_000, 3, alpha)
    labels, counted = compiled_moves(data, *start, n_sweeps=50, n_moves=3, has_prior=alpha is None)
    assert (counted[1::2] > 10_000).all()
    assert chi_square_pvalue(labels, *exact) > CERTAIN
    # Of fewer partitions the distance varies too much by chance.
    assert n < 7 or relative_total_variation(labels, *exact) < 1.6


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_moves_after_one_sweep_of_another_posterior(rng, backend, device):
    """A sweep of a high temperature, then moves: whatever the temperature, theirs is one."""
    data = clustered(rng, [7], 2, separation=1.0)
    exact = exact_posterior(data, 0.7)
    start = chain_start(rng, data, 10_000, 3, 0.7)
    done = run(data, *start, backend, device, alpha_prior=None, split_merge=150, inverse_temperature=0.1)
    labels = done.labels[0].cpu().numpy()
    assert chi_square_pvalue(labels, *exact) > CERTAIN
    assert relative_total_variation(labels, *exact) < 1.6


def exact_start(rng, n, d, n_chains, alpha):
    """Chains that start from draws of the posterior of points of one cluster, which has many partitions."""
    data = clustered(rng, [n], d, separation=0.0)
    every, probability = exact = exact_posterior(data, alpha)
    _, alpha, keys = chain_start(rng, data, n_chains, 1, alpha)
    labels = torch.from_numpy(every[rng.choice(len(every), size=n_chains, p=probability)])
    return data, (labels, alpha, keys), exact


def test_copy_with_replaceable_pieces_is_the_production_move(rng):
    data, start, exact = exact_start(rng, 7, 2, 20_000, alpha=1.5)
    labels, counted = compiled_moves(data, *start, n_sweeps=20, n_moves=1)
    copied, copied_counts = compiled_moves(data, *start, n_sweeps=20, n_moves=1, fault=Fault.NONE)
    assert np.array_equal(labels, copied) and np.array_equal(counted, copied_counts)
    assert chi_square_pvalue(labels, *exact) > CERTAIN


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_moves_are_caught(rng, fault):
    data, start, exact = exact_start(rng, 7, 2, 20_000, alpha=1.5)
    labels, _ = compiled_moves(data, *start, n_sweeps=20, n_moves=1, fault=fault)
    assert chi_square_pvalue(labels, *exact) < CERTAIN


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("fault", [Fault.PRODUCTION, *WRONG])
def test_reference_is_right_and_wrong_alike(rng, fault):
    """The slow reference makes the chains that pass or fail above, label by label, with the same piece replaced."""
    data = clustered(rng, [6], 2, separation=1.0)
    start = chain_start(rng, data, 8, 3, 0.4)
    options = {"n_sweeps": 2, "n_moves": 4, "fault": fault}
    (want, want_counts), (got, counts) = (
        reference_moves(data, *start, **options),
        compiled_moves(data, *start, **options),
    )
    assert np.array_equal(in_order_of_appearance(got), in_order_of_appearance(want))
    assert np.array_equal(counts, want_counts)


@pytest.mark.usefixtures("one_thread")
def test_moves_of_the_reference_keep_the_posterior(rng):
    data, start, exact = exact_start(rng, 4, 2, 90, alpha=1.5)
    labels, counted = reference_moves(data, *start, n_sweeps=6, n_moves=1)
    assert (counted[1::2] > 0).all()
    assert chi_square_pvalue(labels, *exact) > CERTAIN
