"""A benchmark from its rows to its results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from fastdens.bench import machine, table
from fastdens.bench.cases import Peer
from fastdens.bench.exponents import measure_exponents
from fastdens.bench.measure import measure
from fastdens.bench.ours import OURS
from fastdens.bench.results import PeerFacts, Results
from fastdens.bench.rows import FULL, QUICK, Row
from fastdens.bench.threads import measure_threads
from fastdens.bench.timing import Budget
from fastdens.bench.warm_up import warm_up

QUICK_BUDGET = Budget(seconds=0.1, rounds=2, patience=2.0)
FULL_BUDGET = Budget(seconds=1.5, rounds=3, patience=20.0, max_bytes=4 << 30)

Tell = Callable[[str], None]
Keep = Callable[[Results], object]


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


def run(plan: Plan, tell: Tell, keep: Keep = lambda results: None, ours: Peer = OURS) -> Results:
    """Measure, and tell about each row when it is done.

    Parameters
    ----------
    plan : Plan
    tell : callable
        Takes lines of text.
    keep : callable
        Takes the results so far, after each row: what an interruption leaves.
    ours : Peer
        What the others are compared with.
    """
    begin = time.perf_counter()
    results = Results(machine.describe(), peers=tuple(_facts(peer) for peer in plan.peers), quick=plan.quick)
    warm_up(plan.rows, plan.peers, ours)
    for row in plan.rows:
        found = measure(row, plan.peers, plan.budget, ours)
        results = replace(results, rows=(*results.rows, found), seconds=time.perf_counter() - begin)
        keep(results)
        tell(f"{table.describe_row(found)}\n")
    if plan.scaling:
        results = replace(
            results,
            exponents=tuple(measure_exponents(quick=plan.quick)),
            threads=tuple(measure_threads(torch.get_num_threads(), quick=plan.quick)),
        )
    return replace(results, seconds=time.perf_counter() - begin)


def _facts(peer: Peer) -> PeerFacts:
    distribution = peer.distribution.partition("==")[0]
    return PeerFacts(peer.name, peer.distribution, machine.installed_version(distribution), peer.beyond)
