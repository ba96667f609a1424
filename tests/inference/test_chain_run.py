"""Runs that are continued from files, and rounds of the models that go on."""

from __future__ import annotations

import pytest
import torch

from fastdens.inference.chain_run import ChainRun
from fastdens.inference.gibbs import init
from fastdens.inference.schedule import Schedule
from fastdens.inference.starts import random_labels
from fastdens.io.state_file import StateFile
from tests.inference.problems import chain_problem, sweeps_of

BURN_IN, THIN, N_SWEEPS, N_DRAWS = 40, 2, 73, 16


@pytest.fixture
def problem(rng):
    return chain_problem(rng, Schedule.of(BURN_IN, THIN, 0.7), sizes=(15, 8, 25), split_merge=0.7)


def started(problem):
    return ChainRun.start(init(problem, random_labels(problem.keys, problem.layout, 3), 1.0))


def ended(run, problem):
    """The run after its last launch, and every run on the way."""
    runs = [run, *(later for later, _ in run.continued(problem, N_SWEEPS))]
    return runs[-1], runs


def assert_same(run, other):
    """Both are in the same state and have kept the same draws."""
    assert (run.sweep, run.round) == (other.sweep, other.round)
    for name in ("models", "n_sweeps", "n_sweeps_of_models", "split_merge"):
        assert torch.equal(getattr(run, name), getattr(other, name))
    assert torch.equal(run.state.labels, other.state.labels) and torch.equal(run.state.alpha, other.state.alpha)


def test_runs_continue_from_files_in_every_stage_of_every_round(problem, tmp_path):
    file = StateFile(tmp_path / "chains", "checkpoint", {"seed": 1})
    run = started(problem)
    for going_on in ([True, False, True], [False, True], []):
        last, runs = ended(run, problem)
        for early in runs[1:]:
            early.write(file)
            read = ChainRun.read(file, problem)
            assert_same(read, early)
            again, _ = ended(read, problem)
            assert_same(again, last)
            assert all(map(torch.equal, again.draws(problem, N_DRAWS), last.draws(problem, N_DRAWS)))
        if run.round == 0:
            stages = {early.sweep for early in runs}
            assert stages >= {4, 8, 12, 28, 40} and {early.sweep for early in runs if early.state.best} == {4, 8, 12}
        if going_on:
            run = last.next_round(problem, last.draws(problem, N_DRAWS), torch.tensor(going_on))
    assert last.round == 2 and last.models.tolist() == [2]


def test_a_round_is_twice_as_long_and_thinned_twice_as_much(problem):
    last, _ = ended(started(problem), problem)
    every = torch.ones(3, dtype=torch.bool)
    first = last.draws(problem, N_DRAWS)
    assert [ChainRun.target(N_SWEEPS, BURN_IN, r) for r in range(4)] == [73, 73 + 66, 73 + 198, 73 + 462]
    for thin in (4, 8):
        state, begun = last.state, ChainRun.target(N_SWEEPS, BURN_IN, last.round)
        last, _ = ended(last.next_round(problem, last.draws(problem, N_DRAWS), every), problem)
        kept = last.draws(problem, N_DRAWS)
        assert kept.labels.shape == first.labels.shape and kept.log_joint.shape == (3, 2, N_DRAWS)
        # The kernel goes on from the last state, with the sweep that the round before could not keep any of.
        labels, alpha, sweep = state.labels, state.alpha, state.sweep
        parts = [begun - sweep] * (begun > sweep) + [32] * (N_DRAWS * thin // 32)
        want = []
        for n in parts:
            moves = problem.schedule.moves(sweep, n, problem.annealed, problem.split_merge)
            done = sweeps_of(problem, labels, alpha, sweep + 1, n, thin=min(n, thin), split_merge=moves)
            labels, alpha, sweep = done.labels[-1], done.alpha[..., -1].contiguous(), sweep + n
            want.append(done.labels)
        assert torch.equal(kept.labels, torch.cat(want[-N_DRAWS * thin // 32 :]))
        assert last.sweep == sweep == begun + N_DRAWS * thin


def test_models_that_stay_behind_keep_their_draws_and_change_nothing(problem):
    last, _ = ended(started(problem), problem)
    before = last.draws(problem, N_DRAWS)
    some, _ = ended(last.next_round(problem, before, torch.tensor([True, False, True])), problem)
    every, _ = ended(last.next_round(problem, before, torch.tensor([True, True, True])), problem)
    assert some.n_sweeps_of_models.tolist() == [some.sweep, last.sweep, some.sweep]
    got, want = some.draws(problem, N_DRAWS), every.draws(problem, N_DRAWS)
    assert torch.equal(got.labels[..., 15:23], before.labels[..., 15:23])
    assert torch.equal(got.log_joint[1], before.log_joint[1])
    going, rows = torch.tensor([0, 2]), torch.cat([torch.arange(15), torch.arange(23, 48)])
    assert all(map(torch.equal, got.select(going, rows), want.select(going, rows)))
    assert torch.equal(some.split_merge[1], last.split_merge[1])
    assert torch.equal(some.split_merge[going], every.split_merge[going])
