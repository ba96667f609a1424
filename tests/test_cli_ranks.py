"""The command on several ranks: the report of one process, and what is left when a rank is killed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.ranks import run_jobs

REPORT = ("report.html", "numbers.csv", "examples.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Activations of 8 classes at two layers, and memorization scores."""
    folder, rng = tmp_path_factory.mktemp("command"), np.random.default_rng(3)
    labels = np.repeat(np.arange(8), 40)
    (folder / "activations").mkdir()
    for layer in ("layer1", "layer2"):
        points = rng.normal(size=(len(labels), 12)) + 2 * rng.normal(size=(8, 12))[labels]
        np.save(folder / "activations" / f"{layer}.npy", points.astype(np.float32))
    np.save(folder / "activations" / "labels.npy", labels)
    np.save(folder / "scores.npy", rng.uniform(size=len(labels)))
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    def arguments(output):
        return [
            *("analyze", "--activations", str(folder / "activations"), "--memorization", str(folder / "scores.npy")),
            *(
                "--sweeps",
                "80",
                "--dimensions",
                "3",
                "--entropy-draws",
                "20",
                "--divergence-draws",
                "20",
                "--output",
                str(folder / output),
            ),
        ]

    jobs = {
        "alone": (1, [arguments("alone")]),
        "2 ranks": (2, [arguments("shared")]),
        "killed": (3, [arguments("killed"), True]),
        "again": (1, [arguments("killed")]),
        "there already": (2, [arguments("alone")]),
    }
    return run_jobs("tests.cli_ranks", folder, jobs, seconds=500)


def test_the_report_of_one_process(seen, folder):
    first, second = seen["2 ranks"]
    assert (first["status"], second["status"]) == (0, 0), first["errors"] + second["errors"]
    assert first["output"].endswith(f"Report: {folder / 'shared' / 'report.html'}\n")
    assert second["output"] == second["errors"] == ""
    for name in REPORT:
        assert (folder / "shared" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    # Each model of each fit was fitted by one of them.
    assert first["fitted"] and second["fitted"]
    assert not seen["alone"][0]["fitted"]


def test_a_killed_rank_stops_the_others_and_its_models_are_not_fitted_again(seen, folder):
    results = seen["killed"]
    assert results[1] is None
    for result in (results[0], results[2]):
        assert result["status"] == 1
        assert re.search(r"^fastdens: rank 1 \(\S+, process \d+\) has ended before", result["errors"], re.M)
    (again,) = seen["again"]
    assert again["status"] == 0, again["errors"]
    before = [model for result in (results[0], results[2]) for model in result["fitted"]]
    of_layer = [model for model in again["fitted"] if model.startswith("layer1")]
    assert before and not set(before) & set(of_layer)
    for name in REPORT:
        assert (folder / "killed" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    assert not (folder / "killed" / "unfinished").exists()


def test_an_error_of_rank_0_is_that_of_all(seen):
    for result in seen["there already"]:
        assert result["status"] == 1
        assert "exists already" in result["errors"]
