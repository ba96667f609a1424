"""Certificates of calls that are killed, interrupted, and shared among processes: those of one call."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from fastdens.analysis import certify
from fastdens.io import shared_work
from fastdens.io.state_file import read_state, write_state
from tests.kills import forked, kill_and_compare, preload

# With scipy, which certificates import where they need it.
for module in (__name__, "scipy.special", "scipy.stats"):
    preload(module)
N = 24


class Noisy(nn.Module):
    """A classifier that draws random numbers, too, says how often it ran, and takes its time."""

    def __init__(self, log=None, seconds=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
        self.log, self.seconds = log, seconds

    def forward(self, x):
        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as log:
                log.write("pass\n")
        return (x + torch.rand_like(x)) @ self.weight.T


def run(path=None, model=None, **options):
    torch.manual_seed(3)
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
    # Two examples share a pass.
    defaults = {"n0": 10, "n": 90, "batch_size": 200}
    return certify(model or Noisy(), x, 0.5, checkpoint=path, progress=False, **defaults | options)


def run_share(folder, log=None, seconds=2e-3):
    torch.set_num_threads(1)
    shared_work._SECONDS_BETWEEN_PARTS, shared_work._SECONDS_BETWEEN_LOOKS = 0.005, 0.02
    run(folder / "certificates", Noisy(log, seconds))


@pytest.fixture(scope="module")
def whole():
    return run()


def assert_same(found, whole):
    for one, other in zip(found, whole, strict=True):
        assert np.array_equal(one, other)


def test_killed_at_random_moments(tmp_path, rng, whole):
    kill_and_compare(forked(run_share, None, 5e-3), tmp_path, rng)
    assert_same(run(tmp_path / "undisturbed" / "certificates"), whole)


def test_processes_share_the_examples(tmp_path, whole):
    children = [forked(run_share, tmp_path / "log", 0.02)(tmp_path) for _ in range(3)]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert sorted(os.listdir(tmp_path)) == ["certificates", "log"]
    # Each call looks at the first example beside its passes.
    assert len((tmp_path / "log").read_text().split()) <= N // 2 + 3
    assert_same(run(tmp_path / "certificates"), whole)


def test_an_interrupted_call_of_another_model_is_refused(tmp_path):
    model = Noisy()
    n_passes = []

    def interrupt(*_):
        n_passes.append(1)
        if len(n_passes) == 5:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "certificates", model)
    assert os.listdir(tmp_path) == [".certificates.parts"]
    twice = Noisy()
    twice.register_forward_hook(lambda _module, _inputs, output: output * 2)
    for options, what in (({"n": 91}, "n = 90, not 91"), ({"model": twice}, "other logits of the first example")):
        with pytest.raises(
            ValueError, match=rf"begun certification of {what}.*: delete the folder .*certificates\.parts"
        ):
            run(tmp_path / "certificates", **options)


def test_a_file_with_the_first_examples_is_gone_on_with(tmp_path, whole):
    file = tmp_path / "certificates"
    run(file)
    state = read_state(file, "checkpoint of certificates")
    first = {name: values[:8] for name, values in state.tensors.items()}
    write_state(file, "checkpoint of certificates", first, state.metadata, overwrite=True)
    assert_same(run(file, Noisy(tmp_path / "log")), whole)
    assert len((tmp_path / "log").read_text().split()) == 1 + (N - 8) // 2
