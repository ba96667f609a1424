"""Progress: bars that move in a terminal, outputs of a notebook, lines of a log, and the stages of a work."""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest

from fastdens.progress import Stage, Stages, about, progress_bar
from fastdens.progress.bar import Bar
from fastdens.progress.terminal import arranged
from tests.terminals import in_terminal, lines_left

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs when it is told to."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


@pytest.fixture
def lines(capsys):
    """The lines on stderr since the last call; nothing is on stdout, and no line has a control character."""

    def lines():
        out, err = capsys.readouterr()
        assert not out and err.replace("\n", "").isprintable()
        return err.splitlines()

    return lines


def test_a_log_has_a_line_a_minute_and_one_at_the_end(clock, lines):
    told = []
    with progress_bar("Sweeps", 400) as advance:
        for _ in range(400):
            clock[0] += 45.0
            advance(1, "40 models")
            told.append(lines())
    told.append(lines())
    hours = 400 * 45 / 3600
    assert [len(own) for own in told].count(0) == 200 and max(map(len, told)) == 1
    assert sum(map(len, told)) <= hours * 60 + 1
    assert told[119] == ["Sweeps: 120 of 400 (30 %), 3:30:00 left, 40 models"]
    assert told[-1] == ["Sweeps: 400 of 400, took 5:00:00, 40 models"]


def test_a_log_of_short_work_has_its_end_alone(clock, lines):
    with progress_bar("Networks", 4, done=1) as advance:
        for _ in range(3):
            clock[0] += 19.0
            advance()
    with progress_bar("Activations", None) as advance:
        clock[0] += 3.0
        advance(1_234)
    assert lines() == ["Networks: 4 of 4, took 0:00:57", "Activations: 1,234, took 0:00:03"]


def test_a_log_says_how_far_failed_work_came(clock, lines):
    with pytest.raises(KeyboardInterrupt), progress_bar("Sweeps", 1000) as advance:  # noqa: PT012
        clock[0] += 59.0
        advance(999)
        clock[0] += 2.0
        raise KeyboardInterrupt
    assert lines() == ["Sweeps: 999 of 1,000 (99 %), stopped after 0:01:01"]


def test_bars_within_a_bar_share_its_lines(clock, lines):
    with progress_bar("Networks", 2) as outer:
        for _ in range(2):
            with progress_bar("Epochs", 3) as inner:
                for _ in range(3):
                    clock[0] += 30.0
                    inner()
            outer()
    assert lines() == [
        "Networks: 0 of 2 (0 %), -:--:-- left; Epochs: 2 of 3 (66 %), 0:00:30 left",
        "Networks: 1 of 2 (50 %), 0:01:00 left; Epochs: 1 of 3 (33 %), 0:01:00 left",
        "Networks: 1 of 2 (50 %), 0:00:00 left; Epochs: 3 of 3, 0:00:00 left",
        "Networks: 2 of 2, took 0:03:00",
    ]


def test_time_left_is_that_of_the_steps_that_were_made(clock):
    bar = Bar("Networks", 4, before=1)
    assert bar.left is None
    clock[0] = 600.0
    bar.step(1, None)
    assert bar.left == 1200.0
    # While a step is made its time runs down, and then waits for its end.
    clock[0] = 900.0
    assert bar.left == 900.0
    clock[0] = 5000.0
    assert bar.left == 600.0
    bar.step(2, None)
    assert bar.left == 0.0


