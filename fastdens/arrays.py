"""Arrays as they come, of any library, as tensors and numpy arrays: the one place where they are converted.

Whatever holds numbers is taken: lists, numpy arrays of any strides and byte order, data frames and their columns,
objects with ``__array__``, ``__dlpack__`` or ``__cuda_array_interface__``. Data frames are known by their methods, so
that no library of them is imported. Nothing that is missing is dropped or filled: a mask, None or NA is an error that
names its place.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastdens.kernels.surroundings import is_differentiated, is_transformed

_NUMERIC = "biuf"
_DL_CPU = 1


def as_tensor(x: ArrayLike | Tensor, name: str = "x") -> Tensor:
    """Real numbers of any shape as a tensor, which shares memory with ``x`` where it can.

    Parameters
    ----------
    x : array or Tensor
        Anything that holds real numbers; arrays on an accelerator stay there.
    name : str
        Named in messages.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If a value is masked or missing.
    """
    found = read(x, name)
    return found if isinstance(found, Tensor) else tensor_of(as_numbers(found, name))


def as_points(x: ArrayLike | Tensor, name: str = "x") -> Tensor:
    """A tensor [N, D] of float32 or float64: integers become float64, half precision float32.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If ``x`` is not two-dimensional, has no columns, or has a masked or missing value.
    NotImplementedError
        If torch.func or forward mode differentiates ``x``; a gradient that autograd would record is left out.
    """
    tensor = as_tensor(x, name)
    if is_transformed() and is_differentiated(tensor):
        raise NotImplementedError(
            f"{name} is differentiated, but its numbers are taken without derivatives here: log_prob of a density and "
            f"transform of a projection have derivatives; elsewhere pass {name}.detach()."
        )
    check_points_shape(tuple(tensor.shape), name)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float() if tensor.is_floating_point() else tensor.double()
    return tensor.detach().contiguous()


def stack_points(arrays: Iterable[ArrayLike | Tensor]) -> tuple[Tensor, list[int]]:
    """The points [N, D] of several arrays [N_m, D], one array after the other, and how many each has.

    Raises
    ------
    TypeError, ValueError
        If there is none, an array is not [N_m, D], or they disagree in D or in their device.
    """
    try:
        listed = list(arrays)
    except TypeError:
        raise TypeError(f"arrays is {type(arrays).__name__}: pass a list of one array for each model.") from None
    if not listed:
        raise ValueError("arrays is empty: pass one array for each model.")
    parts = [as_points(x, f"array {m}") for m, x in enumerate(listed)]
    for m, part in enumerate(parts):
        if part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"array {m} has {part.shape[1]} features and array 0 has {parts[0].shape[1]}: models of different "
                "D belong in batches of their own."
            )
        if part.device != parts[0].device:
            raise ValueError(
                f"array {m} is on {part.device} and array 0 on {parts[0].device}: move them to one device."
            )
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    points = parts[0] if len(parts) == 1 else torch.cat([part.to(dtype) for part in parts])
    return points, [len(part) for part in parts]


def as_array(x: ArrayLike | Tensor, name: str = "x") -> NDArray[Any]:
    """Real numbers of any shape as a numpy array in main memory; bfloat16 and float8 become float32.

    Raises
    ------
    TypeError, ValueError
        As :func:`as_tensor`.
    """
    found = read(x, name)
    return array_of(found) if isinstance(found, Tensor) else as_numbers(found, name)


def read(x: Any, name: str) -> Tensor | NDArray[Any]:
    """What ``x`` holds: a dense tensor where it is one or lies on an accelerator, else an array of any dtype.

    Raises
    ------
    TypeError
        If ``x`` is no array, or holds complex numbers.
    ValueError
        If a value is masked or missing.
    """
    if isinstance(x, Tensor):
        return _dense(x, name)
    shared = _through_dlpack(x, name)
    return _read_values(x, name) if shared is None else _dense(shared, name)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """A tensor of an array of numbers, which shares its memory where torch can."""
    step = array.itemsize
    plain = array.flags.writeable and array.flags.aligned and all(s >= 0 and s % step == 0 for s in array.strides)
    # Nothing here writes, but torch could: an array that may not be written is copied.
    return torch.from_numpy(array if plain else array.copy())


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A numpy array of a tensor; dtypes that numpy does not have become float32."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _dense(x: Tensor, name: str) -> Tensor:
    """The tensor itself, if it is dense and of real numbers."""
    if x.is_nested:
        raise TypeError(
            f"{name} is a nested tensor, but an array has rows of one length: pass one tensor for each part."
        )
    if x.layout != torch.strided:
        raise TypeError(f"{name} is a sparse tensor, but points are dense: pass {name}.to_dense().")
    if x.is_meta:
        raise TypeError(f"{name} is on the device meta, where tensors hold no numbers: move it to another device.")
    if x.is_complex():
        raise TypeError(f"{name} holds complex numbers, but real ones are needed: pass its real part.")
    if hasattr(x, "get_mask"):
        masked: Any = x
        _refuse_mask(~masked.get_mask().cpu().numpy(), name)
        x = masked.get_data()
    if x.is_quantized:
        x = x.dequantize()
    return x.resolve_neg()


def _through_dlpack(x: Any, name: str) -> Tensor | None:
    """A tensor on the accelerator where ``x`` lies, or of an object that numpy cannot read; None for all others."""
    if isinstance(x, np.ndarray | np.generic | list | tuple | str):
        return None
    try:
        if hasattr(x, "__cuda_array_interface__"):
            return torch.as_tensor(x, device="cuda")
        if type(x).__name__ == "PyCapsule" or (
            hasattr(x, "__dlpack__") and not (hasattr(x, "__array__") and x.__dlpack_device__()[0] == _DL_CPU)
        ):
            shared: Tensor = from_dlpack(x)
            return shared
    # Each library raises errors of its own.
    except Exception as error:
        raise _unreadable(x, name, error) from None
    return None


def _unreadable(x: object, name: str, error: Exception | None = None) -> TypeError:
    reason = "" if error is None or not str(error) else f", {_first_sentence(error)}"
    return TypeError(
        f"{name} is a {type(x).__name__}, which cannot be read as an array of numbers{reason}: pass an array, a "
        "tensor, a list or a data frame."
    )


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0].rstrip(".:")


def _read_values(x: Any, name: str) -> NDArray[Any]:
    """What an array-like object holds, of any dtype, objects among them.

    Raises
    ------
    TypeError
        If ``x`` is no array.
    ValueError
        If a value is masked or missing.
    """
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            _refuse_mask(np.ma.getmaskarray(x), name)
        return np.asarray(x)
    if (columns := _columns(x)) is not None:
        return _read_frame(x, columns, name)
    if hasattr(x, "to_numpy"):
        return _read_column(x, name)
    if isinstance(x, list | tuple):
        return _read_sequence(x, name)
    try:
        array = np.asarray(x)
    # Objects with __array__ raise errors of their own.
    except Exception as error:
        raise _unreadable(x, name, error) from None
    if array.dtype == object and array.ndim == 0:
        raise _unreadable(x, name)
    return array


def _refuse_mask(mask: NDArray[Any], name: str) -> None:
    if mask.dtype != bool:
        raise TypeError(f"{name} has a mask of several fields: pass an array of numbers.")
    if mask.any():
        raise ValueError(f"{name} has {_first(mask, 'masked')}: fill or drop it, nothing is left out unasked.")


def _first(bad: NDArray[Any], kind: str) -> str:
    """Where the first bad value is, and how many there are."""
    place, count = _place(np.unravel_index(int(bad.argmax()), bad.shape)), int(bad.sum())
    return f"a {kind} value {place}" + (f" and {count} in all" if count > 1 else "")


def _place(index: Iterable[Any]) -> str:
    """Where a value is, in words."""
    parts = [int(i) for i in index]
    if len(parts) == 1:
        return f"in row {parts[0]}"
    if len(parts) == 2:
        return f"in row {parts[0]}, column {parts[1]}"
    return f"at {tuple(parts)}"


def _columns(x: Any) -> Iterator[tuple[Any, Any]] | None:
    """Names and columns of a data frame of pandas, polars or pyarrow; None if ``x`` is none."""
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        return ((label, x.iloc[:, i]) for i, label in enumerate(x.columns))
    if hasattr(x, "get_columns") and hasattr(x, "to_numpy"):
        return ((column.name, column) for column in x.get_columns())
    if hasattr(x, "itercolumns") and hasattr(x, "column_names"):
        return zip(x.column_names, x.itercolumns(), strict=True)
    return None


def _read_frame(x: Any, columns: Iterator[tuple[Any, Any]], name: str) -> NDArray[Any]:
    if hasattr(x, "iloc") and all(isinstance(dtype, np.dtype) and dtype.kind in _NUMERIC for dtype in x.dtypes):
        return np.asarray(x.to_numpy())
    read = [(label, _read_column(column, f"column {label!r} of {name}")) for label, column in columns]
    if len(read) == 1:
        return read[0][1][:, None] if read[0][1].ndim == 1 else read[0][1]
    parts = [as_numbers(values, f"column {label!r} of {name}") for label, values in read]
    return np.column_stack(parts) if parts else np.empty((len(x), 0))


def _read_column(x: Any, name: str) -> NDArray[Any]:
    """A column of pandas, polars or pyarrow; NaN of a column of plain floats is a number, as in an array."""
    try:
        of_floats = isinstance(getattr(x, "dtype", None), np.dtype) and x.dtype.kind == "f"
        missing = next((getattr(x, method) for method in ("isna", "is_null") if hasattr(x, method)), None)
        absent = np.zeros(0, bool) if missing is None or of_floats else np.asarray(missing(), bool)
    except Exception as error:
        raise _unreadable(x, name, error) from None
    if absent.any():
        raise ValueError(f"{name} has {_first(absent, 'missing')}: fill or drop it.")
    try:
        array = np.asarray(x.to_numpy())
    except Exception:
        try:
            array = np.asarray(x.to_numpy(zero_copy_only=False))
        except Exception as error:
            raise _unreadable(x, name, error) from None
    if array.dtype == object and array.ndim == 1 and len(array) and _is_array(array[0]):
        return _read_sequence(list(array), name)
    return array


def _is_array(x: Any) -> bool:
    if isinstance(x, str | bytes | np.generic):
        return False
    return isinstance(x, list | tuple) or any(hasattr(x, a) for a in ("__array__", "__dlpack__", "to_numpy"))


def _is_plain(x: list[Any] | tuple[Any, ...]) -> bool:
    """Whether numpy reads a list right: numbers alone or strings alone, at every depth."""
    kinds = set(map(type, x))
    if kinds <= {list, tuple}:
        return all(map(_is_plain, x))
    return all(issubclass(kind, int | float | np.number | np.bool_) for kind in kinds) or kinds <= {str}


def _read_sequence(x: list[Any] | tuple[Any, ...], name: str) -> NDArray[Any]:
    if _is_plain(x):
        try:
            array = np.asarray(x)
        except ValueError:
            raise _uneven(name) from None
        if array.ndim == 1 and array.dtype.kind == "f" and all(type(value) is int for value in x):
            # Integers past 64 bits: as floats, some would be equal that are not.
            return _objects(x)
        return array
    if not all(map(_is_array, x)):
        if any(map(_is_array, x)) and not any(value is np.ma.masked for value in x):
            scalars = [_read_values(v, name).item() if _is_array(v) and np.ndim(v) == 0 else v for v in x]
            if any(map(_is_array, scalars)):
                raise _uneven(name)
            return _objects(scalars)
        return _objects(x)
    if any(value is np.ma.masked for value in x):
        return _objects(x)
    parts = [
        as_array(part, f"row {i} of {name}")
        if isinstance(part, Tensor) or not hasattr(part, "__array__")
        else _read_values(part, f"row {i} of {name}")
        for i, part in enumerate(x)
    ]
    if len({part.shape for part in parts}) > 1:
        raise _uneven(name)
    return np.stack(parts)


def _uneven(name: str) -> ValueError:
    return ValueError(
        f"{name} cannot be read as an array of numbers, its rows have different lengths: pass equal ones."
    )


def _objects(x: Iterable[Any]) -> NDArray[Any]:
    values = list(x)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT, NA of pandas or masked."""
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        # NA is neither equal to itself nor different.
        return type(value).__name__ == "NAType"


