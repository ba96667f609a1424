"""Points that memory cannot hold, from activations on disk to scores: ``python -m benchmarks.more_than_memory FOLDER``.

Each step is a process of its own, whose peak is what the system tells its parent when it ends: random activations
written as an extraction writes them, an external sort by class (of fewer rows, since it doubles the disk space), the
projection, fits of one model a class, and their scores. FOLDER needs room for the activations, or for twice the rows
that are sorted, and is left empty. ``--cgroup PATH`` puts each step into a control group, which may have a hard limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
BLOCK = 8192
COMPONENTS = 64

Step = Callable[[argparse.Namespace], None]


def extract(options: argparse.Namespace) -> None:
    """Rows about the mean of their class, sorted by class as a loader over folders gives them, or in random order."""
    from fastdens.io.arrays import NpyStream

    rng = np.random.default_rng(0)
    labels = np.sort(np.arange(options.rows) % options.classes)
    if options.shuffled:
        labels = rng.permutation(labels)
    means = rng.standard_normal((options.classes, options.features), dtype=np.float32)
    np.save(options.folder / "labels.npy", labels)
    stream = NpyStream(options.folder / "layer.npy", (options.features,), np.dtype("f4"))
    for start in range(0, options.rows, BLOCK):
        own = labels[start : start + BLOCK]
        stream.append(rng.standard_normal((len(own), options.features), dtype=np.float32) + means[own])
    stream.close()


def batch_of(options: argparse.Namespace, name: str = "layer.npy"):
    import fastdens as fd

    return fd.RaggedBatch.from_files(
        options.folder / name, options.folder / "labels.npy", max_memory=options.max_memory
    )


def sort(options: argparse.Namespace) -> None:
    """from_files, of rows in random order."""
    print(batch_of(options))


def project(options: argparse.Namespace) -> None:
    """UncentredSVD.fit, then transform to a file."""
    import fastdens as fd

    path = options.folder / "layer.npy"
    begin = time.perf_counter()
    svd = fd.reduction.UncentredSVD(COMPONENTS).fit(path)
    print(f"fit {time.perf_counter() - begin:.0f} s", flush=True)
    svd.transform(path, path=options.folder / "projected.npy")


def gaussian(options: argparse.Namespace) -> None:
    """EM, and a saved fit."""
    import fastdens as fd

    gm = fd.GaussianMixtures(2, max_iter=10, tol=0, reg_covar=1e-3).fit(batch_of(options, "projected.npy"))
    gm.save(options.folder / "gaussian.safetensors")


def score_gaussian(options: argparse.Namespace) -> None:
    """Scores of all points under the saved fit."""
    import fastdens as fd

    gm = fd.load(options.folder / "gaussian.safetensors")
    print(float(gm.score_samples(batch_of(options, "projected.npy")).double().mean()))


def sample(options: argparse.Namespace) -> None:
    """Gibbs sampling, a few sweeps, and scores in the same process."""
    import fastdens as fd

    batch = batch_of(options, "projected.npy")
    begin = time.perf_counter()
    dp = fd.DirichletProcessMixtures(n_sweeps=4, burn_in=2, thin=1, search=0, progress=False).fit(batch)
    print(f"fit {time.perf_counter() - begin:.0f} s", flush=True)
    print(float(dp.score_samples(batch).double().mean()))


STEPS: dict[str, Step] = {step.__name__: step for step in (extract, sort, project, gaussian, score_gaussian, sample)}


def measured(name: str, options: argparse.Namespace, *flags: str) -> dict[str, object]:
    """Run a step in a process of its own: its peak resident set in MiB, and its seconds."""
    command = [sys.executable, "-m", "benchmarks.more_than_memory", str(options.folder), "--step", name, *flags]
    for key in ("features", "classes", "max_memory"):
        command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    if options.cgroup:
        # A shell that enters the group and becomes the step.
        command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(options.cgroup), *command]
    begin = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    row = {"step": name, "peak_mib": usage.ru_maxrss >> 10, "seconds": round(time.perf_counter() - begin)}
    print(row, flush=True)
    return row


def main() -> None:
    """Run all steps, print and keep what they took; or one step, if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_300_000)
    parser.add_argument("--sorted-rows", type=int, default=300_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--max-memory", default="4GiB")
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "more_than_memory.json")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--shuffled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.step:
        STEPS[options.step](options)
        return
    few, all_rows = ("--rows", str(options.sorted_rows)), ("--rows", str(options.rows))
    results: list[dict[str, object]] = []

    def keep(name: str, rows: tuple[str, str], *flags: str) -> None:
        results.append({"rows": int(rows[1]), **measured(name, options, *rows, *flags)})
        facts = {"features": options.features, "classes": options.classes, "max_memory": options.max_memory}
        limit = options.cgroup and int((options.cgroup / "memory.limit_in_bytes").read_text())
        facts |= {"hard_limit": limit, "threads": torch.get_num_threads(), "torch": torch.__version__}
        options.output.write_text(json.dumps({**facts, "steps": results}, indent=1) + "\n")

    keep("extract", few, "--shuffled")
    keep("sort", few)
    for file in sorted(options.folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    for name in ("extract", "project", "gaussian", "score_gaussian", "sample"):
        keep(name, all_rows)
    for file in options.folder.iterdir():
        file.unlink()


if __name__ == "__main__":
    main()
