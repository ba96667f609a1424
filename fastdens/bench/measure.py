"""A row of the table: the data are made, fastdens and its peers do the work in turns, outcomes are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.comparison import agrees, difference
from fastdens.bench.floors import FLOORS
from fastdens.bench.ours import OURS
from fastdens.bench.problems import PROBLEMS
from fastdens.bench.results import NOT_INSTALLED, RowResult, Timing
from fastdens.bench.rows import Row, make_case
from fastdens.bench.timing import Budget, Contestant, check_room, enter, quiet, take_turns


def measure(row: Row, peers: Sequence[Peer], budget: Budget, ours: Peer = OURS) -> RowResult:
    """Time a row; one that fastdens fails at has its message, and no peers.

    Parameters
    ----------
    row : Row
    peers : sequence of Peer
        Those without the operation take no part.
    budget : Budget
    ours : Peer
        What the others are compared with.
    """
    try:
        return _measure(row, peers, budget, ours)
    except Exception as error:
        failed = Timing(ours.name, error=_message(error))
        return RowResult(row.name, row.operation, row.variant, row.n_iter, PROBLEMS[row.problem], failed)


def _measure(row: Row, peers: Sequence[Peer], budget: Budget, ours: Peer) -> RowResult:
    with quiet():
        case = make_case(row)
        make = ours.operations[row.operation]
        own = enter(ours.name, make, case, budget, scales=row.scales, whole=True)
        floor = _floor_of(case, budget, row)
        entered = [_enter_or_fail(peer, case, budget, row) for peer in peers if peer.has(row.operation, row.variant)]
        contestants = [own, *([floor] if floor else []), *(one for one in entered if isinstance(one, Contestant))]
        take_turns(contestants, budget)
        outcome = own.run.outcome(own.made)
        timings = tuple(one if isinstance(one, Timing) else _compared(one, case, make, outcome, row) for one in entered)
    return RowResult(
        row.name,
        row.operation,
        row.variant,
        row.n_iter,
        case.problem,
        Timing(own.name, own.seconds, own.n_models, len(own.times), own.is_warm, note=own.run.note),
        floor.seconds if floor else None,
        floor.run.note if floor else "",
        timings,
        _remark(row, outcome),
    )


def _floor_of(case: Case, budget: Budget, row: Row) -> Contestant | None:
    if row.operation not in FLOORS:
        return None

    def make(case: Case) -> Run:
        floor = FLOORS[case.operation](case)
        return Run(floor.work, lambda _: torch.empty(0, device="cpu", dtype=torch.float64), note=floor.what)

    return enter("floor", make, case, budget, scales=row.scales, whole=True)


def _enter_or_fail(peer: Peer, case: Case, budget: Budget, row: Row) -> Contestant | Timing:
    """A peer that has made its first calls, or the message with which it failed."""
    if find_spec(peer.module) is None:
        return Timing(peer.name, error=f"{NOT_INSTALLED}: pip install {peer.distribution}")
    try:
        fitting = check_room(peer, case, budget, scales=row.scales)
        make = peer.operations[row.operation]
        return enter(peer.name, make, fitting, budget, scales=row.scales, together=peer.together)
    except Exception as error:
        return Timing(peer.name, error=_message(error))


def _compared(contestant: Contestant, case: Case, make: Callable[[Case], Run], outcome: Tensor, row: Row) -> Timing:
    """The time of a peer for all models, and how far its outcome is from that of fastdens on the same models."""
    try:
        theirs = contestant.run.outcome(contestant.made)
    except Exception as error:
        return Timing(contestant.name, error=_message(error))
    if contestant.n_models < case.problem.n_models:
        run = make(case.first(contestant.n_models))
        outcome = run.outcome(run.work())
    found = difference(row.operation, outcome, theirs)
    uncertain = ("most of its time is taken off, so that this is uncertain",) if contestant.is_mostly_taken_off else ()
    return Timing(
        contestant.name,
        contestant.seconds * case.problem.n_models / contestant.n_models,
        contestant.n_models,
        len(contestant.times),
        contestant.is_warm,
        found if math.isfinite(found) else None,
        agrees(row.operation, found),
        "; ".join(filter(None, (contestant.run.note, *uncertain))),
    )


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _remark(row: Row, outcome: Tensor) -> str:
    if row.operation == "chains":
        return f"the chains of {int(outcome.sum())} of {len(outcome)} models agree"
    if row.operation == "gibbs":
        return f"{float(outcome.mean()):.1f} clusters a model"
    return ""
