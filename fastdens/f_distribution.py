"""Tail and quantiles of the F distribution, without scipy: fitting needs one number of them, and torch has none."""

from __future__ import annotations

import math


def f_survival(x: float, d1: float, d2: float) -> float:
    """P(F > x) of the F distribution with d1 and d2 degrees of freedom, x > 0."""
    total = d1 * x + d2
    return _incomplete_beta(d2 / 2, d1 / 2, d2 / total, d1 * x / total)


def f_upper_quantile(probability: float, d1: float, d2: float) -> float:
    """The x with P(F > x) = ``probability``, by bisection of log x."""
    low, high = -1.0, 1.0
    while f_survival(math.exp(high), d1, d2) > probability:
        high *= 2
    while f_survival(math.exp(low), d1, d2) < probability:
        low *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if f_survival(math.exp(middle), d1, d2) > probability else (low, middle)
    return math.exp(middle)


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """Regularised incomplete beta function I_x(a, b), 0 < x < 1, y = 1 - x given apart to lose no digits.

    A continued fraction, evaluated by Lentz's method as Thompson and Barnett modified it.

    References
    ----------
    Press et al., Numerical Recipes, 3rd edition, 2007, section 6.4. DLMF 8.17.22.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, y, x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)) / a
    tiny = 1e-300
    numerator, denominator = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction, change, k = denominator, 0.0, 0
    while abs(change - 1) > 1e-15:
        k += 1
        even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        change = 1.0
        for coefficient in (even, odd):
            numerator = 1 + coefficient / numerator or tiny
            denominator = 1 / (1 + coefficient * denominator or tiny)
            change *= numerator * denominator
        fraction *= change
    return front * fraction
