"""Chains as pure functions: their random streams, their steps, and the searches that they open with."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels.layout import Layout

from fastdens.inference.gibbs import Draws, init, join_draws, sample, step, stream_keys
from fastdens.inference.schedule import Schedule
from fastdens.inference.starts import fine_labels, random_labels
from tests.inference.problems import chain_problem, sweeps_of


def test_models_and_chains_have_streams_of_their_own(rng):
    points, offsets = torch.from_numpy(rng.normal(size=(300, 2))), torch.arange(0, 301, 30)
    keys = stream_keys(points, Layout.from_offsets(offsets, 300), 3, 0)
    assert len(keys.unique()) == keys.numel() and bool((keys >= 0).all())
    assert torch.equal(
        stream_keys(points[60:90] * 2 + 7, Layout.from_offsets(torch.tensor([0, 30]), 30), 3, 0), keys[2:3]
    )


def test_steps_are_pure(rng):
    problem = chain_problem(rng, Schedule(6, 2, split_merge=1.0))
    start = init(problem, random_labels(problem.keys, problem.layout, 3), 1.0)
    (state, info), again = step(problem, start, 4, 2), step(problem, start, 4, 2)
    assert all(map(torch.equal, info.draws, again[1].draws)) and torch.equal(state.labels, again[0].labels)
    assert state.sweep == 4 and info.draws.labels.shape == (2, 2, 40) and info.draws.alpha.shape == (2, 2, 2)
    assert info.log_joint.shape == (2, 2, 4) and (info.split_merge[..., ::2].sum(-1) <= 4).all()
    want = sweeps_of(problem, start.labels, start.alpha, 1, 4, thin=2, split_merge=1)
    assert torch.equal(info.draws.labels, want.labels) and torch.equal(info.log_joint, want.log_joint)
    assert torch.equal(info.split_merge, want.split_merge.long())


@pytest.mark.parametrize("annealing", [0.5, 1.0])
def test_chains_go_on_from_the_better_search(rng, annealing):
    """Both searches driven by hand; a sweep above temperature one does not count."""
    schedule = Schedule.of(14, 1, annealing, 0.5)
    problem = chain_problem(rng, schedule, sizes=(9, 1, 30), n_chains=3)
    labels = random_labels(problem.keys, problem.layout, 4)
    state = [found for found, _ in sample(problem, init(problem, labels, 1.0), schedule.n_search)][-1]
    n_cold, n_annealed = schedule.n_cold, schedule.n_annealed
    cold = sweeps_of(
        problem, labels, torch.ones_like(state.alpha), 1, n_cold, thin=n_cold, split_merge=schedule.moves(0, n_cold)
    )
    beta = schedule.inverse_temperature(n_cold, n_annealed)
    annealed = sweeps_of(
        problem,
        fine_labels(problem.keys, problem.layout),
        cold.alpha[..., -1].contiguous(),
        n_cold + 1,
        n_annealed,
        thin=n_annealed,
        inverse_temperature=beta,
        split_merge=schedule.moves(n_cold, n_annealed),
    )
    assert beta[0] < 1 and beta[-1] == 1
    is_cold = cold.log_joint.mean(-1) >= annealed.log_joint[..., beta == 1].mean(-1)
    for m, (a, b) in enumerate(problem.layout.ranges.tolist()):
        for c in range(3):
            better = cold if is_cold[m, c] else annealed
            assert torch.equal(state.labels[c, a:b], better.labels[-1, c, a:b])
            assert state.alpha[m, c] == better.alpha[m, c, -1]
    assert state.cold is None and state.sweep == schedule.n_search


def test_draws_are_joined_selected_and_replaced(rng):
    sizes, n_draws = [3, 1, 4], 5

    def draws(n_models, n_rows):
        traces = (torch.from_numpy(rng.normal(size=(n_models, 2, n_draws))) for _ in range(3))
        return Draws(torch.from_numpy(rng.integers(0, 4, size=(n_draws, 2, n_rows))), *traces)

    every, other = draws(3, sum(sizes)), draws(2, 7)
    models, rows = torch.tensor([0, 2]), torch.tensor([0, 1, 2, 4, 5, 6, 7])
    replaced = every.replace(models, rows, other)
    assert all(map(torch.equal, replaced.select(models, rows), other))
    kept = slice(1, 2), slice(3, 4)
    assert all(map(torch.equal, replaced.select(*kept), every.select(*kept)))
    assert all(
        map(torch.equal, join_draws((every.first(2), Draws(every.labels[2:], *(t[..., 2:] for t in every[1:])))), every)
    )
    assert torch.equal(every.one(1, 3).labels[0, 0], every.labels[3, 1]) and every.one(1, 3).alpha.shape == (3, 1, 1)
