"""Warnings shown where the caller of the library stands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_of_caller() -> Iterator[None]:
    """Show the warnings of what is fitted deep inside at the line outside of this library that led there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "fastdens",
        "contextlib",
    ):
        frame, level = frame.f_back, level + 1
    for warning in caught:
        warnings.warn(warning.message, stacklevel=level)
