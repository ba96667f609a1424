"""Chains as pure functions: their random streams, and runs that are continued."""

from __future__ import annotations

import torch
from fastdens.kernels.layout import Layout

from fastdens.distributions.niw import data_prior
from fastdens.inference.chain_run import ChainRun
from fastdens.inference.gibbs import ChainProblem, init, step, stream_keys
from fastdens.inference.starts import random_labels
from fastdens.io.state_file import StateFile


def test_models_and_chains_have_streams_of_their_own(rng):
    points, offsets = torch.from_numpy(rng.normal(size=(300, 2))), torch.arange(0, 301, 30)
    keys = stream_keys(points, Layout.from_offsets(offsets, 300), 3, 0)
    assert len(keys.unique()) == keys.numel() and bool((keys >= 0).all())
    assert torch.equal(
        stream_keys(points[60:90] * 2 + 7, Layout.from_offsets(torch.tensor([0, 30]), 30), 3, 0), keys[2:3]
    )


def test_steps_are_pure_and_runs_continue_from_files(rng, tmp_path):
    points = torch.from_numpy(rng.normal(size=(40, 2)))
    layout = Layout.from_offsets(torch.tensor([0, 15, 40]), 40)
    keys = stream_keys(points, layout, 2, 1)
    problem = ChainProblem(points, layout, data_prior(points, layout), keys, (1.0, 1.0), 6, 2, "cpu")
    start = init(problem, random_labels(keys, layout, 3), 1.0)
    (state, draws), again = step(problem, start, 4, 2), step(problem, start, 4, 2)
    assert all(map(torch.equal, draws, again[1])) and torch.equal(state.labels, again[0].labels)
    assert state.sweep == 4 and draws.labels.shape == (2, 2, 40) and draws.alpha.shape == (2, 2, 2)
    runs = [run for run, _ in ChainRun(start).continued(problem, 60)]
    *_, (whole, log_joint) = ChainRun(start).continued(problem, 60)
    assert whole.sweep == 60 and torch.equal(log_joint, whole.draws.log_joint[..., -1])
    file = StateFile(tmp_path / "chains", "checkpoint", {"seed": 1})
    for run in runs[:-1]:
        run.write(file)
        *_, (rest, _) = ChainRun.read(file, points.device).continued(problem, 60)
        assert all(map(torch.equal, rest.draws, whole.draws))