def test_a_bar_that_is_not_shown_needs_and_says_nothing(lines, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress_bar("Sweeps", None, shown=False) as advance:
        advance(2, note="x")
    with monkeypatch.context() as closed:
        closed.setattr("sys.stderr", None)
        with progress_bar("Sweeps", 3) as advance:
            advance()
    assert lines() == []


def test_one_rank_of_a_job_shows_bars(lines, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with progress_bar(f"Rank {rank}", 0):
            pass
    assert [line.partition(":")[0] for line in lines()] == ["Rank 0"]


def test_bars_of_several_threads_end_in_any_order(clock, lines):
    begun, ended = threading.Event(), threading.Event()

    def work():
        with progress_bar("Inner", 1):
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=work)
    with progress_bar("Outer", 1):
        thread.start()
        assert begun.wait(10)
    ended.set()
    thread.join()
    assert lines() == ["Inner: 0 of 1 (0 %), took 0:00:00"]
    with progress_bar("Next", 0):
        pass
    assert lines() == ["Next: 0 of 0, took 0:00:00"]


def test_work_goes_on_when_nobody_reads_the_log(monkeypatch):
    class Closed(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with progress_bar("Sweeps", 1) as advance:
        advance()


NESTED = """
import sys, time
FAILS = False
from fastdens.progress import Stage, Stages, progress_bar
with Stages([Stage("a", "first things")]).stage("a"):
    with progress_bar("Networks", 2) as outer:
        for _ in range(2):
            with progress_bar("Gibbs sweeps", 400, done=100) as inner:
                for _ in range(6):
                    time.sleep(0.03)
                    inner(50, "40 models, mean log-joint -1234.56")
            outer()
            print("printed")
    if FAILS:
        with progress_bar("Attacks", 9):
            raise KeyError("fails")
"""


@pytest.mark.parametrize("columns", [100, 40, 18])
def test_bars_of_a_terminal_keep_to_its_width(columns):
    shown, status = in_terminal(NESTED, columns=columns)
    lines = lines_left(shown)
    assert status == 0
    # One line for each bar, whatever the width; the inner ones are gone.
    assert lines[0] == "1 of 1: first things"
    assert lines.count("printed") == 2 and lines[-1].startswith("Networks")
    assert all(len(line) <= columns for line in lines[1:]) and not any("Gibbs" in line for line in lines)
    assert ("2/2" in lines[-1]) and ("━" in lines[-1]) == (columns >= 40)
    # The cursor is back.
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0


def test_an_error_leaves_the_terminal_clean():
    shown, status = in_terminal(NESTED.replace("FAILS = False", "FAILS = True"), columns=80)
    assert status == 1 and shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
    at = next(k for k, line in enumerate(lines_left(shown)) if line.startswith("Traceback"))
    assert lines_left(shown)[at - 1].startswith("Attacks")


def test_a_terminal_without_colours_has_none():
    shown, _ = in_terminal(NESTED, columns=80, NO_COLOR="1")
    assert "━" in shown and not re.search(r"\x1b\[(3\d|9\d|38;)", shown)


def test_a_terminal_that_cannot_move_is_a_log():
    shown, _ = in_terminal(NESTED, columns=80, TERM="dumb")
    assert "\x1b" not in shown and "Networks: 2 of 2, took" in shown


def test_what_a_block_prints_goes_where_it_is_sent(tmp_path):
    code = NESTED.replace("FAILS = False", f"sys.stdout = open({str(tmp_path / 'out')!r}, 'w', buffering=1)")
    shown, _ = in_terminal(code, columns=80)
    assert "Networks" in shown and "printed" not in shown
    assert (tmp_path / "out").read_text() == "printed\n" * 2


def test_a_terminal_needs_rich():
    code = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n" + NESTED
    shown, status = in_terminal(code, columns=80)
    assert status == 1 and "a progress bar in a terminal (progress=True) needs rich" in shown


def test_a_forked_process_has_no_part_in_the_bars():
    code = """
import os, sys
from fastdens.progress import progress_bar
with progress_bar("Networks", 1) as advance:
    child = os.fork()
    if child == 0:
        print("from the child", file=sys.stderr, flush=True)
        advance()
        with progress_bar("Images", 1):
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    shown, status = in_terminal(code, columns=80)
    assert status == 0 and "from the child" in shown and "0/1" in lines_left(shown)[-1]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, ("Gibbs sweeps", 14, "120/400", "0:00:00 left", "40 models, mean log-joint -1.23")),
        (60, ("Gibbs sweeps", 6, "120/400", "0:00:00 left", "40 models, mean lo…")),
        (40, ("Gibbs sweeps", 6, "120/400", "0:00:00 left", "")),
        (36, ("Gibbs sweeps", 0, "120/400", "0:00:00 left", "")),
        (30, ("Gibbs sweeps", 0, "120/400", "", "")),
        (14, ("Gibbs…", 0, "120/400", "", "")),
    ],
)
def test_a_narrow_line_leaves_out_what_matters_least(clock, width, expected):
    bar = Bar("Gibbs sweeps", 400)
    bar.step(120, "40 models, mean log-joint -1.23")
    assert tuple(arranged(bar, width)) == expected


def test_stages_learn_from_those_before(lines, clock):
    work = [{"image": 100}, {"class": 5}, {"image": 3000}, {"image": 10, "class": 10}, {}]
    stages = Stages(Stage(str(k), f"doing {k}", own) for k, own in enumerate(work))
    for k, seconds in enumerate((50, 10, 1500, 25, 1)):
        with stages.stage(str(k)):
            clock[0] += seconds
    with stages.stage("another"):
        pass
    assert lines() == [
        "1 of 5: doing 0",
        "2 of 5: doing 1",
        "3 of 5: doing 2, about 25 min",
        "4 of 5: doing 3, about 25 s",
        "5 of 5: doing 4",
    ]


def test_what_is_left_is_told_where_every_kind_was_measured(lines):
    stages = Stages([Stage("a", "A", {"x": 2}), Stage("b", "B", {"y": 3})], {"x": 3600.0, "y": 60.0})
    with stages.stage("a"), stages.stage("b"):
        pass
    assert lines() == ["1 of 2: A, about 2 h; about 2 h left in all", "2 of 2: B, about 3 min"]
    with Stages([Stage("a", "A")], shown=False).stage("a"):
        pass
    assert lines() == []


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


NOTEBOOK = """
import time, fastdens
from fastdens.progress import Stage, Stages, progress_bar
with Stages([Stage("a", "first things")]).stage("a"):
    with progress_bar("Networks", 300) as outer:
        for _ in range(300):
            with progress_bar("<Epochs>", 9) as inner:
                inner(9)
            time.sleep(0.002)
            outer()
"""


@pytest.mark.slow
def test_a_notebook_shows_one_output_that_is_replaced(monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    stage, bar = book.cells[0].outputs
    assert stage["data"] == {"text/plain": "1 of 1: first things"}
    assert re.fullmatch(r"Networks: 300 of 300, took 0:00:0\d", bar["data"]["text/plain"])
    assert bar["data"]["text/html"] == f"<div>{bar['data']['text/plain']}</div>"
