"""Run the suite and print one table: ``python -m benchmarks [--quick] [pytest -k expression]``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

PEERS = ("scikit-learn", "gmm-gpu", "tgmm")
RESULTS = Path(__file__).parent / "results"


def rows_of(report: dict) -> dict[str, dict[str, float]]:
    """Best seconds by row and library, scaled to all models."""
    rows: dict[str, dict[str, float]] = {}
    for entry in report["benchmarks"]:
        extra = entry["extra_info"]
        rows.setdefault(extra["row"], {})[extra["who"]] = (entry["stats"]["min"] - extra.get("start", 0)) * extra[
            "scale"
        ]
    return rows


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """One line a row: seconds, how many times each peer takes, how many times the floor ours takes."""
    print(f"{'':48}{'fastdens':>11}" + "".join(f"{peer:>14}" for peer in PEERS) + f"{'over floor':>12}")
    for row, times in rows.items():
        own = times.get("fastdens", float("nan"))
        cells = (f"{times[peer] / own:13.1f}x" if peer in times else f"{'-':>14}" for peer in PEERS)
        floor = f"{own / times['floor']:12.2f}" if "floor" in times else f"{'-':>12}"
        print(f"{row:48}{own:10.3f}s" + "".join(cells) + floor)


def main() -> None:
    """Run, print, and keep the numbers under ``results/``."""
    arguments = sys.argv[1:]
    if "--quick" in arguments:
        arguments.remove("--quick")
        os.environ["FASTDENS_BENCH"] = "quick"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        suite = str(Path(__file__).with_name("suite.py"))
        command = [sys.executable, "-m", "pytest", suite, "-q", "--no-header", f"--benchmark-json={report}"]
        command += ["--benchmark-disable-gc", "--benchmark-columns=min", *(["-k", *arguments] if arguments else [])]
        done = subprocess.run(command, check=False)
        if not report.exists() or not report.stat().st_size:
            raise SystemExit(done.returncode or 1)
        rows = rows_of(json.loads(report.read_text()))
    print_table(rows)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    path = RESULTS / f"cpu-{machine['processor']}-{machine['threads']}-threads.json"
    path.write_text(json.dumps({"machine": machine, "seconds": rows}, indent=1) + "\n")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
