"""A step on a GPU, taken again and again with as little of the host as can be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# A look has the GPU wait for the host; between looks, programs of models that are done return at once.
_STEPS_BETWEEN_LOOKS = 8


def take_steps(step: Callable[[], None], n_steps: int, done: Tensor) -> None:
    """Take ``n_steps`` steps, or fewer if a look every few steps finds all of ``done`` other than zero.

    Parameters
    ----------
    step : callable
        Launches kernels on the current stream, the same ones on the same tensors every time; it neither allocates nor
        synchronises.
    n_steps : int
    done : Tensor
        [M], on the device of the kernels.
    """
    taken, again = 0, step
    while taken < n_steps:
        if taken and bool(done.all()):
            return
        if taken == _STEPS_BETWEEN_LOOKS and done.is_cuda:
            again = _captured(step).replay
        for _ in range(min(_STEPS_BETWEEN_LOOKS, n_steps - taken)):
            again()
            taken += 1


def _captured(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """The launches of a step as a CUDA graph, which costs the host one call; the step has run, so all is compiled.

    ``torch.cuda.graph`` would also empty the allocator's cache, which costs more than a fit.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Other threads of the process, say those of a DataLoader, go on meanwhile.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph
