"""Answers to a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_names(name: str, known: Iterable[str], n: int = 3) -> str:
    """The known names most like ``name``, quoted and joined, for the end of an error message."""
    candidates = list(known)
    found = difflib.get_close_matches(name, candidates, n, cutoff=0.4) or candidates[:n]
    return ", ".join(map(repr, found))
