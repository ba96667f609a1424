"""Choices that operations and estimators share, and the answer to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TypedDict

BACKENDS = ("auto", "triton", "cpu", "reference")
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
MATMUL_PRECISIONS = ("tf32x3", "ieee", "tf32")


class GaussianOptions(TypedDict, total=False):
    """The options of every operation on Gaussians; full, auto and tf32x3 where they are not given."""

    covariance_type: str
    backend: str
    matmul_precision: str


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``, else a ValueError that lists them and suggests the nearest."""
    if isinstance(value, str) and value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, choices))}{hint}.")


def suggest(name: str, known: Iterable[str], n: int = 3) -> str:
    """The known names nearest to a misspelt one, quoted and joined, for the end of an error message."""
    candidates = list(known)
    found = difflib.get_close_matches(name, candidates, n, cutoff=0.4) or candidates[:n]
    return ", ".join(map(repr, found))
