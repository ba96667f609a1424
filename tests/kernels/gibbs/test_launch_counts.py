"""What a launch of a fit asks of the host: kernels of torch, and waits for the device."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels.layout import Layout
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference import gibbs
from fastdens.inference.schedule import Schedule
from tests.kernels.gibbs.chains import chain_start, clustered

pytest.importorskip("triton")
from triton.runtime import interpreter

# Operations that start no kernel, or are counted as waits.
FREE = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::detach", "aten::lift_fresh"}
# Operations whose result has a shape or a value that the host must know.
WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::repeat_interleave",
}  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts kernels that torch would start on a GPU, and waits of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self.waits: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if name in WAITS:
            self.waits.append(name)
        if name not in FREE and not is_view:
            self.kernels.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def counter(monkeypatch):
    """Counts what lies between the launches, not what the interpreter does for one; tensor.tolist() is a wait."""
    counted = Counter()
    launch, tolist = interpreter.GridExecutor.__call__, torch.Tensor.tolist

    def uncounted(*args, **options):
        with _disable_current_modes():
            return launch(*args, **options)

    def waiting(tensor):
        counted.waits.append("tolist")
        return tolist(tensor)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", uncounted)
    monkeypatch.setattr(torch.Tensor, "tolist", waiting)
    return counted


def test_few_kernels_and_waits_in_a_launch_of_three_chains(rng, counter):
    data = clustered(rng, [2, 1], 2)
    labels, alpha, keys = chain_start(rng, data, 3, 2)
    layout, prior = Layout.from_offsets(data.offsets, 3), NormalInverseWishart(*data[2:], 0.1, 4.0)
    no_moves, schedule = torch.zeros(2, dtype=torch.float64), Schedule.of(400, 4, 0.5)
    problem = gibbs.ChainProblem(data.points, layout, prior, keys, no_moves, (1.0, 1.0), schedule, "triton")
    # A fit keeps some things from its first launch.
    state, _ = gibbs.step(problem, gibbs.ChainState(0, labels, alpha), 1, 1)
    counter.waits.clear()
    with counter:
        gibbs.step(problem, state, 16, 16)
    assert len(counter.kernels) <= 100
    assert counter.waits == ["tolist", "tolist", "aten::_local_scalar_dense", "tolist"]
