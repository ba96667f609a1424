"""A GPU's first minutes: run the ``gpu`` tests, measure the device, time the sampler and the grid of Gaussian mixtures,
write ``results/<device>.json``.

``python -m benchmarks.gpu [--minutes 8] [--output PATH]``; ``--interpret --output PATH`` tries the script itself on
a tiny grid in Triton's interpreter, with no GPU. The package is imported from the source tree if it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]


def make_importable() -> None:
    """Lay the source tree out as the package installs, where it is not installed, for this process and its tests."""
    layout = Path(tempfile.mkdtemp()) / "fastdens"
    layout.mkdir()
    for entry in (ROOT / "fastdens").iterdir():
        (layout / entry.name).symlink_to(entry)
    (layout / "kernels").symlink_to(ROOT / "kernels")
    sys.path.insert(0, str(layout.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(layout.parent), os.environ.get("PYTHONPATH", "")])


def run_tests(limit: float) -> dict[str, Any]:
    """The ``gpu`` tests in a process of their own: exit code and the last line that pytest prints."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x", str(ROOT / "tests")]
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "summary": f"stopped after {limit:.0f} s"}
    print(done.stdout[-3000:])
    return {"exit_code": done.returncode, "summary": done.stdout.strip().splitlines()[-1]}


def event_time(run: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a call, by CUDA events; by the clock where there is no GPU."""
    import torch

    run()
    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return median(times)


def measure_device(device: str, size: int) -> dict[str, float]:
    """Copy bandwidth in bytes per second, and rates of float32 matrix products in operations per second."""
    import torch

    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    rates = {"bytes_per_s": 8 * a.numel() / event_time(lambda: b.copy_(a))}
    for name, allowed in (("ieee", False), ("tf32", True)):
        torch.backends.cuda.matmul.allow_tf32 = allowed
        rates[f"{name}_flop_per_s"] = 2 * size**3 / event_time(lambda: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = False
    return rates


def time_sampler(device: str, tiny: bool, deadline: float, keep: Callable[..., None]) -> None:
    """Seconds of a sweep of all models, from the clusters that were drawn, and of the paper's whole estimation."""
    import fastdens as fd
    from benchmarks.sweeps import PAPER_STAGES, PAPER_SWEEPS, SWEEPS_A_LAUNCH, gaussian_clusters, sweeper

    n_models, n_points, dims, n_sweeps = (2, 5, (3,), 1) if tiny else (100, 500, (16, 64), SWEEPS_A_LAUNCH)
    stages, n_all, burn_in = ((3,), 2, 1) if tiny else (PAPER_STAGES, PAPER_SWEEPS, 320)
    shape = f"{n_models}x{n_points}"
    cases = (("apart", 4.0),) if tiny else (("apart", 4.0), ("overlapping", 1.0))
    for name, separation in cases:
        for d in dims:
            if time.monotonic() > deadline:
                keep(operation="Gibbs sweep", shape=f"{shape}x{d}", skipped="out of time")
                return
            problem = gaussian_clusters(n_models, n_points, d, separation, time.time_ns() % 2**31, device)
            go_on = sweeper(problem, problem.labels, backend="triton")
            seconds = event_time(partial(go_on, n_sweeps), 1 if tiny else 5) / n_sweeps
            found = float(go_on(1).n_components.float().mean())
            row = {"operation": "Gibbs sweep", "shape": f"{shape}x{d}", "clusters_drawn": name}
            keep(**row, clusters_found=found, seconds=seconds)
    for name, separation in cases:
        if time.monotonic() > deadline:
            keep(operation="whole estimation", shape=shape, skipped="out of time")
            return
        total, found = 0.0, []
        for d in stages:
            batch = gaussian_clusters(n_models, n_points, d, separation, time.time_ns() % 2**31, device).batch
            dp = fd.DirichletProcessMixtures(
                n_sweeps=n_all, burn_in=burn_in, thin=1 if tiny else 4, backend="triton", progress=False
            )
            begin = time.perf_counter()
            # Reading a result waits for the device.
            found.append(float(dp.fit(batch).n_components_.float().mean()))
            total += time.perf_counter() - begin
        row = {"operation": "whole estimation", "shape": shape, "stages": stages, "sweeps": n_all}
        keep(**row, clusters_drawn=name, clusters_found=found, seconds=total)


def main() -> None:
    """Measure until the time is used up, keeping what there is after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--interpret", action="store_true")
    arguments = parser.parse_args()
    if arguments.interpret:
        if arguments.output is None:
            parser.error("--interpret needs --output: its times are no results.")
        os.environ["TRITON_INTERPRET"] = "1"
    deadline = time.monotonic() + 60 * arguments.minutes
    make_importable()

    import torch

    import fastdens as fd
    from benchmarks.floors import em_floor
    from benchmarks.peers import fastdens_fit
    from benchmarks.problems import SHAPES, TINY, clustered_points

    if not arguments.interpret and not torch.cuda.is_available():
        parser.error("there is no CUDA device: --interpret tries the script without one.")
    device = "cpu" if arguments.interpret else "cuda"
    name = "interpreter" if arguments.interpret else torch.cuda.get_device_name()
    output = arguments.output or ROOT / "benchmarks" / "results" / f"{name.replace(' ', '-')}.json"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "rows": []}
    if not arguments.interpret:
        report["tests"] = run_tests(60 * arguments.minutes / 2)
    report["measured"] = rates = measure_device(device, 64 if arguments.interpret else 8192)

    def keep(**row: Any) -> None:
        report["rows"].append(row)
        output.write_text(json.dumps(report, indent=1) + "\n")
        print(row, flush=True)

    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    time_sampler(device, arguments.interpret, deadline, keep)
    for shape in (TINY,) if arguments.interpret else SHAPES:
        points = clustered_points(shape, seed=time.time_ns() % 2**31, device=device)
        n, d, k = shape.n_models * shape.n_points, shape.n_features, shape.n_components
        for covariance_type in ("full", "diag", "tied", "spherical"):
            for matmul_precision in ("ieee", "tf32x3", "tf32") if covariance_type == "full" else ("ieee",):
                if time.monotonic() > deadline:
                    keep(shape=shape.name, skipped="out of time")
                    return
                options = {"backend": "triton", "matmul_precision": matmul_precision, "on_error": "skip"}
                one, many = (
                    event_time(fastdens_fit(points, k, i, covariance_type, **options), 3) for i in (1, 1 + shape.n_iter)
                )
                row = {"operation": "EM iteration", "shape": shape.name, "covariance_type": covariance_type}
                row |= {"matmul_precision": matmul_precision, "seconds": (many - one) / shape.n_iter}
                if covariance_type == "full":
                    row["products_seconds"] = event_time(em_floor(points, k, 1), 3)
                    rate = rates["ieee_flop_per_s" if matmul_precision == "ieee" else "tf32_flop_per_s"]
                    # Points are read twice; a triangular and a symmetric product need half the operations each.
                    row["roofline_seconds"] = max(2 * n * k * d * d / rate, 8 * n * d / rates["bytes_per_s"])
                keep(**row)
        start = fastdens_fit(points, k, 0, "diag", backend="triton", init_params="kmeans++")
        keep(operation="start k-means++", shape=shape.name, seconds=event_time(start, 3))
        models = fastdens_fit(points, k, 1, "full", backend="triton", on_error="skip")()
        x = points.reshape(n, d)[:10_000].contiguous()
        keep(
            operation="log_prob of 10,000 under all",
            shape=shape.name,
            seconds=event_time(partial(models.log_prob, x), 3),
        )
    print(f"written: {output}")


if __name__ == "__main__":
    main()
