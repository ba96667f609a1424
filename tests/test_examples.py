"""The examples run as they stand and write what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mixtures_in_ten_lines():
    printed = run("mixtures_in_ten_lines.py")
    assert printed.startswith("100 mixtures, mean log-density -")
    assert 50 < float(printed.rpartition(" ")[2].rstrip("%\n")) < 100


def test_sampler_diagnostics(tmp_path):
    printed = run("sampler_diagnostics.py", "--output", str(tmp_path / "traces.png"))
    rows = [line.split() for line in printed.splitlines()[1:11]]
    assert [int(row[0]) for row in rows] == list(range(10))
    # Far apart, the three clusters of a class are found.
    assert all(2.5 < float(row[1]) < 3.5 and row[2] == "3" for row in rows[5:])
    assert all(float(row[at].rstrip("%")) <= 100 for row in rows for at in (5, 6))
    assert re.match(r"\d+ of 10 models agree", printed.splitlines()[11])
    assert (tmp_path / "traces.png").read_bytes().startswith(b"\x89PNG")


def test_activations_of_your_own(tmp_path):
    printed = run("activations_of_your_own.py", "--output", str(tmp_path / "own"), "--sweeps", "80")
    assert str(tmp_path / "own" / "report.html") in printed
    for name in ("report.html", "numbers.csv", "last_layer.png"):
        assert (tmp_path / "own" / name).stat().st_size > 1000


def test_the_analysis_is_the_command():
    assert "--density" in run("resnet_analysis.py", "--help")


def test_out_of_distribution():
    printed = run("out_of_distribution.py", "--epochs", "8")
    rows = {(row[:34].strip(), row[34:48].strip()): row[48:].split() for row in printed.splitlines()[2:]}
    auroc = {key: float(row[0].rstrip("%")) for key, row in rows.items()}
    for ours, theirs in (
        ("Mahalanobis", "Mahalanobis"),
        ("relative Mahalanobis", "RMD"),
        ("a Gaussian a class", "GMM"),
        ("50th neighbour", "KNN"),
    ):
        # Of features that hardly vary, the ridges of the two differ.
        assert abs(auroc[ours, "last"] - auroc[f"pytorch-ood's {theirs}", "last"]) < 0.5
        assert auroc[ours, "mean of all"] > 80
    assert len(rows) == 3 * 6 + 4
