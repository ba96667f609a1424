"""Checks of the arguments of the figures: arrays of the right shape, series of the right names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.options import suggest

FloatArray = NDArray[np.float64]


def shaped(values: ArrayLike | Tensor, name: str, symbols: str, **sizes: int) -> FloatArray:
    """``values`` as float64 with one axis for each letter of ``symbols``, some of known size: ``"LP", L=4``."""
    array = as_numpy(values).astype(np.float64)
    if array.ndim != len(symbols) or any(sizes.get(s, n) != n for s, n in zip(symbols, array.shape, strict=True)):
        layout = f"[{', '.join(symbols)}]" if symbols else "one number"
        given = " and ".join(f"{symbol} = {n}" for symbol, n in sizes.items())
        raise ValueError(f"{name} has shape {array.shape}, but it must be {layout}{f' with {given}' if given else ''}.")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty, shape {array.shape}: there is nothing to draw.")
    return array


def fractions(values: ArrayLike | Tensor, name: str, symbols: str, **sizes: int) -> FloatArray:
    """`shaped` values, each between 0 and 1 or NaN."""
    array = shaped(values, name, symbols, **sizes)
    bad = (array < 0) | (array > 1)
    if bad.any():
        raise ValueError(f"{name} has a value of {array[bad][0]:.4g}, but all lie between 0 and 1.")
    return array


def interval(pair: Any, name: str, symbols: str, **sizes: int) -> FloatArray:
    """`shaped` lower and upper ends, [2, ...]; NaN where an end is missing."""
    ends = tuple(pair)
    if len(ends) != 2:
        raise ValueError(f"{name} has {len(ends)} parts, but an interval has two: pass (low, high).")
    low, high = (
        shaped(end, f"{which} end of {name}", symbols, **sizes)
        for which, end in zip(("low", "high"), ends, strict=True)
    )
    if (low > high).any():
        at = np.unravel_index(int((low > high).argmax()), low.shape)
        where = f" at index {', '.join(map(str, at))}" if at else ""
        raise ValueError(f"{name} runs from {low[at]:.4g} to {high[at]:.4g}{where}: pass (low, high), in this order.")
    return np.stack([low, high])


def error_bars(values: FloatArray, error: ArrayLike | Tensor | None, name: str, symbol: str) -> FloatArray | None:
    """Ends of bars of one error to each side of ``values``, [2, n]; None without an error."""
    if error is None:
        return None
    sizes = shaped(error, name, symbol, **{symbol: len(values)})
    if (sizes < 0).any():
        at = int((sizes < 0).argmax())
        raise ValueError(f"{name} is {sizes[at]:.4g} at index {at}, but an error is not negative.")
    return np.stack([values - sizes, values + sizes])


def named(names: Sequence[str], name: str) -> list[str]:
    """Names of layers or classes, at least one."""
    if isinstance(names, str) or len(names) == 0:
        raise ValueError(f"{name} is {names!r}: pass a list of at least one name.")
    return list(names)


def series(values: Mapping[str, Any], name: str, most: int) -> dict[str, Any]:
    """A mapping of at least one series and at most as many as can be told apart."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a {type(values).__name__}: pass a mapping from the name of a series to its values.")
    if not 1 <= len(values) <= most:
        raise ValueError(f"{name} has {len(values)} series, but 1 to {most} can be told apart: draw them in parts.")
    return dict(values)


def of_series(values: Mapping[str, Any] | None, name: str, known: Iterable[str]) -> dict[str, Any]:
    """A mapping with an entry for each of the ``known`` series, or with none."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a {type(values).__name__}: pass a mapping with the names of the series.")
    known = list(known)
    for wrong in values.keys() - set(known):
        raise ValueError(f"{name} names {wrong!r}, which is no series; the nearest: {suggest(wrong, known)}.")
    for missing in [one for one in known if one not in values]:
        raise ValueError(f"{name} has nothing for the series {missing!r}: pass all or none.")
    return dict(values)
