"""Names as they are shown: what a file calls a class may hold commands to a terminal, or turn the text around."""

from __future__ import annotations

import re

# Controls except the end of a line, marks that turn the direction of text, separators of lines, and half characters.
_HIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def printable(text: str) -> str:
    r"""The text with its invisible characters as Python writes them: ``\x1b``, ``\u202e``; ends of lines stay."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
