"""Means and shares of examples, with their standard errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REACH = 1.96
"""Standard errors from the middle to an end of a 95% interval."""


class Estimate(NamedTuple):
    """A value and its standard error, each NaN where it is not known."""

    value: float
    standard_error: float


def mean_of(values: NDArray[np.float64]) -> Estimate:
    """A mean; its standard error needs two values."""
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(values.mean()) if n else math.nan, error)


def share_of(values: NDArray[np.bool_]) -> Estimate:
    """A share and its binomial standard error."""
    n = len(values)
    share = float(values.mean()) if n else math.nan
    return Estimate(share, math.sqrt(share * (1 - share) / n) if n else math.nan)
