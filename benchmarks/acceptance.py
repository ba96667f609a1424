"""The figures that the library promises on two CPU cores, measured in one run: ``python -m benchmarks.acceptance``.

Float32, full covariances, random start: fits of 100 models of 500 points and of one large model, over the time of
their two batched matrix products alone; 100 models of 500 x 64 beside a loop over scikit-learn and gmm-gpu; 4,000
models of 50 x 16; and peak memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.peers import fastdens_fit, gmm_gpu_fit, sklearn_fit
from fastdens.bench.cases import Problem
from fastdens.bench.floors import products_of_em
from fastdens.bench.problems import PROBLEMS, clustered_points

PAPER = PROBLEMS["paper-64"]
SMALL = Problem("small", 4000, 50, 16, 2)
N_ITER = 20
# Problems, iterations, and the most that a fit may take of the time of its products.
OVER_PRODUCTS = (
    (PROBLEMS["paper-16"], N_ITER, 2.5),
    (PAPER, N_ITER, 1.3),
    (Problem("paper-256", 100, 500, 256, 6), 5, 1.6),
    (Problem("one-large", 1, 100_000, 64, 16), 5, 1.3),
)
# 500 points in 256 dimensions leave six covariances of full rank to it.
REG_COVAR = 1e-2


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def resident(field: str) -> int:
    """Bytes of resident memory from Linux's /proc/self/status: "VmRSS" now, "VmHWM" at the highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory_ratio() -> float:
    """Points plus what the fit adds to the process at its peak, in units of points plus parameters."""
    for d in (5, PAPER.n_features):
        warm = PAPER._replace(n_models=2, n_features=d)
        fastdens_fit(clustered_points(warm)[0], warm.n_components, 2, "full")()
    points = clustered_points(PAPER)[0]
    run = fastdens_fit(points, PAPER.n_components, 3, "full")
    before = resident("VmRSS")
    # Writing 5 brings the high-water mark down to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    run()
    grown = resident("VmHWM") - before
    m, k, d = PAPER.n_models, PAPER.n_components, PAPER.n_features
    own = points.numel() * 4
    return (own + grown) / (own + 4 * m * k * (d * d + d + 1))


def over_products(problem: Problem, n_iter: int) -> float:
    """Time of a fit in units of the time of its products, the median of five rounds."""
    points = clustered_points(problem)[0]
    ours = fastdens_fit(points, problem.n_components, n_iter, "full", reg_covar=REG_COVAR)
    floor = products_of_em(points, problem.n_components, n_iter)
    for warm_up in (ours, floor):
        warm_up()
    # Interleaved, so that a busy moment of the machine falls on both alike.
    return median(seconds(ours) / seconds(floor) for _ in range(5))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:] == ["--memory"]:
        print(memory_ratio())
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for problem, n_iter, target in OVER_PRODUCTS:
        ratio = over_products(problem, n_iter)
        print(f"over the products    {ratio:8.2f}   {problem.name} (target: at most {target})", flush=True)
    points = clustered_points(PAPER)[0]
    k = PAPER.n_components
    ours = fastdens_fit(points, k, N_ITER, "full")
    small = fastdens_fit(clustered_points(SMALL)[0], SMALL.n_components, N_ITER, "full")
    gmm_all, gmm_start = gmm_gpu_fit(points, k, N_ITER), gmm_gpu_fit(points, k, 0)
    for warm_up in (ours, small):
        warm_up()
    t_ours, t_small = (median(seconds(run) for _ in range(7)) for run in (ours, small))
    t_sklearn = seconds(sklearn_fit(points, k, N_ITER, "full"))
    t_gmm = min(seconds(gmm_all) - seconds(gmm_start) for _ in range(2))
    memory = float(
        subprocess.run(
            [sys.executable, "-m", "benchmarks.acceptance", "--memory"], capture_output=True, text=True, check=True
        ).stdout
    )
    print(f"{PAPER.name}, K = {k}, {N_ITER} iterations: fastdens {t_ours:.3f} s")
    print(f"scikit-learn         {t_sklearn / t_ours:8.1f}x  {t_sklearn:.1f} s (target: at least 15)")
    print(f"gmm-gpu, EM alone    {t_gmm / t_ours:8.1f}x  {t_gmm:.1f} s (target: at least 6)")
    print(f"4,000 x 50 x 16      {t_small:8.2f} s  (target: under 2)")
    print(f"peak memory          {memory:8.2f}   points plus parameters (target: under 3)")


if __name__ == "__main__":
    main()
