"""Two processes against one, a thread each: ``python -m benchmarks.distributed``.

400 models of the paper's shape, 500 points in 64 dimensions: EM with six components, and a short run of the Gibbs
sampler. The ranks stay alive and take turns: rank 0 fits alone while the others wait, then all fit together; the
shortest of several turns counts, since other programs only ever make it longer. The exchange of the results and the
checks that all ranks agree are in the time. On a busy machine the processor time of the busiest rank tells what a quiet
one would show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import fastdens as fd
from fastdens.bench.cases import Problem
from fastdens.bench.problems import clustered_points
from fastdens.process_group import current_group

ROOT = Path(__file__).parents[1]
MODELS, POINTS, FEATURES, COMPONENTS = 400, 500, 64, 6


def estimators(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is fitted."""
    sweeps = options.sweeps
    chains = {"n_sweeps": sweeps, "burn_in": sweeps - 2, "thin": 1, "progress": False, "init_components": COMPONENTS}
    return {
        "EM": lambda: fd.GaussianMixtures(COMPONENTS, max_iter=options.iterations, tol=0),
        "Gibbs": lambda: fd.DirichletProcessMixtures(**chains),
    }


def measure(options: argparse.Namespace) -> None:
    """What each rank does; rank 0 writes the report."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group = current_group()
    points = clustered_points(Problem("paper", options.models, POINTS, FEATURES, COMPONENTS))[0]
    batch = fd.RaggedBatch.from_list(list(points))
    few = batch.select(torch.arange(4))
    report: dict[str, Any] = {"models": options.models, "points": POINTS, "features": FEATURES, "ranks": group.size}
    for name, make in estimators(options).items():
        # Compiles.
        make().fit(few)
        alone, together, alone_cpu, together_cpu = [], [], [], []
        for _ in range(options.turns):
            group.barrier()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            if group.rank == 0:
                make().fit(batch)
                alone.append(time.perf_counter() - begin)
                alone_cpu.append(time.process_time() - begin_cpu)
            group.barrier()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            fd.distributed.fit(make(), batch)
            cpu = torch.tensor(time.process_time() - begin_cpu, dtype=torch.float64)
            group.barrier()
            together.append(time.perf_counter() - begin)
            together_cpu.append(float(group.all_gather_tensor(cpu).max()))
        if group.rank == 0:
            plan = fd.distributed.plan(make(), batch, group.size)
            report[name] = {
                "one process": alone,
                "all processes": together,
                "times as fast": min(alone) / min(together),
                "processor, one process": alone_cpu,
                "processor, the busiest of all": together_cpu,
                "times as fast, by processor": min(alone_cpu) / min(together_cpu),
                "result bytes": plan.result_bytes,
            }
            print(
                f"{name}: {min(alone):.2f} s in one process, {min(together):.2f} s in {group.size}, "
                f"{min(alone) / min(together):.2f} times as fast; by processor time {min(alone_cpu):.2f} s and "
                f"{min(together_cpu):.2f} s, {min(alone_cpu) / min(together_cpu):.2f} times; {plan}",
                flush=True,
            )
    if group.rank == 0:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    group.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks with torchrun, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/distributed.json")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--sweeps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--is-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.is_rank:
        measure(options)
        return
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.ranks}"]
    subprocess.run([*launcher, "-m", "benchmarks.distributed", *sys.argv[1:], "--is-rank"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
