"""What the page of the command promises programs: the names in its documents."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "guides" / "command.md").read_text(encoding="utf-8")


def names_of(introduction: str) -> set[str]:
    """The names that the page lists in a table after a line, beside those of every document."""
    names: set[str] = set()
    for line in ("Every document has these names:", introduction):
        (table,) = re.findall(rf"^{re.escape(line)}\n\n((?:\|.*\n)+)", PAGE, re.M)
        names |= {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    return names
