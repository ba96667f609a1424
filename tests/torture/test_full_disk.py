"""Every long command on a full disk: one sentence with the path, nothing lost, and it goes on with more room."""

from __future__ import annotations

import errno
import re
import resource
import subprocess
from contextlib import contextmanager

import pytest

from tests.kills import is_hidden, names_in
from tests.torture import commands
from tests.torture.test_kills import SHARES, is_whole

FRACTIONS = (0.0, 0.5, 0.95)
ROOM = 256 << 20


@pytest.fixture
def disk(tmp_path):
    """An empty file system in memory, with room until it is resized."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def resize(disk, size):
    # Size 0 would be no limit.
    subprocess.run(["mount", "-o", f"remount,size={max(4096, size)}", disk], check=True)


@contextmanager
def files_up_to(size):
    """No file grows beyond a size; what writes more gets an error, as the interpreter ignores the signal."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def complaint(command, folder, capsys):
    """What a command says when it fails, None when it ends well."""
    try:
        command(folder)
    except SystemExit as end:
        error = capsys.readouterr().err
        return None if end.code == 0 else error[error.rindex("fastdens: ") :].rstrip("\n")
    except OSError as error:
        return str(error)
    return None


def check_complaint(text, folder, *reasons):
    """It is one sentence about a path in the folder, and tells what to do."""
    assert text.count("\n") == 0 and text.endswith(".") and " make room " in text
    assert any(reason in text for reason in reasons) and ".partial" not in text
    found = re.match(r"(?:fastdens: )?(\S+) (?:cannot|could not) be written ", text)
    assert found and folder in (folder / found[1]).parents


def check_files(folder, whole):
    """Everything under a final name is whole, and nothing else is left."""
    for name in names_in(folder):
        if name in names_in(whole):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
        else:
            assert ".partial" not in name and ".replaced" not in name, f"{name} is left"
            # A hidden name promises nothing.
            if not is_hidden(name):
                is_whole(folder / name)


@pytest.fixture
def whole(tmp_path, request, capsys):
    """A folder with what the command leaves where there is room."""
    folder = tmp_path / "whole"
    folder.mkdir()
    assert complaint(request.getfixturevalue("command"), folder, capsys) is None
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", SHARES)
def test_a_command_on_a_full_disk_goes_on_when_there_is_room(command, whole, disk, capsys):
    size = sum((whole / name).stat().st_size for name in names_in(whole))
    for fraction in FRACTIONS:
        resize(disk, int(fraction * size))
        text = complaint(command, disk, capsys)
        check_complaint(text, disk, "No space left on device")
        check_files(disk, whole)
    resize(disk, ROOM)
    assert complaint(command, disk, capsys) is None
    check_files(disk, whole)
    assert names_in(disk) == names_in(whole)


@pytest.mark.parametrize("command", [commands.fit_by_em, commands.extract_activations, commands.analyze_activations])
def test_a_file_may_be_too_large_for_the_disk(command, whole, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    largest = max((whole / name).stat().st_size for name in names_in(whole))
    with files_up_to(largest - 1):
        check_complaint(complaint(command, own, capsys), own, "File too large", "4096 requested and 0 written")
    check_files(own, whole)
    assert complaint(command, own, capsys) is None
    check_files(own, whole)


def test_a_disk_may_be_found_full_when_a_file_is_flushed(tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    check_complaint(complaint(commands.fit_by_em, tmp_path, capsys), tmp_path, "No space left on device")
    assert not names_in(tmp_path)
