"""Atomic writes: what a killed or interrupted writer leaves, and who removes it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from fastdens.io.atomic import WriteError, atomic_write


def write(path, *, overwrite=False):
    with atomic_write(path, overwrite=overwrite) as partial:
        partial.write_bytes(b"new")


def interrupt(path):
    """A write of a folder that ends by Ctrl-C."""

    def body():
        with atomic_write(path) as partial:
            partial.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        body()


def test_the_name_appears_whole_or_not_at_all(tmp_path):
    write(tmp_path / "new" / "file")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(tmp_path / "new" / "file")
    interrupt(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new") == ["file"]


def leave(path, *, process=None, name=None, folder=False):
    """What a process that was killed while it wrote ``path`` left, under the name that writing itself makes."""
    with atomic_write(path, overwrite=True) as partial:
        partial.write_bytes(b"new")
        hidden = partial.name
    path.unlink()
    hidden = hidden.replace(f"-{os.getpid()}.", f"-{process}.") if name is None else name
    left = path.with_name(hidden)
    if folder:
        left.mkdir()
        (left / "part").write_bytes(b"half")
    else:
        left.write_bytes(b"half")
    return left


@pytest.fixture
def dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("folder", [False, True])
def test_the_next_write_removes_what_the_dead_left(tmp_path, dead_process, folder):
    path = tmp_path / "state.safetensors"
    left = leave(path, process=dead_process, folder=folder)
    with atomic_write(path) as partial:
        assert not left.exists()
        partial.write_bytes(b"new")
    assert os.listdir(tmp_path) == [path.name]


def test_the_next_write_leaves_what_is_not_its_own(tmp_path, dead_process):
    path = tmp_path / "state"
    probe = leave(path, process=dead_process).name
    machine = probe.split(".")[2].split("-")[0]
    (tmp_path / probe).unlink()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        kept = [
            leave(path, process=alive.pid),
            leave(path, process=1),
            leave(path, process="0"),
            leave(path, process=10**30),
            leave(path, name=f".state.{'0' * 8}-{dead_process}.partial"),
            leave(path, name=f".state.{dead_process}.partial"),
            leave(path, name=f".state.2.{machine}-{dead_process}.partial"),
            leave(path, name=f".other.{machine}-{dead_process}.partial"),
            leave(path, name=f".state.{machine}-{dead_process}.partial.old"),
            leave(path, name=f"x.state.{machine}-{dead_process}.partial"),
        ]
        # A name that would match as a regular expression is another name.
        kept.append(leave(tmp_path / "stat.", name=f".stat..{machine}-{dead_process}.partial"))
        gone = leave(path, process=dead_process)
        write(path)
        write(tmp_path / "stat?", overwrite=True)
        assert not gone.exists() and all(file.exists() for file in kept)
        assert len(os.listdir(tmp_path)) == len(kept) + 2
    finally:
        alive.communicate(b"\n")
    write(path, overwrite=True)
    assert [file.exists() for file in kept] == [False] + [True] * (len(kept) - 1)


def write_folder(path, content):
    with atomic_write(path, overwrite=True) as partial:
        partial.mkdir()
        (partial / "layer.npy").write_bytes(content)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems exchange no names")
def test_a_folder_is_replaced_without_a_moment_in_which_there_is_none(tmp_path, monkeypatch):
    write_folder(tmp_path / "activations", b"old")
    monkeypatch.setattr("os.replace", pytest.fail)
    write_folder(tmp_path / "activations", b"new")
    assert os.listdir(tmp_path) == ["activations"] and (tmp_path / "activations/layer.npy").read_bytes() == b"new"


def test_where_names_are_not_exchanged_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "activations", b"old")
    monkeypatch.setattr("fastdens.io.atomic._exchange", lambda *_: False)
    renamed = os.replace

    def full(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))
        renamed(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WriteError, match=r"activations cannot be written \(No space left on device\): make room"):
        write_folder(tmp_path / "activations", b"new")
    assert os.listdir(tmp_path) == ["activations"] and (tmp_path / "activations/layer.npy").read_bytes() == b"old"
    monkeypatch.setattr("os.replace", renamed)
    write_folder(tmp_path / "activations", b"new")
    assert os.listdir(tmp_path) == ["activations"] and (tmp_path / "activations/layer.npy").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error"), "file cannot be written .*: check that the folder is there"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "file cannot be written .*: make room on the disk"),
        (OSError("4096 requested and 0 written"), "file cannot be written .*: make room on the disk"),
        (ConnectionError(errno.ECONNRESET, "reset"), "reset"),
        (FileNotFoundError(errno.ENOENT, "No such file", "other"), "other"),
    ],
)
def test_an_error_of_writing_names_the_file_and_others_stay_as_they_are(tmp_path, error, message):
    def write_in_vain():
        with atomic_write(tmp_path / "file"):
            raise error

    with pytest.raises(OSError, match=message) as caught:
        write_in_vain()
    assert isinstance(caught.value, WriteError) == (".*" in message)
    assert caught.value.errno == error.errno and not os.listdir(tmp_path)


def test_a_folder_moved_aside_goes_once_the_new_one_is_there(tmp_path, dead_process):
    path = tmp_path / "activations"
    old = leave(path, process=dead_process, folder=True).rename(
        tmp_path / leave(path, process=dead_process).name.replace(".partial", ".replaced")
    )
    interrupt(path)
    assert os.listdir(tmp_path) == [old.name]
    for _ in range(2):
        with atomic_write(path, overwrite=True) as partial:
            partial.mkdir()
            (partial / "layer.npy").write_bytes(b"new")
        assert os.listdir(tmp_path) == ["activations"]
