"""Where operations run: Triton launches on the device of the points, whatever the current device is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from fastdens.kernels.operation import Backends, on_device_of


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
