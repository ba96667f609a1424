"""Machine code of every Triton kernel, made and measured with no GPU present.

``python -m fastdens.kernels.machine_code`` runs the operations of this package at the shapes of the benchmarks, writes
down what they launch, compiles that and prints registers per thread, spilled bytes and shared memory per program, as
told by the ``ptxas`` that comes with Triton; ``--report`` adds the mix of instructions, and for each operation its
launches, bytes, floating-point operations and an estimate against the roofline of a card. It needs the compiler, hence
a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastdens.kernels.machine_code.assembly import Code, assemble
from fastdens.kernels.machine_code.operations import Recorded
from fastdens.kernels.machine_code.recording import Launch
from fastdens.kernels.machine_code.roofline import Card, Estimate, estimate

TARGETS = (80, 90, 100)
MAX_SHARED_BYTES = 99 * 1024
MAX_REGISTERS = 255


@dataclass(frozen=True)
class KernelReport:
    """The machine code of one variant of a kernel, and the first operation and shape that launch it."""

    kernel: str
    operation: str
    shape: str
    target: int
    code: Code


@dataclass(frozen=True)
class OperationReport:
    """What one operation launches, moves and computes at one shape, and how long a card takes for it at best."""

    operation: str
    shape: str
    n_launches: int
    n_bytes: int
    n_operations: int | None
    estimate: Estimate | None


class _First(NamedTuple):
    launch: Launch
    operation: str
    shape: str


def kernel_reports(
    recorded: Iterable[Recorded], targets: Sequence[int] = (90,), n_processes: int = 1
) -> list[KernelReport]:
    """Compile every variant that was launched, once for each target.

    Parameters
    ----------
    recorded : iterable of Recorded
    targets : sequence of int
        Compute capabilities, 80 for sm_80.
    n_processes : int
        Processes that compile side by side.
    """
    firsts: dict[object, _First] = {}
    for operation in recorded:
        for launch in operation.launches:
            firsts.setdefault(launch.variant, _First(launch, operation.operation, str(operation.shape)))
    work = [(first, target) for first in firsts.values() for target in targets]
    if n_processes == 1:
        codes = [assemble(first.launch, target) for first, target in work]
    else:
        # Kernels cannot be pickled: the processes inherit them.
        with multiprocessing.get_context("fork").Pool(n_processes, _inherit, (work,)) as pool:
            codes = pool.map(_assemble_inherited, range(len(work)), chunksize=1)
    return [
        KernelReport(first.launch.name, first.operation, first.shape, target, code)
        for (first, target), code in zip(work, codes, strict=True)
    ]


def operation_reports(recorded: Iterable[Recorded], card: Card) -> list[OperationReport]:
    """Launches, bytes and operations of each operation at each shape, and the estimate for a card."""
    reports = []
    for operation in recorded:
        n_bytes = sum(launch.n_bytes for launch in operation.launches)
        best, work = None, operation.n_operations
        if work is not None and operation.launches:
            best = estimate(card, operation.shape.dtype, operation.shape.matmul_precision, work, n_bytes)
        shape = str(operation.shape)
        reports.append(OperationReport(operation.operation, shape, len(operation.launches), n_bytes, work, best))
    return reports


_inherited: list[tuple[_First, int]] = []


def _inherit(work: list[tuple[_First, int]]) -> None:
    _inherited[:] = work


def _assemble_inherited(at: int) -> Code:
    first, target = _inherited[at]
    return assemble(first.launch, target)
