"""The figures that the sampler promises on two CPU cores, in one run: ``python -m benchmarks.sampler_acceptance``.

``kernels.gibbs_sweep`` on 100 models of 500 points at D = 16 and 64, in six clusters well apart, where dpgmm 0.2.0
sweeps one of the models from the same labels, and in six that overlap; and the paper's whole estimation. A sweep costs
more where there are more clusters and where more points change theirs, so both are beside it. Chains stay for long
where they start, so there are two starts: the clusters that were drawn, and random ones. Machines are shared: beside
the clock's seconds are those of CPU time over the number of threads, the least that the clock could show if nobody
else were there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import fastdens as fd
from benchmarks.sweeps import PAPER_STAGES, PAPER_SWEEPS, SWEEPS_A_LAUNCH, gaussian_clusters, sweeper
from fastdens.bench.peers.dpgmm import dpgmm_sweeps

ROOT = Path(__file__).parents[1]
MODELS, POINTS = 100, 500
SETTLING, TIMED = 5, 5
TARGET_MS = {16: 0.15, 64: 0.6}
APART, OVERLAPPING = 4.0, 1.0


def share_that_moves(labels: Tensor, n_models: int) -> float:
    """Of the points, those that change cluster from one sweep to the next; labels [W, 1, M * N].

    Clusters of two sweeps are the same that share most of their points.
    """
    stayed = 0
    for before, after in zip(labels[:-1, 0], labels[1:, 0], strict=True):
        k = int(torch.maximum(before, after).max()) + 1
        model = torch.arange(n_models).repeat_interleave(len(before) // n_models)
        shared = torch.bincount((model * k + before) * k + after, minlength=n_models * k * k)
        stayed += int(shared.reshape(-1, k).max(1).values.sum())
    return 1 - stayed / labels[1:].numel()


def sweep_row(d: int, separation: float, start: str, peer_sweeps: int, seed: int) -> dict[str, Any]:
    """Milliseconds of a sweep of a model once chains have settled, over launches of 16 sweeps of all models."""
    problem = gaussian_clusters(MODELS, POINTS, d, separation, seed)
    go_on = sweeper(problem, problem.labels if start == "drawn" else None)
    for _ in range(SETTLING):
        before = go_on(SWEEPS_A_LAUNCH)
    walls, cpus, counts = [], [], []
    for _ in range(TIMED):
        wall, cpu = time.perf_counter(), time.process_time()
        done = go_on(SWEEPS_A_LAUNCH)
        walls.append(time.perf_counter() - wall)
        cpus.append((time.process_time() - cpu) / torch.get_num_threads())
        counts.append(float(done.n_components.float().mean()))
    to_ms = 1e3 / (SWEEPS_A_LAUNCH * MODELS)
    own_ms, own_cpu_ms = median(walls) * to_ms, median(cpus) * to_ms
    row = {
        "D": d,
        "clusters drawn": "apart" if separation == APART else "overlapping",
        "start": start,
        "clusters found": sum(counts) / len(counts),
        "ms": own_ms,
        "ms, fastest launch": min(walls) * to_ms,
        "ms of CPU time over threads": own_cpu_ms,
        "target ms": TARGET_MS[d],
    }
    if peer_sweeps:
        threads = torch.get_num_threads()
        # Its operations are small: a second thread slows it down.
        torch.set_num_threads(1)
        # The first includes the set-up.
        peer = dpgmm_sweeps(problem.points[:POINTS], 1 + peer_sweeps, before.labels[-1, 0, :POINTS].long())[1:]
        torch.set_num_threads(threads)
        row["clusters of that model"] = float(done.n_components[0].float().mean())
        row["dpgmm, clusters"] = sum(len(sweep.trace["cluster_assignment"]) for sweep in peer) / len(peer)
        row["dpgmm, ms"] = median(sweep.seconds for sweep in peer) * 1e3
        row["dpgmm, ms of CPU time"] = median(sweep.cpu_seconds for sweep in peer) * 1e3
        row["dpgmm, times as long"] = row["dpgmm, ms"] / own_ms
        row["dpgmm, times as long by CPU time"] = row["dpgmm, ms of CPU time"] / own_cpu_ms
    row["share of points that move"] = share_that_moves(go_on(SWEEPS_A_LAUNCH, thin=1).labels, MODELS)
    return row


def whole_estimation(separation: float, seed: int) -> dict[str, Any]:
    """The paper's: four stages of 100 classes of 500 points, 400 sweeps of each from a random start."""
    row: dict[str, Any] = {"stages": PAPER_STAGES, "clusters drawn": "apart" if separation == APART else "overlapping"}
    row |= {"clusters found": [], "seconds": 0.0, "seconds of CPU time over threads": 0.0, "target seconds": 75}
    for stage, d in enumerate(PAPER_STAGES):
        batch = gaussian_clusters(MODELS, POINTS, d, separation, seed + stage).batch
        wall, cpu = time.perf_counter(), time.process_time()
        dp = fd.DirichletProcessMixtures(n_sweeps=PAPER_SWEEPS, progress=False).fit(batch)
        row["seconds"] += time.perf_counter() - wall
        row["seconds of CPU time over threads"] += (time.process_time() - cpu) / torch.get_num_threads()
        row["clusters found"].append(float(dp.n_components_.float().mean()))
    return row


def main() -> None:
    """Measure, print, and keep what there is after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/sampler-cpu-x86_64-2-threads.json")
    parser.add_argument("--peer-sweeps", type=int, default=3, help="0 leaves dpgmm out")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    report |= {"seed": arguments.seed, "rows": []}

    def keep(row: dict[str, Any]) -> None:
        report["rows"].append({**row, "machine's load": os.getloadavg()[0]})
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
        print(
            *(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in row.items())
        )
        print(flush=True)

    # The first call compiles.
    sweeper(gaussian_clusters(2, 20, 2, APART, 0))(4)
    for separation, start in ((APART, "drawn"), (OVERLAPPING, "drawn"), (OVERLAPPING, "random")):
        for d in TARGET_MS:
            keep(sweep_row(d, separation, start, arguments.peer_sweeps if separation == APART else 0, arguments.seed))
    for separation in (APART, OVERLAPPING):
        keep(whole_estimation(separation, arguments.seed))


if __name__ == "__main__":
    main()
