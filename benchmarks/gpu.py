"""A GPU's first minutes: run the ``gpu`` tests, measure the device, time the sampler and the grid of Gaussian mixtures
beside their peers, try other block sizes, write ``results/<device>.json``.

``python -m benchmarks.gpu [--minutes 8] [--output PATH]``; ``--interpret --output PATH`` tries the script itself on
a tiny grid in Triton's interpreter, with no GPU. The package is imported from the source tree if it is not installed.
What the library is judged by comes first, so that a run that is cut short has it.
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
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from torch import Tensor

    from fastdens.bench.cases import Problem

ROOT = Path(__file__).parents[1]
# Problems of the package and iterations of EM that are timed on each.
PAPER = {"paper-16": 20, "paper-64": 20}
GRID = {**PAPER, "imagenet": 2, "tiny": 10, "big": 2}
# Of the time: what the tests may take.
SHARE_OF_TESTS = 0.35


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


def per_iteration(fit: Callable[[int], Callable[[], object]], n_iter: int, repeats: int = 3) -> float:
    """Seconds of an iteration: what ``n_iter`` more of them add to a fit of one."""
    one, many = (event_time(fit(n), repeats) for n in (1, 1 + n_iter))
    return (many - one) / n_iter


def clustered(run: Run, problem: Problem) -> Tensor:
    """Fresh points float32 [M, N, D] on the device."""
    from fastdens.bench.problems import clustered_points

    return clustered_points(problem, run.seed())[0].to(run.device)


def timed_problems(run: Run, iterations: dict[str, int]) -> list[tuple[Problem, int]]:
    """The problems of these names with their iterations, or a tiny one."""
    from fastdens.bench.cases import Problem
    from fastdens.bench.problems import PROBLEMS

    if run.tiny:
        return [(Problem("tiny grid", 3, 40, 5, 2), 2)]
    return [(PROBLEMS[name], n_iter) for name, n_iter in iterations.items()]


class Run:
    """A run with a deadline: its rows, written after each, and whether what is judged was met."""

    def __init__(self, device: str, tiny: bool, deadline: float, output: Path, report: dict[str, Any]) -> None:
        self.device, self.tiny, self.deadline = device, tiny, deadline
        self.output, self.report = output, report

    def keep(self, **row: Any) -> None:
        """Add a row and write the report."""
        self.report["rows"].append(row)
        self.write()
        print(row, flush=True)

    def judge(self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Add a figure with the limit that was promised for it."""
        met = value <= at_most if at_most is not None else value >= (at_least or 0.0)
        bound = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
        self.report["judged"][name] = {"value": value, **bound, "met": met}
        self.write()

    def write(self) -> None:
        self.output.write_text(json.dumps(self.report, indent=1) + "\n")

    def is_over(self, **row: Any) -> bool:
        """Whether the time is used up; then the row is kept as left out."""
        if time.monotonic() <= self.deadline:
            return False
        self.keep(**row, skipped="out of time")
        return True

    def seed(self) -> int:
        """Fresh data every time."""
        return time.time_ns() % 2**31


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


def time_estimation(run: Run) -> None:
    """The paper's whole estimation: the first time, which compiles, and again."""
    import fastdens as fd
    from benchmarks.sweeps import PAPER_STAGES, PAPER_SWEEPS, gaussian_clusters

    n_models, n_points = (2, 5) if run.tiny else (100, 500)
    stages, n_all, burn_in = ((3,), 2, 1) if run.tiny else (PAPER_STAGES, PAPER_SWEEPS, 320)
    for name, separation in (("apart", 4.0),) if run.tiny else (("apart", 4.0), ("overlapping", 1.0)):
        row = {"operation": "whole estimation", "shape": f"{n_models}x{n_points}", "clusters_drawn": name}
        if run.is_over(**row):
            return
        seconds, found = [], []
        for _ in range(1 if run.tiny else 2):
            total = 0.0
            for d in stages:
                batch = gaussian_clusters(n_models, n_points, d, separation, run.seed(), run.device).batch
                dp = fd.DirichletProcessMixtures(
                    n_sweeps=n_all, burn_in=burn_in, thin=1 if run.tiny else 4, backend="triton", progress=False
                )
                begin = time.perf_counter()
                # Reading a result waits for the device.
                found.append(float(dp.fit(batch).n_components_.float().mean()))
                total += time.perf_counter() - begin
            seconds.append(total)
        sizes = {"stages": stages, "sweeps": n_all, "clusters_found": found[-len(stages) :]}
        run.keep(**row, **sizes, first_seconds=seconds[0], seconds=seconds[-1])
        run.judge(f"seconds of the whole estimation, clusters {name}", seconds[-1], at_most=5.0)
        if name == "apart" and len(seconds) > 1:
            run.judge("seconds that a cold start adds", seconds[0] - seconds[1], at_most=10.0)


