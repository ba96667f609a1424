"""Sampling that can be interrupted: the state of the chains and the draws kept so far, in memory or in a file.

A run goes in rounds. The first has all models and ends after the sweeps that were asked for. A further round has the
models whose chains do not agree yet: it makes twice as many sweeps as the round before, keeps as many draws of them,
twice as far apart, and these replace the draws of the round before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastdens.inference.gibbs import ChainProblem, ChainState, Draws, SearchResult, StepInfo, join_draws, sample
from fastdens.inference.schedule import Schedule
from fastdens.io.expected import check_indices, check_tensors
from fastdens.io.state_file import StateFile


@dataclass(frozen=True)
class ChainRun:
    """The state of the chains of a round, and what was kept.

    Attributes
    ----------
    state : ChainState
        Of the models in this round.
    split_merge : Tensor
        int64 [M, C, 4], split-merge moves so far of all models: splits proposed and accepted, merges likewise.
    kept : tuple of Draws
        Draws of this round, in parts.
    round : int
        Counted from zero.
    models : Tensor
        int64 [A], the models in this round, in ascending order.
    settled : Draws or None
        Draws of all models after the last round; None in the first.
    n_sweeps : Tensor
        int64 [M], sweeps of each model before this round.
    """

    state: ChainState
    split_merge: Tensor
    models: Tensor
    n_sweeps: Tensor
    kept: tuple[Draws, ...] = ()
    round: int = 0
    settled: Draws | None = None

    @classmethod
    def start(cls, state: ChainState) -> ChainRun:
        """The run before its first sweep."""
        n_models, n_chains = state.alpha.shape
        device = state.alpha.device
        return cls(
            state,
            torch.zeros(n_models, n_chains, 4, dtype=torch.int64, device=device),
            torch.arange(n_models, device=device),
            torch.zeros(n_models, dtype=torch.int64, device=device),
        )

    @property
    def sweep(self) -> int:
        """Sweeps done of the models in this round."""
        return self.state.sweep

    def draws(self, problem: ChainProblem, n_draws: int) -> Draws:
        """The first so many draws of this round's models, and those that are settled of the others."""
        own = join_draws(self.kept).first(n_draws)
        if self.settled is None:
            return own
        return self.settled.replace(self.models, problem.rows_of(self.models), own)

    @property
    def n_sweeps_of_models(self) -> Tensor:
        """Sweeps done of all models, int64 [M]."""
        return self.n_sweeps.index_fill(0, self.models, self.sweep)

    @staticmethod
    def target(n_sweeps: int, burn_in: int, round_: int) -> int:
        """Sweeps at the end of a round, if the first ends after ``n_sweeps``."""
        return n_sweeps + ((2 << round_) - 2) * (n_sweeps - burn_in)

    def problem_of_round(self, problem: ChainProblem, n_sweeps: int) -> ChainProblem:
        """The problem of this round's models, all of whose sweeps may be kept in later rounds."""
        if self.round == 0:
            return problem
        schedule = problem.schedule
        begun = self.target(n_sweeps, schedule.burn_in, self.round - 1)
        thin = schedule.thin << self.round
        return problem.select(self.models, Schedule(begun, thin))

    def continued(self, problem: ChainProblem, n_sweeps: int) -> Iterator[tuple[ChainRun, StepInfo]]:
        """The runs after every launch of this round, whose first round has ``n_sweeps`` sweeps, and what was done."""
        run, own = self, self.problem_of_round(problem, n_sweeps)
        for state, info in sample(own, self.state, self.target(n_sweeps, problem.schedule.burn_in, self.round)):
            kept = (*run.kept, info.draws) if run.sweep >= own.schedule.burn_in else run.kept
            moves = run.split_merge.index_add(0, self.models, info.split_merge)
            run = replace(run, state=state, kept=kept, split_merge=moves)
            yield run, info

    def next_round(self, problem: ChainProblem, draws: Draws, going_on: Tensor) -> ChainRun:
        """The run of the next round: ``draws`` are those of all models, ``going_on`` (bool [A]) is of this round's."""
        # Rows within those of this round's models.
        rows = torch.repeat_interleave(going_on, problem.layout.sizes[self.models])
        return replace(
            self,
            state=self.state._replace(labels=self.state.labels[:, rows], alpha=self.state.alpha[going_on]),
            models=self.models[going_on],
            n_sweeps=self.n_sweeps_of_models,
            kept=(),
            round=self.round + 1,
            settled=draws,
        )

    def write(self, file: StateFile) -> None:
        """Write the run to a checkpoint, over an earlier one."""
        tensors = {"labels": self.state.labels, "alpha": self.state.alpha}
        tensors |= {"split_merge": self.split_merge, "models": self.models, "n_sweeps": self.n_sweeps}
        if self.state.best is not None:
            tensors |= {f"best_{name}": value for name, value in self.state.best._asdict().items()}
        if self.kept:
            tensors |= {f"draws_{name}": value for name, value in join_draws(self.kept)._asdict().items()}
        if self.settled is not None:
            tensors |= {f"settled_{name}": value for name, value in self.settled._asdict().items()}
        file.write(tensors, {"sweep": self.sweep, "round": self.round})

    @classmethod
    def read(cls, file: StateFile, problem: ChainProblem) -> ChainRun:
        """The run of a problem in a checkpoint.

        Raises
        ------
        ValueError
            If the file holds no run that can go on; other errors as of :meth:`StateFile.read`.
        """
        tensors, metadata = file.read()
        _check(str(file.path), tensors, metadata, problem)
        device = problem.points.device
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}

        def of(kind: type, prefix: str) -> object | None:
            names = kind._fields  # type: ignore[attr-defined]
            return kind(**{n: tensors[prefix + n] for n in names}) if prefix + names[0] in tensors else None

        kept, best, settled = of(Draws, "draws_"), of(SearchResult, "best_"), of(Draws, "settled_")
        state = ChainState(int(metadata["sweep"]), tensors["labels"], tensors["alpha"], best)  # type: ignore[arg-type]
        return cls(
            state,
            tensors["split_merge"],
            tensors["models"],
            tensors["n_sweeps"],
            (kept,) if isinstance(kept, Draws) else (),
            int(metadata["round"]),
            settled if isinstance(settled, Draws) else None,
        )


