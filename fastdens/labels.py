"""Labels of any kind as numbers from 0: integers with gaps, strings, booleans, dates, columns of data frames."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.arrays import as_numbers, is_missing, kind_of, read, tensor_of
from fastdens.kernels.layout import offsets_of

# Labels as they were read: integers or booleans are a tensor, all others an array.
Labels = Tensor | NDArray[Any]

# Of which most may be empty: a number beyond is a mistake, and their names alone would fill the memory.
_MOST_CLASSES = 1 << 24

_REMEDY = "labels are integers or names, one kind for all"


def read_labels(
    labels: ArrayLike | Tensor | Sequence[Hashable],
    n_rows: int,
    name: str = "labels",
    rows: str = "there are {} examples",
) -> Labels:
    """Labels [N] of any kind, checked: none is missing, and all are of one kind.

    Parameters
    ----------
    labels : array or Tensor
        [N] or [N, 1]: integers of any size, booleans, floats that are whole, strings, dates, or other values that can
        be ordered; in a tensor, an array, a list, or a column of a data frame (nullable or categorical, too).
    n_rows : int
        N.
    name, rows : str
        What messages call the labels, and how they say how many rows there are.

    Returns
    -------
    Tensor or ndarray
        int64 or bool [N] where they fit, on the device of ``labels``; else an array of what they are.

    Raises
    ------
    TypeError
        If they are of several kinds, or of one that cannot be a label.
    ValueError
        If there is not one for each row, or one is missing.
    """
    found = read(labels.detach() if isinstance(labels, Tensor) else labels, name)
    if tuple(found.shape) == (n_rows, 1):
        found = found[:, 0]
    if tuple(found.shape) != (n_rows,):
        raise ValueError(
            f"{name} has shape {tuple(found.shape)}, but {rows.format(n_rows)}: pass one label for each row."
        )
    if not isinstance(found, Tensor):
        found = _one_kind(found, name)
    return _integers(found, name) if isinstance(found, Tensor) else found


def _one_kind(values: NDArray[Any], name: str) -> Labels:
    """Numbers as a tensor; strings, dates and other objects as they are."""
    dtype = values.dtype
    if dtype.kind == "O":
        return _of_objects(values, name)
    if dtype.kind in "Mm" and (absent := np.isnat(values)).any():
        raise _missing(name, "NaT", int(absent.argmax()))
    if dtype.kind in "USTMm":
        return values
    if dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {kind_of(dtype)}, but {_REMEDY}.")
    if dtype.kind == "f":
        _check_whole(values, name)
        if (np.abs(values.astype(np.float64)) >= 2.0**63).any():
            return _of_objects(np.array([int(v) for v in values.tolist()], object), name)
        return torch.from_numpy(values.astype(np.int64))
    if dtype.kind == "u" and dtype.itemsize == 8:
        if (values > np.iinfo(np.int64).max).any():
            return values
        return torch.from_numpy(values.astype(np.int64))
    return tensor_of(as_numbers(values, name))


def _integers(labels: Tensor, name: str) -> Tensor:
    if labels.is_floating_point():
        _check_whole(labels.double().cpu().numpy(), name)
    return labels if labels.dtype == torch.bool else labels.long()


def _check_whole(values: NDArray[Any], name: str) -> None:
    if (absent := np.isnan(values)).any():
        raise _missing(name, "NaN", int(absent.argmax()))
    if (bad := np.isinf(values) | (values != np.trunc(values))).any():
        row = int(bad.argmax())
        raise TypeError(f"{name} has the label {values[row]} in row {row}, but {_REMEDY}: pass y.long() or codes.")


def _missing(name: str, value: object, row: int) -> ValueError:
    return ValueError(f"{name} has a missing label ({value}) in row {row}: drop that row or give it a label.")


def _of_objects(values: NDArray[Any], name: str) -> Labels:
    items = values.tolist()
    kinds: dict[str, int] = {}
    for row, value in enumerate(items):
        if is_missing(value):
            raise _missing(name, value, row)
        kinds.setdefault(_kind(value), row)
    if len(kinds) > 1:
        (one, _), (other, row) = list(kinds.items())[:2]
        raise TypeError(f"{name} mixes labels of {one} with {other}, first in row {row}, but {_REMEDY}.")
    if kinds.keys() == {"bool"}:
        return torch.tensor([bool(value) for value in items], device="cpu")
    if kinds.keys() == {"number"}:
        as_floats = [value for value in items if not isinstance(value, numbers.Integral)]
        _check_whole(np.array([float(value) for value in as_floats]), name)
        integers = [int(value) for value in items]
        if all(-(2**63) <= value < 2**63 for value in integers):
            return torch.tensor(integers, dtype=torch.int64, device="cpu")
        values = np.empty(len(integers), object)
        values[:] = integers
    return values


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    return "number" if isinstance(value, numbers.Real) else type(value).__name__


def encode(labels: Labels, name: str = "labels") -> tuple[Tensor, tuple[Hashable, ...]]:
    """Numbers from 0 for labels that :func:`read_labels` returned, in the order of the sorted labels.

    Returns
    -------
    codes : Tensor
        int64 [N], on the device of the labels.
    classes : tuple
        The different labels, sorted as :func:`numpy.unique` sorts them.

    Raises
    ------
    TypeError
        If the labels cannot be ordered.
    """
    if len(labels) == 0:
        return torch.zeros(0, dtype=torch.int64, device="cpu"), ()
    if isinstance(labels, Tensor):
        codes, found = _encode_integers(labels.long())
        return codes, tuple(map(bool, found)) if labels.dtype == torch.bool else tuple(found)
    if labels.dtype.kind != "O":
        distinct, inverse = np.unique(labels, return_inverse=True)
        return torch.from_numpy(inverse.reshape(-1).astype(np.int64)), tuple(distinct.tolist())
    items = labels.tolist()
    try:
        classes = sorted(set(items))
    except TypeError:
        raise TypeError(
            f"{name} holds objects of type {type(items[0]).__name__}, which cannot be sorted: pass strings or integers."
        ) from None
    return _positions(items, classes), tuple(classes)


def _positions(items: Sequence[Any], classes: Sequence[Any]) -> Tensor:
    position = {value: code for code, value in enumerate(classes)}
    return torch.tensor([position[value] for value in items], dtype=torch.int64, device="cpu")


def _encode_integers(labels: Tensor) -> tuple[Tensor, list[int]]:
    low, high = int(labels.min()), int(labels.max())
    width = high - low + 1
    if width > 4 * len(labels) + 1024:
        distinct, codes = torch.unique(labels, return_inverse=True)
        return codes, distinct.tolist()
    present = torch.bincount(labels - low, minlength=width) > 0
    distinct = present.nonzero()[:, 0] + low
    if len(distinct) == width:
        return labels - low, distinct.tolist()
    return (present.cumsum(0) - 1)[labels - low], distinct.tolist()


def encode_as(labels: Labels, classes: Sequence[Hashable], name: str = "labels") -> Tensor:
    """Positions int64 [N] of labels among given classes.

    Raises
    ------
    ValueError
        If a class is given twice, or a label is none of them.
    """
    known = {value: code for code, value in enumerate(classes)}
    if len(known) < len(classes):
        raise ValueError(f"classes has {len(classes)} entries and {len(known)} different ones: give each once.")
    codes, distinct = encode(labels, name)
    for value in distinct:
        if value not in known:
            row = int((codes == distinct.index(value)).nonzero()[0])
            listed = ", ".join(map(repr, list(known)[:5])) + (", ..." if len(known) > 5 else "")
            raise ValueError(f"{name} has the label {value!r} in row {row}, which is none of the classes {listed}.")
    return torch.tensor([known[value] for value in distinct], dtype=torch.int64, device=codes.device)[codes]


def encode_classes(
    labels: Labels, n_classes: int | None, classes: Sequence[Hashable] | None
) -> tuple[Tensor, tuple[Hashable, ...]]:
    """The class of each label of ``y`` int64 [N], and the classes: given ones, 0 to ``n_classes - 1``, or all found.

    Raises
    ------
    TypeError, ValueError
        If both are given, ``n_classes`` is no positive integer, or a label is none of the classes.
    """
    if n_classes is not None and classes is not None:
        raise ValueError("n_classes and classes both say what the classes are: pass one of the two.")
    if n_classes is not None:
        return _count_from_0(labels, n_classes), tuple(range(n_classes))
    if classes is not None:
        names = names_of_classes(classes, "classes")
        return encode_as(labels, names, "y"), names
    return encode(labels, "y")


def names_of_classes(given: Iterable[Hashable], name: str) -> tuple[Hashable, ...]:
    """Labels of models as a tuple.

    Raises
    ------
    TypeError
        If they are none, or cannot be told apart.
    """
    try:
        names = tuple(given.tolist() if isinstance(given, Tensor) else given)
        # Lists, for one, have no hash.
        set(names)
    except TypeError:
        raise TypeError(f"{name} is no sequence of labels ({type(given).__name__}): pass a list of names.") from None
    return names


def _count_from_0(labels: Labels, n_classes: int) -> Tensor:
    """The labels themselves, if they are integers under ``n_classes``."""
    if isinstance(n_classes, bool) or not hasattr(n_classes, "__index__") or not 1 <= n_classes <= _MOST_CLASSES:
        raise ValueError(f"n_classes is {n_classes!r}, but it must be an integer from 1 to {_MOST_CLASSES:,}.")
    if not isinstance(labels, Tensor):
        raise TypeError(f"y has labels as {labels[0]!r}, but n_classes counts integers from 0: leave n_classes out.")
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise ValueError(f"y has the label {low}, but classes count from 0: leave n_classes out, or renumber.")
    if high >= n_classes:
        raise ValueError(f"y has the label {high}, but n_classes is {n_classes}: it must be at least {high + 1}.")
    return labels


def rows_by_class(codes: Tensor, n_classes: int) -> tuple[Tensor, Tensor, bool]:
    """The rows of codes int64 [N] sorted by class.

    Returns
    -------
    tuple
        Offsets int64 [n_classes + 1] of the classes among the sorted rows, the rows int64 [N] in that order, and
        whether they are in it already.
    """
    offsets = offsets_of(torch.bincount(codes, minlength=n_classes))
    if bool((codes[1:] >= codes[:-1]).all()):
        return offsets, torch.arange(len(codes), device=codes.device), True
    return offsets, torch.argsort(codes, stable=True), False
