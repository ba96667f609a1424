"""How time and memory grow with models, points, dimensions and components: ``python -m benchmarks.scaling``.

Each axis is doubled from a common shape, all else fixed. Seconds are of the processor, over all threads, and the
smallest of three, so that other work on the machine counts little; memory is how far the resident set grows while a fit
runs. The exponent is the slope of the logarithm over that of the axis: one is linear. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import fastdens as fd

ROOT = Path(__file__).parents[1]
BASE = {"M": 64, "N": 1000, "D": 32, "K": 4}
# Components of the sampler follow from the data; its shape has that many clusters, well apart.
AXES = {"M": (32, 64, 128, 256), "N": (500, 1000, 2000, 4000), "D": (16, 32, 64, 128), "K": (2, 4, 8, 16)}
MIB = 1 << 20
# Of glibc's malloc.h.
LIBC, M_MMAP_THRESHOLD = ctypes.CDLL(None), -3


def batch_of(shape: dict[str, int]) -> fd.RaggedBatch:
    generator = torch.Generator().manual_seed(0)
    m, n, d, k = shape["M"], shape["N"], shape["D"], shape["K"]
    centres = 20 * torch.randn(m, k, d, generator=generator)
    label = torch.arange(m * n) % k
    points = torch.randn(m * n, d, generator=generator) + centres[torch.arange(m * n) // n, label]
    return fd.RaggedBatch(points, torch.arange(m + 1) * n, torch.arange(m * n), tuple(range(m)))


def estimator(name: str, shape: dict[str, int]):
    if name == "EM":
        return fd.GaussianMixtures(shape["K"], max_iter=5, tol=0)
    # Chains start from the clusters that there are.
    labels = torch.arange(shape["M"] * shape["N"]) % shape["K"]
    return fd.DirichletProcessMixtures(
        n_sweeps=8, burn_in=7, thin=1, search=0, split_merge=0, labels_init=labels, progress=False
    )


def status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) << 10


def measure(name: str, shape: dict[str, int]) -> dict[str, float]:
    """Seconds of the processor and MiB of a fit."""
    batch = batch_of(shape)
    # All but small arrays come from the system and go back to it, so that none is taken unseen from what is free.
    LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 14)
    LIBC.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    held = status("VmRSS")
    estimator(name, shape).fit(batch)
    growth = status("VmHWM") - held
    LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 25)
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        estimator(name, shape).fit(batch)
        seconds.append(time.process_time() - begin)
    return {"seconds": round(min(seconds), 4), "mib": round(growth / MIB, 1)}


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "scaling.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in ("EM", "Gibbs"):
        estimator(name, {**BASE, "M": 2}).fit(batch_of({**BASE, "M": 2}))
        for axis, values in AXES.items():
            found = [measure(name, {**BASE, axis: value}) for value in values]
            exponents = {
                what: round(float(np.polyfit(np.log(values), np.log([max(row[what], 1e-3) for row in found]), 1)[0]), 2)
                for what in ("seconds", "mib")
            }
            rows.append({"method": name, "axis": axis, "values": values, "exponents": exponents, "measured": found})
            print(
                f"{name:6} {axis}  seconds^{exponents['seconds']:5.2f}  memory^{exponents['mib']:5.2f}",
                found,
                flush=True,
            )
    facts = {"base": BASE, "threads": torch.get_num_threads(), "torch": torch.__version__}
    options.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
