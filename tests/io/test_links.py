"""Links where a file is written: what they point to stays as it is."""

from __future__ import annotations

import os

import pytest

from fastdens.io.atomic import atomic_write
from fastdens.io.locks import claimed, lock_path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="making links needs a permission elsewhere")


@pytest.fixture
def target(tmp_path):
    target = tmp_path / "elsewhere" / "precious"
    target.parent.mkdir()
    target.write_text("as it was")
    yield target
    assert target.read_text() == "as it was" and [*target.parent.iterdir()] == [target]


def test_a_link_under_the_final_name_is_replaced(tmp_path, target):
    final = tmp_path / "report.html"
    final.symlink_to(target)
    with pytest.raises(FileExistsError), atomic_write(final):
        pass
    with atomic_write(final, overwrite=True) as partial:
        partial.write_text("a report")
    assert not final.is_symlink() and final.read_text() == "a report"


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_link_under_the_name_that_is_written_first_is_removed_or_refused(tmp_path, target, kind):
    """Its name can be guessed: somebody who writes to the same folder may have put a link there."""
    final = tmp_path / "numbers.csv"
    names = []
    with atomic_write(final) as partial:
        names.append(partial)
        partial.write_text("x")
    final.unlink()
    names[0].symlink_to({"file": target, "folder": target.parent, "nothing": target.with_name("new")}[kind])
    try:
        with atomic_write(final) as partial:
            assert not partial.is_symlink()
            partial.write_text("numbers")
    except OSError:
        assert kind == "folder" and not final.exists()
    else:
        assert final.read_text() == "numbers" and not final.is_symlink()


def test_a_link_in_place_of_a_lock_is_not_written_through(tmp_path, target):
    lock_path(tmp_path / "x").symlink_to(target)
    try:
        with claimed(tmp_path / "x"):
            pass
    except OSError:
        pass
