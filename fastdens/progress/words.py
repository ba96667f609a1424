"""Times and amounts in words."""

from __future__ import annotations

import math
from datetime import timedelta


def clock(seconds: float | None) -> str:
    """A time as h:mm:ss, in whole seconds that have begun; -:--:-- if it is not known."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=math.ceil(seconds)))


def about(seconds: float) -> str:
    """A time in words, to two digits: "about 4 min"."""
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            amount = seconds / size
            return f"about {amount:.0f} {unit}" if amount >= 10 else f"about {amount:.1f} {unit}".replace(".0 ", " ")
    return f"about {seconds:.0f} s" if seconds >= 1 else "under a second"
