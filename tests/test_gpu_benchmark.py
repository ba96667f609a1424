"""The GPU benchmark script runs through, on a tiny grid in Triton's interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_runs_in_the_interpreter(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--interpret", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert report["device"] == "interpreter"
    assert {row["operation"] for row in report["rows"]} >= {"EM iteration", "start k-means++"}
    assert all(row.get("skipped") == "not installed" or row["seconds"] == row["seconds"] for row in report["rows"])
    assert {"EM iteration over its products, tiny grid"} < report["judged"].keys()
