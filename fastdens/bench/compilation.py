"""Kernels are compiled before anything is timed: those of the sampler in a process of their own, as they take longest.

A kernel that is compiled lies in numba's cache, where the process that times it finds it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

from fastdens.bench.cases import Problem
from fastdens.bench.ours import OURS
from fastdens.bench.rows import Row, case_of
from fastdens.bench.timing import quiet

# More dimensions than factors.
_SMALL = Problem("small enough", 2, 60, 12, 2)
# So many sweeps leave enough draws for an R-hat.
_N_ITER = 16
_SAMPLER = ("gibbs", "chains")


def compile_kernels(rows: Iterable[Row]) -> None:
    """Run every operation and variant of the rows once, on little data."""
    kinds = dict.fromkeys(Row(row.operation, row.variant, "", min(row.n_iter, _N_ITER)) for row in rows)
    of_sampler = sorted({row.operation for row in kinds if row.operation in _SAMPLER})
    # Where it fails, the kernels are compiled when they are timed, in the call that does not count.
    command = [sys.executable, "-m", "fastdens.bench.compilation", *of_sampler]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if of_sampler else None
    try:
        _run(row for row in kinds if row.operation not in _SAMPLER)
    finally:
        if other is not None:
            other.wait()


def _run(rows: Iterable[Row]) -> None:
    with quiet():
        for row in rows:
            # An operation that fails is told where its row is timed.
            with suppress(Exception):
                OURS.operations[row.operation](case_of(row, _SMALL)).work()


if __name__ == "__main__":
    _run(Row(operation, "", "", _N_ITER) for operation in sys.argv[1:])
