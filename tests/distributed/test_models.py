"""Fits over ranks: the bits and the errors of one process, and what is left when a rank is killed."""

from __future__ import annotations

import ast
import re

import pytest

from tests.ranks import run_jobs

CHECKS = "tests.distributed.checks"
SEED = 7
RANKS = (2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def seen(folder):
    kept = str(folder / "kept")
    jobs = {f"models {n}": (n, ["models", SEED]) for n in RANKS}
    jobs |= {"errors": (2, ["errors", SEED])}
    jobs |= {"killed": (3, ["with_checkpoint", SEED, kept, 1]), "resumed": (2, ["with_checkpoint", SEED, kept, None])}
    return run_jobs(CHECKS, folder, jobs)


@pytest.mark.parametrize("n_ranks", RANKS)
@pytest.mark.parametrize("name", ["full", "tied", "factors", "gibbs", "labels", "variational"])
def test_bits_of_one_process(seen, n_ranks, name):
    results = seen[f"models {n_ranks}"]
    assert results[0][name] == ""
    if name != "tied":
        # Which only rank 0 gathers.
        assert all(result[f"{name} state"] == results[0][f"{name} state"] for result in results)
    assert results[0][f"{name} warns"] == results[0][f"{name} expected"]
    assert not any(result[f"{name} warns"] for result in results[1:])


def test_errors_of_one_process_on_every_rank(seen):
    for result in seen["errors"]:
        assert result["found before"] == result["found before, alone"]
        assert "model 5 (class 5, layer 'layer2') has NaN" in result["found before"]
        assert result["found late"] == result["found late, alone"] == result["found late at rank 0"]
        assert "model 4" in result["found late"]
        assert "n_components is 0" in result["parameter"]
        assert "rank 1 has other points than rank 0" in result["other batch"]
        assert "rank 1 has other weights than rank 0" in result["other weights"]
        assert "rank 1 has other parameters of the last fit than rank 0" in result["other last fit"]
        assert "rank 1 has other parameters than rank 0" in result["other estimator"]
        assert result["goes on"] == "nothing"


def test_a_killed_rank_is_named_and_its_finished_models_are_kept(seen, folder):
    results = seen["killed"]
    assert results[1] is None
    for result in (results[0], results[2]):
        assert re.match(r"RankEndedError: rank 1 \(\S+, process \d+\) has ended", result["error"])
        assert str(folder / "kept") in result["error"]
        assert result["seconds"] < 60
    resumed = seen["resumed"]
    assert [(result["error"], result["difference"]) for result in resumed] == [("nothing", "")] * 2
    of_killed = ast.literal_eval((folder / "fitted-by-1.txt").read_text())
    before = [m for result in (*results[::2], {"fitted": of_killed}) for part in result["fitted"] for m in part]
    after = [m for result in resumed for part in result["fitted"] for m in part]
    assert len(before) > 6
    assert sorted(before + after) == [m for m in range(90) if m != 5]
