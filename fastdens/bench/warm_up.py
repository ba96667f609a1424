"""What must not be timed comes first: kernels are compiled, libraries imported, each operation is called once.

The kernels of the sampler take longest. They are compiled in a process of their own, and the process that times them
finds them in numba's cache.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec

from fastdens.bench.cases import Peer, Problem
from fastdens.bench.ours import OURS
from fastdens.bench.rows import Row, case_of
from fastdens.bench.timing import quiet

# More dimensions than factors; and few, for which there are kernels of their own.
_PROBLEMS = (Problem("small enough", 2, 60, 12, 2), Problem("flat enough", 2, 20, 2, 2))
# So many sweeps leave enough draws for an R-hat.
_N_ITER = 16
_SAMPLER = ("gibbs", "chains")


def warm_up(rows: Iterable[Row], peers: Sequence[Peer], ours: Peer = OURS) -> None:
    """Let every library do each of its operations once, on little data."""
    kinds = dict.fromkeys(Row(row.operation, row.variant, "", min(row.n_iter, _N_ITER)) for row in rows)
    of_sampler = [row for row in kinds if row.operation in _SAMPLER]
    # Where it fails, the kernels are compiled when they are timed, in the call that does not count.
    command = [sys.executable, "-m", "fastdens.bench.warm_up", *sorted({row.operation for row in of_sampler})]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if of_sampler else None
    try:
        _call(ours, [row for row in kinds if row not in of_sampler])
        for peer in peers:
            if find_spec(peer.module) is not None:
                _call(peer, kinds)
    finally:
        if other is not None:
            other.wait()


def _call(library: Peer, rows: Iterable[Row]) -> None:
    with quiet():
        for row in rows:
            for problem in _PROBLEMS if library.has(row.operation, row.variant) else ():
                # What fails is told where its row is timed.
                with suppress(Exception):
                    library.operations[row.operation](case_of(row, problem)).work()


if __name__ == "__main__":
    _call(OURS, [Row(operation, "", "", _N_ITER) for operation in sys.argv[1:]])
