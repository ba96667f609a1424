"""What a launch of a fit asks of the host: kernels of torch, and waits for the device."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels.layout import Layout

from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference import gibbs
from fastdens.inference.schedule import Schedule
from tests.kernels.counting import counted
from tests.kernels.gibbs.chains import chain_start, clustered

pytest.importorskip("triton")


def test_few_kernels_and_waits_in_a_launch_of_three_chains(rng):
    data = clustered(rng, [2, 1], 2)
    labels, alpha, keys = chain_start(rng, data, 3, 2)
    layout, prior = Layout.from_offsets(data.offsets, 3), NormalInverseWishart(*data[2:], 0.1, 4.0)
    no_moves, schedule = torch.zeros(2, dtype=torch.float64), Schedule.of(400, 4, 0.5)
    problem = gibbs.ChainProblem(data.points, layout, prior, keys, no_moves, (1.0, 1.0), schedule, "triton")
    # A fit keeps some things from its first launch.
    state, _ = gibbs.step(problem, gibbs.ChainState(0, labels, alpha), 1, 1)
    with counted() as counts:
        gibbs.step(problem, state, 16, 16)
    assert counts.torch_kernels.total() <= 100, counts
    assert counts.synchronizations.total() <= 5, counts
