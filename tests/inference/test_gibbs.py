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
    problem = chain_problem(rng, Schedule(6, 2), split_merge=1.0)
    start = init(problem, random_labels(problem.keys, problem.layout, 3), 1.0)
    (state, info), again = step(problem, start, 4, 2), step(problem, start, 4, 2)
    assert all(map(torch.equal, info.draws, again[1].draws)) and torch.equal(state.labels, again[0].labels)
    assert state.sweep == 4 and info.draws.labels.shape == (2, 2, 40) and info.draws.alpha.shape == (2, 2, 2)
    assert info.log_joint.shape == (2, 2, 4) and (info.split_merge[..., ::2].sum(-1) <= 4).all()
    want = sweeps_of(problem, start.labels, start.alpha, 1, 4, thin=2, split_merge=1)
    assert torch.equal(info.draws.labels, want.labels) and torch.equal(info.log_joint, want.log_joint)
    assert torch.equal(info.split_merge, want.split_merge.long())


@pytest.mark.parametrize("search", [0.5, 1.0])
def test_chains_go_on_from_the_best_search(rng, search):
    """The searches driven by hand; models of 9 and 1 points in two dimensions are annealed, the one of 30 is not."""
    schedule = Schedule.of(28, 1, search)
    n_cold, n_annealed = schedule.n_cold, schedule.n_annealed
    problem = chain_problem(rng, schedule, sizes=(9, 1, 30), n_chains=3, split_merge=0.5)
    labels, contrast = random_labels(problem.keys, problem.layout, 4), problem.contrast
    assert problem.annealed.tolist() == [True, True, False]
    every = list(sample(problem, init(problem, labels, 1.0), schedule.n_search))
    state, alpha = every[-1][0], torch.ones(problem.keys.shape, dtype=torch.float64)

    def searched(start, alpha, first, n):
        beta = schedule.inverse_temperature(first, n, problem.annealed)
        moves = schedule.moves(first, n, problem.annealed, problem.split_merge)
        done = sweeps_of(problem, start, alpha, first + 1, n, thin=n, inverse_temperature=beta, split_merge=moves)
        counts = (beta == 1).double()[:, None, -8:]
        log_joint = (done.log_joint[..., -8:] * counts).sum(-1) / counts.sum(-1)
        return done.labels[-1], done.alpha[..., -1].contiguous(), log_joint

    def best_of(first, second):
        is_first = first[2] >= second[2]
        own = is_first.T[:, problem.layout.rows.model]
        return torch.where(own, first[0], second[0]), *(
            torch.where(is_first, a, b) for a, b in zip(first[1:], second[1:], strict=True)
        )

    first = searched(labels, alpha, 0, n_cold)
    second = searched(contrast, first[1], n_cold, n_cold)
    best = best_of(first, second)
    third = searched(torch.zeros_like(labels), best[1], 2 * n_cold, n_cold)
    best = best_of(best, third)
    fine = fine_labels(problem.keys, problem.layout).int()
    annealed = problem.annealed[problem.layout.rows.model]
    fourth = searched(torch.where(annealed, fine, best[0]), best[1], 3 * n_cold, n_annealed)
    best = best_of(best, fourth)
    last = torch.where(annealed, best[0], fourth[0]), torch.where(problem.annealed[:, None], best[1], fourth[1])
    assert torch.equal(state.labels, last[0]) and torch.equal(state.alpha, last[1])
    assert state.best is None and state.sweep == schedule.n_search


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