def as_numbers(values: NDArray[Any], name: str) -> NDArray[Any]:
    """An array of booleans, integers or floats in this machine's byte order, of an array that may hold anything.

    Raises
    ------
    TypeError
        If the array does not hold real numbers.
    ValueError
        If a value is missing.
    """
    dtype = values.dtype
    if dtype.kind == "O":
        return _numbers_of_objects(values, name)
    if dtype.kind == "c":
        raise TypeError(f"{name} holds complex numbers, but real ones are needed: pass its real part.")
    if dtype.kind not in _NUMERIC:
        if dtype.type is not np.void and dtype.kind == "V":
            # A dtype of ml_dtypes, such as bfloat16.
            return values.astype(np.float32)
        raise TypeError(f"{name} holds {kind_of(dtype)}, which cannot be read as an array of numbers: pass numbers.")
    if dtype.kind == "f" and dtype.itemsize > 8:
        return values.astype(np.float64)
    # Of types of one size, such as long and long long, torch knows one.
    usual = np.dtype(f"{dtype.kind}{dtype.itemsize}")
    return values.view(usual) if dtype.isnative else values.astype(usual)


def kind_of(dtype: np.dtype[Any]) -> str:
    """What an array of some dtype holds, in words."""
    if dtype.names is not None:
        return f"records of the fields {', '.join(map(repr, dtype.names))}"
    words = {"U": "strings", "S": "bytes", "T": "strings", "M": "dates", "m": "time spans", "O": "objects"}
    return {**words, "V": f"raw bytes ({dtype.str})", "c": "complex numbers"}.get(dtype.kind, f"values of {dtype}")


