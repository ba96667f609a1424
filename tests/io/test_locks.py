"""Locks: held by one process at a time, and gone when nobody needs them."""

from __future__ import annotations

import pytest

from fastdens.io.locks import claimed, lock_path


def test_a_lock_removed_between_opening_and_locking_is_not_taken(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock

    def late(descriptor, how):
        # Its holder is done, and another process has made the file anew and holds that.
        lock_path(file).unlink()
        lock_path(file).touch()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with claimed(file) as mine:
        assert not mine
    assert lock_path(file).exists()
