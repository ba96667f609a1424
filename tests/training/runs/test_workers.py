"""A folder of networks: filled by several processes, killed, and resumed."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from fastdens.io.locks import claimed
from fastdens.training import Recipe
from fastdens.training.runs import workers
from fastdens.training.runs.job import Job
from tests.kills import preload, processes
from tests.training.runs.folders import NAMES, RECIPE, assert_same, names_in, train_all

# Processes that stand for those started by hand are forked from one that has imported everything: they start soon.
preload(__name__)


def start(folder, change=None, *arguments):
    """A process that trains the folder, calls ``change(run, *arguments)`` before each run, and writes a log of runs."""
    child = processes.Process(target=by_hand, args=(folder, change, arguments))
    child.start()
    return child


def by_hand(folder, change, arguments):
    torch.set_num_threads(1)
    train_run = Job.train_run

    def logged(job, run, device):
        with (folder / "log").open("a") as log:
            log.write(f"{run.name}\n")
        if change:
            change(run, *arguments)
        train_run(job, run, device)

    Job.train_run = logged
    train_all(folder)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_training(run):
    if run.name == NAMES[1]:
        die()


def die_in_writing(run):
    if run.name == NAMES[1]:
        os.fsync = lambda _: die()


def pause(run, seconds):
    time.sleep(seconds)


@pytest.fixture
def two_threads():
    """One each for two processes, as in the folder that they are compared with."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("change", [die_in_training, die_in_writing])
def test_a_killed_folder_resumes_as_if_it_had_not_been(tmp_path, whole, change):
    child = start(tmp_path, change)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / ".memorization-0001.lock").exists() and len(list(tmp_path.glob("*.safetensors"))) == 1
    assert len(list(tmp_path.glob(".*.partial"))) == (change is die_in_writing)
    train_all(tmp_path)
    (tmp_path / "log").unlink()
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_processes_started_by_hand_share_the_work(tmp_path, whole):
    children = [start(tmp_path, pause, 0.5) for _ in range(2)]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == NAMES
    (tmp_path / "log").unlink()
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_a_process_waits_for_another_and_takes_over_when_it_dies(tmp_path, whole, monkeypatch):
    child = start(tmp_path, pause, 100)
    wait_until((tmp_path / "log").exists)
    notes = []

    @contextmanager
    def bar(*_, **__):
        def advance(steps=1, note=None):
            notes.append(note)
            if note == "1 are being trained by other processes" and notes.count(note) == 2:
                assert {path.name for path in tmp_path.glob("*.safetensors")} == {f"{n}.safetensors" for n in NAMES[1:]}
                child.kill()

        yield advance

    monkeypatch.setattr(workers, "progress_bar", bar)
    train_all(tmp_path)
    assert [note for note in notes if note in NAMES] == [*NAMES[1:], NAMES[0]]
    (tmp_path / "log").unlink()
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_processes_of_one_call_share_the_work(tmp_path, whole, two_threads):
    train_all(tmp_path, processes=2)
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_a_killed_process_of_a_call_leaves_its_work_to_the_others(tmp_path, whole, two_threads, monkeypatch):
    start_processes, pids = workers.start_processes, []

    def started(*arguments, **options):
        context = start_processes(*arguments, **options)
        pids.extend(context.pids())
        return context

    notes = []

    @contextmanager
    def bar(*_, **__):
        def advance(steps=1, note=None):
            notes.append(note)
            if len(notes) == 1:
                os.kill(pids[0], signal.SIGKILL)

        yield advance

    monkeypatch.setattr(workers, "start_processes", started)
    monkeypatch.setattr(workers, "progress_bar", bar)
    train_all(tmp_path, processes=2)
    assert "1 of 2 processes died" in notes
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


def test_more_networks_later_keep_the_earlier(tmp_path, whole):
    train_all(tmp_path, 2)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path)}
    train_all(tmp_path, 3)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert_same(tmp_path, whole)


def endless(folder, start_method):
    """A call for several processes, as the leader of a terminal of its own, that tells whether it was interrupted."""
    os.setsid()
    # Where tests run in the background of a shell, Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    workers._START_METHOD = start_method
    try:
        train_all(folder, 2, Recipe(width=4, epochs=100_000), processes=2)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()


def locks_held(folder):
    held = 0
    for lock in folder.glob(".*.lock"):
        with claimed(folder / (lock.name[1 : -len(".lock")] + ".safetensors")) as mine:
            held += not mine
    return held


@pytest.mark.slow
@pytest.mark.parametrize(("how", "start_method"), [(signal.SIGINT, "spawn"), (signal.SIGKILL, "fork")])
def test_children_end_with_their_parent(tmp_path, capfd, how, start_method):
    parent = processes.Process(target=endless, args=(tmp_path, start_method))
    parent.start()
    wait_until(lambda: locks_held(tmp_path) == 2)
    # Ctrl-C goes to all the processes of the terminal.
    (os.killpg if how == signal.SIGINT else os.kill)(parent.pid, how)
    wait_until(lambda: locks_held(tmp_path) == 0, seconds=15)
    parent.join(15)
    if how == signal.SIGINT:
        assert parent.exitcode == 0 and names_in(tmp_path) == ["interrupted"]
        assert "Traceback" not in capfd.readouterr().err
    else:
        assert parent.exitcode == -how


@pytest.mark.slow
def test_a_child_that_fails_is_named_and_the_others_are_stopped(tmp_path, monkeypatch):
    # Something that children cannot do and their parent does not notice.
    def one_that_fails(job, *arguments):
        return in_processes(replace(job, recipe=replace(job.recipe, learning_rate="fast")), *arguments)

    in_processes = workers._train_in_processes
    monkeypatch.setattr(workers, "_train_in_processes", one_that_fails)
    monkeypatch.setattr(workers, "_START_METHOD", "forkserver")
    with pytest.raises(ChildProcessError) as caught:
        train_all(tmp_path, 2, processes=2)
    message = str(caught.value)
    assert re.search(r"failed with \w+Error: .*, in the training of .*memorization-000[01]\.safetensors", message)
    assert "\n" not in message and not list(tmp_path.iterdir())


def test_an_error_in_this_process_is_itself_and_names_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr("fastdens.training.runs.job.train", lambda *_, **__: fail())
    with pytest.raises(MemoryError, match="no room") as caught:
        train_all(tmp_path)
    assert NAMES[0] in caught.value.__notes__[0] and not list(tmp_path.iterdir())


def test_a_file_that_another_process_writes_meanwhile_is_checked_too(tmp_path, whole, monkeypatch):
    train_run = Job.train_run

    def with_another(job, run, device):
        train_run(job, run, device)
        train_run(replace(job, recipe=replace(RECIPE, weight_decay=0.25)), job.runs[1], device)

    monkeypatch.setattr(Job, "train_run", with_another)
    with pytest.raises(ValueError, match=r"0001.safetensors is a training run of weight_decay = 0.25, not 0.0005"):
        train_all(tmp_path, 2)


def test_a_lock_left_beside_a_whole_file_is_removed_and_one_that_is_held_is_not(tmp_path, whole):
    train_all(tmp_path, 1)
    lock = tmp_path / f".{NAMES[0]}.lock"
    lock.touch()
    with claimed(tmp_path / f"{NAMES[0]}.safetensors") as mine:
        assert mine
        train_all(tmp_path, 1)
        assert lock.exists()
    lock.touch()
    train_all(tmp_path, 1)
    assert names_in(tmp_path) == [f"{NAMES[0]}.safetensors"]
