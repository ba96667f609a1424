"""Invisible characters in names, as they are shown and on a terminal."""

from __future__ import annotations

import pytest

from fastdens.cli import main
from fastdens.printable import printable
from fastdens.progress import Stage, Stages, progress_bar


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x00\x08", "a\\rb\\x00\\x08"),
        ("txt.\u202eexe\u2066", "txt.\\u202eexe\\u2066"),
        ("half \udcff", "half \\udcff"),
        ("two\nlines", "two\nlines"),
        ("naïve Δ 猫 👩\u200d🚀 می\u200cخواهم", "naïve Δ 猫 👩\u200d🚀 می\u200cخواهم"),
        (r"back\slash $x$ <b>", r"back\slash $x$ <b>"),
    ],
)
def test_what_is_invisible_is_spelled_out(name, shown):
    assert printable(name) == shown
    shown.encode()


def test_nothing_that_a_name_holds_reaches_the_terminal(tmp_path, capsys):
    name = "\x1b]0;title\x07\x1b[2J\u202e\udcff[red]x[/red]"
    assert main(["scores", str(tmp_path / f"{name}.npz")]) == 1
    with Stages([Stage("a", name)]).stage("a"):
        pass
    with progress_bar("Networks", 1) as advance:
        advance(1, "[red]x[/red]\u202e")
    out, err = capsys.readouterr()
    assert not out and "\\x1b]0;title\\x07" in err and "[red]x[/red]" in err
    assert not set("\x07\u202e\udcff") & set(err) and "\x1b]" not in err and "\x1b[2J" not in err
