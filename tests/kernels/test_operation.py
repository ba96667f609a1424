"""Where operations run: Triton launches on the device of the points, whatever the current device is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from fastdens.kernels.operation import Backends, on_device_of

from fastdens import kernels


def test_launches_go_to_the_device_of_the_points(monkeypatch):
    current = [torch.device("cuda", 0)]

    @contextlib.contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    backends = Backends(triton=lambda points: current[-1], cpu="none:none", reference=lambda points: None)
    # What an operation asks points for; no GPU is at hand.
    points = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 1), dtype=torch.float32)
    assert backends.run("auto", points) == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 0)]
    with on_device_of(torch.zeros(2, device="cpu")):
        assert current == [torch.device("cuda", 0)]


def test_a_layout_on_another_device_is_refused():
    points = torch.zeros(5, 2, dtype=torch.float64)
    layout = kernels.Layout(torch.tensor([[0, 5]], device="meta"), 5)
    ones = torch.ones(1, 1, dtype=torch.float64)
    message = "the layout is on meta and points are on cpu: move one of them"
    with pytest.raises(ValueError, match=message):
        kernels.sufficient_statistics(points, layout, torch.ones(5, 1, dtype=torch.float64), points[:1, None])
    with pytest.raises(ValueError, match=message):
        kernels.gibbs_sweep(
            points,
            layout,
            torch.zeros(1, 5, dtype=torch.int64),
            ones,
            ones.long(),
            points[:1],
            1 + points[:1],
            kappa0=1.0,
            nu0=3.0,
        )