def _check(where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], problem: ChainProblem) -> None:
    """Raise a ValueError unless these are the tensors and numbers of a run of the problem."""
    expected = {"models": "int A", "n_sweeps": "int M", "split_merge": "int M C 4", "labels": "int C B"}
    expected |= {"alpha": "float A C"}
    expected |= _of_draws("draws_", "S C B", "A C S") if "draws_labels" in tensors else {}
    expected |= _of_draws("settled_", "T C N", "M C T") if "settled_labels" in tensors else {}
    if "best_labels" in tensors:
        expected |= {"best_labels": "int C B", "best_alpha": "float A C", "best_log_joint": "float A C"}
    n_models, n_chains = problem.keys.shape
    n_points = len(problem.points)
    lengths = check_tensors(where, tensors, expected, M=n_models, C=n_chains, N=n_points)
    check_indices(where, tensors, ["models"], n_models)
    # Clusters are numbered from 0, no more of them than there are points.
    check_indices(where, tensors, [name for name in expected if name.endswith("labels")], n_points)
    models, counts = tensors["models"], (metadata.get("sweep"), metadata.get("round"))
    whole = bool((models.diff() > 0).all()) and int(problem.layout.sizes[models].sum()) == lengths["B"]
    if not whole or not all(type(count) is int and 0 <= count < 1 << 32 for count in counts):
        raise ValueError(f"{where} is no checkpoint of these models after a number of sweeps: delete it.")


def _of_draws(prefix: str, labels: str, traces: str) -> dict[str, str]:
    """The tensors of :class:`Draws` under names with a prefix."""
    expected = {f"{prefix}labels": f"int {labels}", f"{prefix}n_components": f"int {traces}"}
    return {**expected, **{f"{prefix}{name}": f"float {traces}" for name in ("alpha", "log_joint")}}