def time_sweeps(run: Run) -> None:
    """Seconds of a sweep of all models, from the clusters that were drawn."""
    from benchmarks.sweeps import SWEEPS_A_LAUNCH, gaussian_clusters, sweeper

    n_models, n_points, dims, n_sweeps = (2, 5, (3,), 1) if run.tiny else (100, 500, (16, 64), SWEEPS_A_LAUNCH)
    for name, separation in (("apart", 4.0),) if run.tiny else (("apart", 4.0), ("overlapping", 1.0)):
        for d in dims:
            row = {"operation": "Gibbs sweep", "shape": f"{n_models}x{n_points}x{d}", "clusters_drawn": name}
            if run.is_over(**row):
                return
            problem = gaussian_clusters(n_models, n_points, d, separation, run.seed(), run.device)
            go_on = sweeper(problem, problem.labels, backend="triton")
            seconds = event_time(partial(go_on, n_sweeps), 1 if run.tiny else 5) / n_sweeps
            run.keep(**row, clusters_found=float(go_on(1).n_components.float().mean()), seconds=seconds)


def time_paper_shapes(run: Run) -> None:
    """EM iterations at the paper's shapes over their floor, and beside gmm-gpu and tgmm on the same card."""
    from benchmarks.peers import fastdens_fit, gmm_gpu_fit, tgmm_fit
    from fastdens.bench.floors import products_of_em

    for shape, n_iter in timed_problems(run, PAPER):
        row = {"operation": "EM iteration", "shape": shape.name, "covariance_type": "full"}
        if run.is_over(**row):
            return
        points, k = clustered(run, shape), shape.n_components
        # As a user calls it, with the default precision.
        fit = partial(fastdens_fit, points, k, covariance_type="full", backend="triton", on_error="skip")
        own = per_iteration(lambda n, fit=fit: fit(n_iter=n), n_iter)
        floor = event_time(products_of_em(points, k, 1))
        run.keep(**row, seconds=own, products_seconds=floor)
        run.judge(f"EM iteration over its products, {shape.name}", own / floor, at_most=3.0)
        some = points[:10]
        peers: dict[str, tuple[float, Callable[[int], Callable[[], object]]]] = {
            "gmm-gpu": (1.0, partial(gmm_gpu_fit, points, k)),
            # It loops over models: some are timed.
            "tgmm": (len(points) / len(some), partial(tgmm_fit, some, k, covariance_type="full")),
        }
        for peer, (scale, peer_fit) in peers.items():
            if run.is_over(**row, peer=peer):
                return
            try:
                seconds = scale * per_iteration(lambda n, fit=peer_fit: fit(n_iter=n), n_iter)
            except ImportError:
                run.keep(**row, peer=peer, skipped="not installed")
                continue
            run.keep(**row, peer=peer, seconds=seconds)
            run.judge(f"times as fast as {peer}, {shape.name}", seconds / own, at_least=10.0)


