"""Ranks exchange states, raise each other's errors, and learn of one that has ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fastdens.io.state_file import SavedState
from fastdens.process_group import current_group
from tests.ranks import run_jobs

CHECKS = "tests.process_group.checks"


def test_one_process_is_a_group():
    group = current_group()
    state = SavedState({"x": torch.ones(2)}, {"a": 1})
    assert (group.rank, group.size) == (0, 1)
    assert group.all_gather(state) == [state] and group.gather(state) == [state] and group.broadcast(state) is state
    assert group.all_gather_tensor(torch.ones(2)).shape == (1, 2)
    with pytest.raises(ValueError, match="mine"), group.together():
        raise ValueError("mine")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    jobs = {what: (3, [what]) for what in ("exchange", "compute", "wait", "lose rank 0", "close", "close after all")}
    return run_jobs(CHECKS, tmp_path_factory.mktemp("ranks"), jobs)


def test_states_arrive_as_they_were(seen):
    for result in seen["exchange"]:
        assert result["again"] and result["all_gather"] and result["gather"] and result["broadcast"]
        assert result["stacked"] == [[0, 7], [1, 7], [2, 7]]


def test_every_rank_raises_the_error_of_one(seen):
    exchanged = seen["exchange"]
    for rank, result in enumerate(exchanged):
        assert result["model"].startswith("ModelError: model 3 is bad.")
        assert result["file"].startswith("FileNotFoundError: there is no file x.")
        if rank != 1:
            assert "Raised on rank 1 (" in result["file"]
            assert "raised LookupErrorOfOurOwn: odd" in result["own"]
            assert result["interrupted"].startswith("RuntimeError: rank 1 (") and "interrupted" in result["interrupted"]
    assert exchanged[1]["interrupted"].startswith("KeyboardInterrupt")
    # The ranks that the first error stopped have none of their own.
    several = {result["several"].partition(" | ")[0] for result in exchanged}
    assert len(several) == 1 and re.fullmatch("ValueError: rank [012] does not like it.", several.pop())
    assert all(result["goes on"] and result["quick"] for result in exchanged)


@pytest.mark.parametrize("others", ["compute", "wait", "lose rank 0"])
def test_the_others_learn_which_rank_has_ended(seen, others):
    results = seen[others]
    dead = 0 if others == "lose rank 0" else 1
    assert results[dead] is None
    for rank, result in enumerate(results):
        if rank != dead:
            assert result["first"].startswith(f"RankEndedError: rank {dead} (") and ", process " in result["first"]
            assert result["again"].startswith(f"RankEndedError: rank {dead} (")
            assert result["seconds"] < 20


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("closed", ["close", "close after all"])
def test_a_closed_group_leaves_no_thread_that_could_abort_the_end_of_python(seen, closed):
    for result in seen[closed]:
        assert result["new"] > 0 and result["left"] == 0
