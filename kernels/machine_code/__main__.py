"""The command line of :mod:`fastdens.kernels.machine_code`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fastdens.kernels.machine_code import (
    TARGETS,
    KernelReport,
    OperationReport,
    kernel_reports,
    operation_reports,
)
from fastdens.kernels.machine_code.operations import benchmark_shapes
from fastdens.kernels.machine_code.roofline import CARDS


def print_kernels(reports: Sequence[KernelReport], with_mix: bool) -> None:
    """One line for each variant and target."""
    print(
        f"{'kernel':24} {'operation':28} {'shape':38} {'target':>6} {'registers':>9} {'spilled':>7} {'shared':>6}",
        end="",
    )
    print(" instructions" if with_mix else "")
    for r in reports:
        code = r.code
        print(f"{r.kernel:24} {r.operation:28} {r.shape:38} {'sm_' + str(r.target):>6} {code.registers:9} ", end="")
        mix = " ".join(f"{n} {opcode}" for opcode, n in code.mix.items()) if with_mix else ""
        print(f"{code.spill_bytes:7} {code.shared_bytes:6}", f"{code.n_instructions}: {mix}" if with_mix else "")


def print_operations(reports: Sequence[OperationReport], card: str) -> None:
    """One line for each operation and shape."""
    print(f"{'operation':28} {'shape':44} {'launches':>8} {'MB':>9} {'Gflop':>8} estimate at best, {card}")
    for r in reports:
        n_operations = "" if r.n_operations is None else f"{r.n_operations / 1e9:.3g}"
        best = "" if r.estimate is None else f"{1e6 * r.estimate.seconds:.3g} us ({r.estimate.limit})"
        print(f"{r.operation:28} {r.shape:44} {r.n_launches:8} {r.n_bytes / 1e6:9.3g} {n_operations:>8} {best}")


def main() -> None:
    """Compile, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m fastdens.kernels.machine_code", description=__doc__)
    parser.add_argument("--targets", type=int, nargs="+", help="compute capabilities, 90 for sm_90")
    parser.add_argument("--report", action="store_true", help="add instructions and operations, for sm_90 alone")
    parser.add_argument("--card", choices=CARDS, default="H100", help="the card of the estimates")
    parser.add_argument("--output", type=Path, help="with --report, a JSON file to write it to")
    arguments = parser.parse_args()
    if arguments.output and not arguments.report:
        parser.error("--output is where --report writes: add --report.")
    recorded = list(benchmark_shapes())
    targets = arguments.targets or ((90,) if arguments.report else TARGETS)
    kernels = kernel_reports(recorded, targets, n_processes=len(os.sched_getaffinity(0)))
    print_kernels(kernels, arguments.report)
    if not arguments.report:
        return
    card = CARDS[arguments.card]
    operations = operation_reports(recorded, card)
    print()
    print_operations(operations, card.name)
    if arguments.output:
        import triton

        content = {
            "triton": triton.__version__,
            "kernels": [asdict(report) | {"code": report.code._asdict()} for report in kernels],
            "card": asdict(card),
            "operations": [asdict(report) for report in operations],
        }
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