def try_block_sizes(run: Run) -> None:
    """EM iterations with other block sizes than the launchers choose, as a hint for who keeps that choice."""
    import torch
    from fastdens.kernels import mahalanobis

    from benchmarks.peers import fastdens_fit

    chosen = mahalanobis.config
    users = [
        m for name, m in list(sys.modules.items()) if name.startswith("fastdens.") and vars(m).get("config") is chosen
    ]
    for shape, n_iter in timed_problems(run, PAPER):
        points, k = clustered(run, shape), shape.n_components
        default = chosen(shape.n_features, torch.float32)
        candidates = [default] + [
            default._replace(block_n=block_n, num_warps=num_warps, num_stages=num_stages)
            for block_n in (32, 64, 128)
            for num_warps, num_stages in ((4, 1), (8, 1), (4, 2))
        ]
        for candidate in candidates[:2] if run.tiny else dict.fromkeys(candidates):
            row = {"operation": "EM iteration", "shape": shape.name, "blocks": candidate._asdict()}
            if run.is_over(**row):
                return
            fit = partial(fastdens_fit, points, k, covariance_type="full", backend="triton", on_error="skip")
            with ExitStack() as stack:
                for module in users:
                    stack.enter_context(mock.patch.object(module, "config", lambda d, dtype, c=candidate: c))
                try:
                    seconds = per_iteration(lambda n, fit=fit: fit(n_iter=n), n_iter)
                except Exception as error:  # More registers or shared memory than the card has.
                    run.keep(**row, skipped=f"{type(error).__name__}: {error}"[:200])
                    continue
            run.keep(**row, is_default=candidate == default, seconds=seconds)


def time_grid(run: Run) -> None:
    """EM, starts and log-densities at all shapes, kinds of covariance and precisions."""
    from benchmarks.peers import fastdens_fit
    from fastdens.bench.floors import products_of_em

    rates = run.report["measured"]
    for shape, n_iter in timed_problems(run, GRID):
        points = clustered(run, shape)
        n, d, k = shape.n_models * shape.n_points, shape.n_features, shape.n_components
        for covariance_type in ("full", "diag", "tied", "spherical"):
            for precision in ("ieee", "tf32x3", "tf32") if covariance_type == "full" else ("ieee",):
                row = {"operation": "EM iteration", "shape": shape.name, "covariance_type": covariance_type}
                if run.is_over(**row):
                    return
                options = {"backend": "triton", "matmul_precision": precision, "on_error": "skip"}
                fit = partial(fastdens_fit, points, k, covariance_type=covariance_type, **options)
                row |= {"matmul_precision": precision}
                row["seconds"] = per_iteration(lambda n, fit=fit: fit(n_iter=n), n_iter)
                if covariance_type == "full":
                    row["products_seconds"] = event_time(products_of_em(points, k, 1), 3)
                    rate = rates["ieee_flop_per_s" if precision == "ieee" else "tf32_flop_per_s"]
                    # Points are read twice; a triangular and a symmetric product need half the operations each.
                    row["roofline_seconds"] = max(2 * n * k * d * d / rate, 8 * n * d / rates["bytes_per_s"])
                run.keep(**row)
        if run.is_over(operation="start k-means++", shape=shape.name):
            return
        start = fastdens_fit(points, k, 0, "diag", backend="triton", init_params="kmeans++")
        run.keep(operation="start k-means++", shape=shape.name, seconds=event_time(start, 3))
        models = fastdens_fit(points, k, 1, "full", backend="triton", on_error="skip")()
        x = points.reshape(n, d)[:10_000].contiguous()
        seconds = event_time(partial(models.log_prob, x), 3)
        run.keep(operation="log_prob of 10,000 under all", shape=shape.name, seconds=seconds)


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
    # A minute is left to the row that is being measured when the time is up.
    deadline = time.monotonic() + 60 * max(arguments.minutes - 1, 0.5)
    make_importable()

    import torch

    import fastdens as fd

    if not arguments.interpret and not torch.cuda.is_available():
        parser.error("there is no CUDA device: --interpret tries the script without one.")
    device = "cpu" if arguments.interpret else "cuda"
    name = "interpreter" if arguments.interpret else torch.cuda.get_device_name()
    output = arguments.output or ROOT / "benchmarks" / "results" / f"{name.replace(' ', '-')}.json"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "judged": {}, "rows": []}
    run = Run(device, arguments.interpret, deadline, output, report)
    if not arguments.interpret:
        report["tests"] = run_tests(60 * arguments.minutes * SHARE_OF_TESTS)
        # Nothing that the tests compiled: a cold start is measured.
        os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()
    report["measured"] = measure_device(device, 64 if arguments.interpret else 8192)
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    for step in (time_estimation, time_paper_shapes, time_sweeps, try_block_sizes, time_grid):
        step(run)
    if not arguments.interpret:
        for figure, judged in report["judged"].items():
            print(f"{'met' if judged['met'] else 'NOT met'}: {figure}: {judged['value']:.3g}")
    print(f"written: {output}")


if __name__ == "__main__":
    main()
