"""The folders of the command: one process at a time, and one sentence where nothing can be written."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from fastdens.cli import main
from fastdens.io.locks import alone_in

QUICK = ["--density", "gmm", "--components", "1", "--entropy-draws", "20", "--divergence-draws", "20"]
COMMANDS = ("analyze", "report", "compare")
N = 64


def hold(folder, ready):
    with alone_in(folder):
        ready.set()
        signal.pause()


@pytest.fixture
def held_by():
    """Have a folder in another process, which ends with the test."""
    children = []

    def hold_in_another(folder):
        fork = multiprocessing.get_context("fork")
        ready = fork.Event()
        children.append(fork.Process(target=hold, args=(folder, ready), daemon=True))
        children[-1].start()
        assert ready.wait(30)
        return children[-1]

    yield hold_in_another
    for child in children:
        child.kill()
        child.join()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(1)
    (folder / "given").mkdir()
    np.save(folder / "given" / "layer.npy", rng.normal(size=(N, 3)).astype(np.float32))
    np.save(folder / "given" / "labels.npy", np.arange(N) % 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastdens.report.write_report", drawn)
        assert main(words("analyze", folder, folder / "report")) == 0
    return folder


def drawn(_, folder):
    """In place of the figures, which take their time."""
    (folder / "report.html").write_text("drawn")
    return folder / "report.html"


@pytest.fixture
def place(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("fastdens.report.write_report", drawn)
    monkeypatch.setattr("fastdens.report.write_comparison", drawn)
    return shutil.copytree(whole, tmp_path / "copy")


def words(command, folder, output):
    if command == "memorization":
        return [
            command,
            "--dataset",
            "digits",
            "--processes",
            "1",
            "--runs",
            str(folder / "runs"),
            "--output",
            str(output),
        ]
    if command == "analyze":
        return ["analyze", "--activations", str(folder / "given"), *QUICK, "--output", str(output), "--overwrite"]
    reports = [str(folder / "report")] * (2 if command == "compare" else 1)
    return [command, *reports, "--output", str(output), "--overwrite"]


def sentence_of(capsys, arguments):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    error = error[error.rindex("fastdens: ") :]
    assert error.endswith(".\n") and error.count("\n") == 1
    return error


def content_of(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_command_on_a_folder_says_who_works_there_and_a_killed_one_is_forgotten(
    place, tmp_path, held_by, capsys, command
):
    output = tmp_path / "output"
    first = held_by(output)
    before = content_of(tmp_path)
    error = sentence_of(capsys, words(command, place, output))
    assert f"{output} is being written by process {first.pid} on " in error and content_of(tmp_path) == before
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert main(words(command, place, output)) == 0
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_a_command_that_fails_leaves_no_folder(place, tmp_path, capsys):
    (place / "given" / "layer.npy").write_bytes(b"")
    sentence_of(capsys, words("analyze", place, tmp_path / "output"))
    assert not (tmp_path / "output").exists()


@pytest.fixture
def read_only(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("command", [*COMMANDS, "memorization"])
def test_a_read_only_place_is_told_before_the_work(place, read_only, capsys, monkeypatch, command):
    monkeypatch.setattr("fastdens.GaussianMixtures.fit", pytest.fail)
    monkeypatch.setattr("fastdens.pipeline.experiment.Experiment.estimate_scores", pytest.fail)
    for output in (read_only / "output", read_only / "deep" / "output"):
        error = sentence_of(capsys, words(command, place, output))
        assert f"{output} cannot be written (Read-only file system): check that" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_a_folder_is_named(place, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr("fastdens.GaussianMixtures.fit", pytest.fail)
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "output"):
        error = sentence_of(capsys, words(command, place, output))
        assert f"{output} cannot be written ({tmp_path / 'file'}" in error and "is a file" in error
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_vanishes_is_told(place, tmp_path, capsys, monkeypatch):
    output = tmp_path / "output"

    def vanishing(_, folder):
        shutil.rmtree(folder)
        return drawn(_, folder)

    monkeypatch.setattr("fastdens.report.write_report", vanishing)
    assert f"{output}" in sentence_of(capsys, words("analyze", place, output))