def _numbers_of_objects(values: NDArray[Any], name: str) -> NDArray[Any]:
    for index, value in zip(np.ndindex(values.shape), values.flat, strict=True):
        if isinstance(value, numbers.Real | Decimal | np.bool_):
            continue
        if is_missing(value):
            raise ValueError(f"{name} has a missing value ({value!r}) {_place(index)}: fill or drop it.")
        raise TypeError(
            f"{name} has a {type(value).__name__} {_place(index)} and cannot be read as an array of numbers: pass "
            "numbers alone."
        )
    try:
        return values.astype(np.float64)
    except (OverflowError, ValueError):
        raise ValueError(f"{name} has an integer that is too large for float64: scale it down.") from None


class MatrixSource(ABC):
    """A matrix [N, D] that is somewhere else, read part by part."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    # Rows that are stored together: reading begins best at a multiple of it.
    row_step: int = 1

    @abstractmethod
    def __getitem__(self, part: slice | tuple[slice, slice]) -> NDArray[Any]:
        """Rows ``[start:stop]`` or columns ``[:, start:stop]``, in memory of their own."""


class Matrix:
    """A matrix [N, D] of real numbers, converted a block at a time: one on disk is never in memory whole.

    Parameters
    ----------
    x : array, Tensor or MatrixSource
        Of any kind that :func:`as_tensor` takes.
    name : str
        Named in messages.

    Attributes
    ----------
    shape : tuple of int
    dtype : torch.dtype
        float32 for float32 and smaller floats, float64 for all others.
    device : torch.device

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not hold real numbers, or is not [N, D] with D > 0.
    """

    def __init__(self, x: ArrayLike | Tensor | MatrixSource, name: str = "x") -> None:
        found = x if isinstance(x, MatrixSource) else read(x, name)
        if isinstance(found, np.ndarray) and found.dtype.kind not in _NUMERIC:
            found = as_numbers(found, name)
        # Others are converted block by block.
        self._source = found.detach() if isinstance(found, Tensor) else found
        self.shape: tuple[int, ...] = check_points_shape(tuple(self._source.shape), name)
        self._name = name
        first = self._block(slice(0, 1), rows=True)
        self.dtype: torch.dtype = (
            torch.float32 if first.is_floating_point() and first.dtype != torch.float64 else torch.float64
        )
        self.device: torch.device = first.device

    def _block(self, part: slice, *, rows: bool) -> Tensor:
        block = self._source[part] if rows else self._source[:, part]
        return block if isinstance(block, Tensor) else tensor_of(as_numbers(block, self._name))

    def blocks(self, n_elements: int, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """Blocks of rows, of about ``n_elements`` numbers each, by default in the dtype of the matrix."""
        step = max(1, n_elements // self.shape[1])
        if isinstance(self._source, MatrixSource):
            step = max(step // self._source.row_step, 1) * self._source.row_step
        for start in range(0, self.shape[0], step):
            yield self._block(slice(start, start + step), rows=True).to(dtype or self.dtype)

    def column_blocks(self, n_elements: int, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """Blocks of columns, each transposed, of about ``n_elements`` numbers each."""
        step = max(1, n_elements // max(1, self.shape[0]))
        for start in range(0, self.shape[1], step):
            yield self._block(slice(start, start + step), rows=False).mT.to(dtype or self.dtype)


def check_points_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """``shape`` if it is [N, D] with D > 0.

    Raises
    ------
    ValueError
    """
    if len(shape) != 2:
        raise ValueError(
            f"{name} has shape {shape}, but points are [N, D]: reshape it, e.g. x[:, None] for one feature."
        )
    if shape[1] == 0:
        raise ValueError(f"{name} has shape {shape}, but points need at least one feature.")
    return shape
