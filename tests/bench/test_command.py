"""The command, on problems so small that nothing takes long."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastdens.bench import exponents, peers
from fastdens.bench import rows as rows_
from fastdens.bench.cases import Problem
from fastdens.bench.problems import PROBLEMS
from fastdens.bench.results import Results
from fastdens.cli import main
from tests.bench.fakes import PEERS


@pytest.fixture
def small(monkeypatch):
    """Every problem with few models and points, EM's kernels alone, and peers of the tests."""
    for name, problem in PROBLEMS.items():
        tiny = problem._replace(n_models=min(3, problem.n_models), n_points=40, n_features=3, n_components=2)
        monkeypatch.setitem(PROBLEMS, name, tiny)
    monkeypatch.setattr(peers, "PEERS", PEERS)


@pytest.mark.usefixtures("small")
def test_a_row_is_measured_and_written(tmp_path, capsys):
    arguments = ["bench", "em-full/small", "--quick", "--threads", "1", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "em-full/small" in said and "ArithmeticError" in said and "the products of E and M step" in said
    results = Results.load(tmp_path / "out")
    (row,) = results.rows
    assert row.ours.seconds > 0 and results.machine["threads"] == 1 and results.exponents == ()
    # What the command does not redo.
    (tmp_path / "out" / "results.json").rename(tmp_path / "results.json")
    assert main(arguments) == 1
    (tmp_path / "results.json").rename(tmp_path / "out" / "results.json")
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--peers", "none"]) == 0
    assert Results.load(tmp_path / "out").rows[0].peers == ()


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_all_rows_run(monkeypatch, capsys):
    """Every operation at every problem, and what follows the rows when none are chosen."""
    monkeypatch.setattr(exponents, "BASE", Problem("base", 2, 40, 3, 2))
    monkeypatch.setattr(exponents, "AXES", {"M": ("n_models", (2, 4))})
    monkeypatch.setattr(exponents, "METHODS", {"em": ("EM", 2)})
    chosen = tuple(row._replace(n_iter=min(row.n_iter, 16)) for row in rows_.QUICK)
    monkeypatch.setattr("fastdens.bench.run.QUICK", chosen)
    assert main(["bench", "--quick", "--peers", "none"]) == 0
    said = capsys.readouterr().out
    assert "Error" not in said
    assert "time of EM grows with  M^" in said and "threads, EM" in said


@pytest.mark.usefixtures("small")
def test_data_of_a_row_are_written(tmp_path, capsys):
    assert main(["bench", "em-full/small", "--quick", "--data", str(tmp_path)]) == 0
    folder = tmp_path / "em-full-small"
    assert str(folder) in capsys.readouterr().out
    about = json.loads((folder / "case.json").read_text())
    assert about["operation"] == "em" and about["n_iter"] == 5
    points, covariances = np.load(folder / "points.npy"), np.load(folder / "covariances.npy")
    assert points.shape == (1, 40, 3) and points.dtype == np.float32 and covariances.shape == (1, 2, 3, 3)
    case = rows_.make_case(rows_.choose(rows_.QUICK, ["em-full/small"])[0])
    assert torch.equal(case.points, torch.from_numpy(points))


def test_rows_and_peers_are_listed(capsys):
    assert main(["bench", "--list", "em-*/tiny"]) == 0
    said = capsys.readouterr().out
    assert "em-diag/tiny" in said and "paper" not in said and "scikit-learn" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-like-it"], "no row matches 'nothing-like-it'"),
        (["--peers", "sklearn"], "peers has 'sklearn', but there are scikit-learn"),
        (["--threads", "0", "em"], "must be at least 1"),
    ],
)
def test_mistakes_are_named(capsys, arguments, message):
    assert main(["bench", *arguments]) == 1
    assert message in capsys.readouterr().err
