"""The kill test itself: it passes what is written whole and finds what is not."""

from __future__ import annotations

import time

import pytest

from fastdens.io.atomic import atomic_write
from tests.kills import forked, kill_and_compare, preload

preload(__name__)


def write_whole(folder):
    for name in "abcde":
        if not (folder / name).exists():
            with atomic_write(folder / name) as partial:
                write_slowly(partial)


def write_in_place(folder):
    for name in "abcde":
        write_slowly(folder / name)


def write_what_it_finds(folder):
    (folder / ".log").open("a").write("run")
    time.sleep(0.1)
    (folder / ".log").rename(folder / "log")


def write_slowly(file):
    with file.open("w") as stream:
        for _ in range(5):
            stream.write("x")
            stream.flush()
            time.sleep(0.005)


def test_whole_files_pass(tmp_path, rng):
    kill_and_compare(forked(write_whole), tmp_path, rng, kills=4)


@pytest.mark.parametrize("write", [write_in_place, write_what_it_finds])
def test_faults_are_found(tmp_path, rng, write):
    with pytest.raises(AssertionError, match="differs from"):
        kill_and_compare(forked(write), tmp_path, rng, kills=20)
