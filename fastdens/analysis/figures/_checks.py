"""Arguments of the figures: arrays of the right shape, series of the right names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.options import suggest


def shaped(values: ArrayLike | Tensor, name: str, symbols: str, **sizes: int) -> NDArray[np.float64]:
    """``values`` as float64 with one axis a letter of ``symbols``, some of which have a size: ``"LP", L=4``."""
    array = as_numpy(values).astype(np.float64)
    wanted = tuple(sizes.get(symbol) for symbol in symbols)
    if array.ndim != len(wanted) or any(n not in (None, own) for n, own in zip(wanted, array.shape, strict=True)):
        given = " and ".join(f"{symbol} = {n}" for symbol, n in sizes.items())
        layout = f"[{', '.join(symbols)}]" if symbols else "one number"
        layout += f" with {given}" if given else ""
        raise ValueError(f"{name} has shape {array.shape}, but it must be {layout}.")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty, shape {array.shape}: there is nothing to draw.")
    return array


def interval(pair: Any, name: str, symbols: str, **sizes: int) -> NDArray[np.float64]:
    """Low and high ends, [2, ...]; NaN where an end is missing."""
    ends = tuple(pair)
    if len(ends) != 2:
        raise ValueError(f"{name} has {len(ends)} parts, but an interval has two: pass (low, high).")
    low = shaped(ends[0], f"low end of {name}", symbols, **sizes)
    high = shaped(ends[1], f"high end of {name}", symbols, **sizes)
    if (low > high).any():
        at = np.unravel_index(int((low > high).argmax()), low.shape)
        where = f" at index {', '.join(map(str, at))}" if at else ""
        raise ValueError(f"{name} runs from {low[at]:.4g} to {high[at]:.4g}{where}: pass (low, high), in this order.")
    return np.stack([low, high])


def error_bars(
    values: NDArray[np.float64], error: ArrayLike | Tensor | None, name: str, symbol: str
) -> NDArray[np.float64] | None:
    """Ends of bars of one error to each side of ``values``, [2, n]; None without an error."""
    if error is None:
        return None
    sizes = shaped(error, name, symbol, **{symbol: len(values)})
    if (sizes < 0).any():
        at = int((sizes < 0).argmax())
        raise ValueError(f"{name} is {sizes[at]:.4g} at index {at}, but an error is not negative.")
    return np.stack([values - sizes, values + sizes])


def fractions(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The same values, which lie between 0 and 1 or are NaN."""
    bad = (values < 0) | (values > 1)
    if bad.any():
        raise ValueError(f"{name} has a value of {values[bad][0]:.4g}, but all lie between 0 and 1.")
    return values


def named(names: Sequence[str], name: str) -> list[str]:
    """Names of layers or classes, at least one."""
    if isinstance(names, str) or len(names) == 0:
        raise ValueError(f"{name} is {names!r}: pass a list of at least one name.")
    return list(names)


def series(values: Mapping[str, Any], name: str, most: int) -> dict[str, Any]:
    """A mapping of at least one series and not more than can be told apart."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a {type(values).__name__}: pass a mapping from the name of a series to its values.")
    if not 1 <= len(values) <= most:
        raise ValueError(f"{name} has {len(values)} series, but 1 to {most} can be told apart: draw them in parts.")
    return dict(values)


def of_series(values: Mapping[str, Any] | None, name: str, known: Iterable[str]) -> dict[str, Any]:
    """What goes with each of the ``known`` series: nothing, or something for all of them."""
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
