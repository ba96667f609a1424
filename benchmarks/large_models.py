"""How the time of a sweep grows with the points of one model: ``python -m benchmarks.large_models``.

One model of eight Gaussians in 64 dimensions, two chains, a thread each; sweeps with split-merge moves at their default
rate, from the labels that were drawn and from six random ones. The exponent is the slope of log seconds over log N:
one is linear.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from fastdens.kernels.layout import Layout
from torch import Tensor

from benchmarks.chains import planted
from fastdens import kernels
from fastdens.distributions.niw import data_prior
from fastdens.inference.gibbs import stream_keys
from fastdens.inference.schedule import Schedule, moves_by_default
from fastdens.inference.starts import random_labels

ROOT = Path(__file__).parents[1]
FEATURES, CHAINS, SWEEPS, RANDOM_LABELS = 64, 2, 8, 6
SIZES = (3_000, 10_000, 30_000, 100_000)


def seconds_of_a_sweep(points: Tensor, labels: Tensor | None, seed: int) -> float:
    """Of both chains, side by side, the set-up of a launch of eight sweeps included."""
    layout = Layout.from_offsets(torch.tensor([0, len(points)]), len(points))
    prior = data_prior(points, layout, init_components=RANDOM_LABELS)
    keys = stream_keys(points, layout, CHAINS, seed)
    start = random_labels(keys, layout, RANDOM_LABELS) if labels is None else labels.expand(CHAINS, -1)
    rate = moves_by_default(layout.sizes, FEATURES)
    moves = Schedule(0, 1).moves(0, SWEEPS, torch.tensor([False]), rate)
    begin = time.perf_counter()
    kernels.gibbs_sweep(
        points,
        layout,
        start.int().contiguous(),
        torch.ones(1, CHAINS, dtype=torch.float64),
        keys,
        prior.mean,
        prior.scale_diagonal,
        kappa0=prior.kappa,
        nu0=prior.nu,
        n_sweeps=SWEEPS,
        thin=SWEEPS,
        split_merge=moves,
    )
    return (time.perf_counter() - begin) / SWEEPS


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/large_models.json")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report: dict[str, object] = {"threads": torch.get_num_threads(), "points": list(options.sizes)}
    problems = [planted(FEATURES, 1, False, options.seed, n_points=n) for n in options.sizes]
    # The first call compiles.
    seconds_of_a_sweep(problems[0].batch.points[:100], None, options.seed)
    for name in ("drawn labels", "random labels"):
        times = [
            seconds_of_a_sweep(p.batch.points, p.labels if name == "drawn labels" else None, options.seed)
            for p in problems
        ]
        exponent = float(np.polyfit(np.log(options.sizes), np.log(times), 1)[0]) if len(times) > 1 else float("nan")
        report[name] = {"seconds of a sweep": times, "exponent": exponent}
        print(f"{name}:", ", ".join(f"{n:,} points {t:.3f} s" for n, t in zip(options.sizes, times, strict=True)))
        print(f"  exponent {exponent:.2f}", flush=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
