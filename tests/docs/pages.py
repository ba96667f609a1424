"""Pages of the documentation as programs: their Python blocks run in order, and say what they are said to say.

Blocks fenced as ``python`` are run one after the other. A page makes two kinds of promises, and both are checked:

- A comment such as ``# [100, 6, 64]`` behind a statement is the shape of what the statement gives, or of each member
  of what it gives, if that is a tuple.
- A block fenced as ``text`` directly behind a block is what that block prints. Words and whole numbers are compared as
  they are; numbers with a point in them come from fits and trained networks, and may differ by two units of their last
  digit or by 2 %.

A block that nobody can run as it stands is a ``{code-block} python`` with ``:class: sketch``.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n\n?```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)
_SHAPE = re.compile(r"#.*?\[(\d+(?:, \d+)*)\]")
_DECIMAL = re.compile(r"-?\d[\d,]*\.\d+")


@dataclass(frozen=True)
class Block:
    """A block of code: what it says, what it prints (None where the page does not tell), and the line above it."""

    code: str
    output: str | None
    line: int


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that run."""
    found = [
        Block(match["code"], match["output"], text.count("\n", 0, match.start("code")))
        for match in _BLOCK.finditer(text)
    ]
    if len(found) != len(re.findall(r"^\s*```python", text, re.MULTILINE)):
        raise AssertionError("a block of Python is indented or not closed, and would not be run")
    return found


def run_page(page: Path, text: str) -> dict[str, Any]:
    """Run the blocks of a page in the current folder, check what it promises, and return the names in the end."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            _run_block(block, page, names)
        if block.output is not None:
            check_output(printed.getvalue(), block.output)
    return names


def _run_block(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Run a block statement by statement, so that errors name a line of the page and shapes can be looked at."""
    lines = block.code.splitlines()
    for statement in ast.parse(block.code, str(page)).body:
        comment = lines[(statement.end_lineno or 1) - 1][statement.end_col_offset or 0 :]
        shape = _SHAPE.match(comment.strip())
        ast.increment_lineno(statement, block.line)
        if shape and isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), str(page), "eval"), names)
        else:
            exec(compile(ast.Module([statement], []), str(page), "exec"), names)
            if not shape:
                continue
            value = names[_assigned(statement)]
        check_shape(value, tuple(int(n) for n in shape[1].split(", ")), ast.unparse(statement))


def _assigned(statement: ast.stmt) -> str:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    raise AssertionError(f"a shape stands behind {ast.unparse(statement)!r}, which gives no value")


def check_shape(value: Any, expected: tuple[int, ...], code: str) -> None:
    """Compare a shape, or the shape of an array, or those of all arrays of a tuple, with what the page says."""
    is_shape = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
    members = value if isinstance(value, tuple) and not is_shape else (value,)
    for member in members:
        shape = tuple(member) if is_shape else tuple(member.shape)
        assert shape == expected, f"{code}: the page says {list(expected)}, but it is {list(shape)}"


def check_output(printed: str, expected: str) -> None:
    """Compare what a block prints with what the page says; decimal numbers may differ a little."""
    assert _DECIMAL.sub("#", printed).split() == _DECIMAL.sub("#", expected).split(), (
        f"the page says\n{expected}\nbut it is\n{printed}"
    )
    for ours, theirs in zip(_DECIMAL.findall(printed), _DECIMAL.findall(expected), strict=True):
        said = float(theirs.replace(",", ""))
        unit = 10.0 ** -len(theirs.partition(".")[2])
        assert abs(float(ours.replace(",", "")) - said) <= max(2.01 * unit, 0.02 * abs(said)), (
            f"the page says {theirs}, but it is {ours}"
        )
