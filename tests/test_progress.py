"""Progress: bars and stages are told on stderr, or not at all; what is left follows from what was measured."""

from __future__ import annotations

import sys

import pytest

from fastdens import progress
from fastdens.progress import Stage, Stages, about, progress_bar


def test_bar_goes_to_stderr(capsys):
    with progress_bar("Sweeps", 3) as advance:
        advance()
        advance(2, "done now")
    with progress_bar("Networks", 4, done=4):
        pass
    with progress_bar("Epochs", 4, done=1):
        pass
    out, err = capsys.readouterr()
    assert not out and "Sweeps" in err and "4/4 0:00:00" in err and "1/4 -:--:-- left" in err


@pytest.mark.parametrize(
    ("elapsed", "n_made", "n_left", "expected"),
    [(300.0, 2, 6, "0:15:00"), (7200.0, 1, 10, "20:00:00"), (1.0, 0, 6, "-:--:--"), (9.5, 19, 0, "0:00:00")],
)
def test_time_left_is_that_of_the_steps_that_were_made(elapsed, n_made, n_left, expected):
    assert progress.time_left(elapsed, n_made, n_left) == expected


def test_without_a_bar_nothing_is_needed(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress_bar("Sweeps", None, shown=False) as advance:
        advance(2, note="x")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ImportError, match=r"progress bar .* needs rich, .*fastdens\[cpu\]"), progress_bar("Sweeps", 3):
        pass


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs when it is told to."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_stages_learn_from_those_before(capsys, clock):
    work = [{"image": 100}, {"class": 5}, {"image": 3000}, {"image": 10, "class": 10}, {}]
    stages = Stages(Stage(str(k), f"doing {k}", own) for k, own in enumerate(work))
    for k, seconds in enumerate((50, 10, 1500, 25, 1)):
        with stages.stage(str(k)):
            clock[0] += seconds
    with stages.stage("another"):
        pass
    out, err = capsys.readouterr()
    assert not out and err.splitlines() == [
        "1 of 5: doing 0",
        "2 of 5: doing 1",
        "3 of 5: doing 2, about 25 min",
        "4 of 5: doing 3, about 25 s",
        "5 of 5: doing 4",
    ]


def test_what_is_left_is_told_where_every_kind_was_measured(capsys):
    stages = Stages([Stage("a", "A", {"x": 2}), Stage("b", "B", {"y": 3})], {"x": 3600.0, "y": 60.0})
    with stages.stage("a"), stages.stage("b"):
        pass
    assert capsys.readouterr().err == "1 of 2: A, about 2 h; about 2 h left in all\n2 of 2: B, about 3 min\n"
    with Stages([Stage("a", "A")], shown=False).stage("a"):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "under a second"),
        (12, "about 12 s"),
        (89, "about 89 s"),
        (240, "about 4 min"),
        (252, "about 4.2 min"),
        (3600 * 14, "about 14 h"),
        (3600 * 24 * 30, "about 30 days"),
        (3600 * 24 * 3000, "about 8.2 years"),
    ],
)
def test_times_in_words(seconds, words):
    assert about(seconds) == words
