"""Sampling that can be interrupted: the state of the chains and the draws kept so far, in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens.inference.gibbs import ChainProblem, ChainState, Draws, join_draws, sample
from fastdens.io.state_file import StateFile


@dataclass(frozen=True)
class ChainRun:
    """The state of the chains, and the draws kept so far in parts."""

    state: ChainState
    kept: tuple[Draws, ...] = ()

    @property
    def sweep(self) -> int:
        """Sweeps done."""
        return self.state.sweep

    @property
    def draws(self) -> Draws:
        """The draws kept so far."""
        return join_draws(self.kept)

    def continued(self, problem: ChainProblem, n_sweeps: int) -> Iterator[tuple[ChainRun, Tensor]]:
        """The runs after every launch until ``n_sweeps`` sweeps are done, and the log-joints float64 [M, C] there."""
        run = self
        for state, draws in sample(problem, self.state, n_sweeps):
            kept = (*run.kept, draws) if run.sweep >= problem.burn_in else run.kept
            run = ChainRun(state, kept)
            yield run, draws.log_joint[..., -1]

    def write(self, file: StateFile) -> None:
        """Write the run to a checkpoint, over an earlier one."""
        tensors = {"labels": self.state.labels, "alpha": self.state.alpha}
        if self.kept:
            tensors |= {f"draws_{name}": value for name, value in self.draws._asdict().items()}
        file.write(tensors, {"sweep": self.sweep})

    @classmethod
    def read(cls, file: StateFile, device: torch.device) -> ChainRun:
        """The run in a checkpoint; errors as of :meth:`StateFile.read`."""
        tensors, metadata = file.read()
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        kept: tuple[Draws, ...] = ()
        if "draws_labels" in tensors:
            kept = (Draws(**{name: tensors[f"draws_{name}"] for name in Draws._fields}),)
        return cls(ChainState(int(metadata["sweep"]), tensors["labels"], tensors["alpha"]), kept)
