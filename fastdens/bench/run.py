"""A benchmark from its rows to its results."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from fastdens.bench import machine, table
from fastdens.bench.cases import Peer
from fastdens.bench.compilation import compile_kernels
from fastdens.bench.exponents import measure_exponents
from fastdens.bench.measure import measure
from fastdens.bench.ours import OURS
from fastdens.bench.results import Exponent, PeerFacts, Results, RowResult, ThreadTime
from fastdens.bench.rows import FULL, QUICK, Row
from fastdens.bench.threads import measure_threads
from fastdens.bench.timing import Budget

QUICK_BUDGET = Budget(seconds=0.1, rounds=2, patience=2.0)
FULL_BUDGET = Budget(seconds=1.5, rounds=3, patience=20.0, max_bytes=4 << 30)

Tell = Callable[[str], None]


class Plan(NamedTuple):
    """What is measured.

    Attributes
    ----------
    rows : tuple of Row
    peers : tuple of Peer
    quick : bool
        Less time for each library, and fewer values for exponents.
    scaling : bool
        Exponents and threads, too.
    """

    rows: tuple[Row, ...]
    peers: tuple[Peer, ...]
    quick: bool = False
    scaling: bool = True

    @property
    def budget(self) -> Budget:
        """How long each library is tried in a row."""
        return QUICK_BUDGET if self.quick else FULL_BUDGET


def rows_of(quick: bool) -> tuple[Row, ...]:
    """The rows that there are."""
    return QUICK if quick else FULL


def run(plan: Plan, tell: Tell, ours: Peer = OURS) -> Results:
    """Measure, and tell about each row when it is done, or why it could not be measured.

    Parameters
    ----------
    plan : Plan
    tell : callable
        Takes lines of text.
    ours : Peer
        What the others are compared with.
    """
    begin = time.perf_counter()
    facts = machine.describe()
    compile_kernels(plan.rows)
    rows: list[RowResult] = []
    for row in plan.rows:
        try:
            rows.append(measure(row, plan.peers, plan.budget, ours))
        except (ArithmeticError, RuntimeError, ValueError) as error:
            tell(f"{row.name}  is left out ({type(error).__name__}: {error})\n")
            continue
        tell(f"{table.describe_row(rows[-1])}\n")
    exponents: tuple[Exponent, ...] = ()
    threads: tuple[ThreadTime, ...] = ()
    if plan.scaling:
        exponents = tuple(measure_exponents(quick=plan.quick))
        threads = tuple(measure_threads(torch.get_num_threads(), quick=plan.quick))
    peers = tuple(_facts(peer) for peer in plan.peers)
    return Results(facts, tuple(rows), exponents, threads, peers, plan.quick, time.perf_counter() - begin)


def _facts(peer: Peer) -> PeerFacts:
    distribution = peer.distribution.partition("==")[0]
    return PeerFacts(peer.name, peer.distribution, machine.installed_version(distribution), peer.beyond)
