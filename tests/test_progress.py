"""The progress bar: shown on stderr, silent on request, named when rich is missing."""

from __future__ import annotations

import sys

import pytest

from fastdens.progress import progress_bar


def test_bar_goes_to_stderr(capsys):
    with progress_bar("Sweeps", 3) as advance:
        advance()
        advance(2, "done now")
    out, err = capsys.readouterr()
    assert not out and "Sweeps" in err


def test_without_a_bar_nothing_is_needed(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress_bar("Sweeps", None, shown=False) as advance:
        advance(2, note="x")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ImportError, match=r"progress bar .* needs rich, .*fastdens\[cpu\]"), progress_bar("Sweeps", 3):
        pass
