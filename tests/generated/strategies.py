"""Points, labels and options of every kind, as users have them and as they should not be."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import torch
from hypothesis import strategies as st

import fastdens as fd

# Powers of ten by which numbers are scaled: usual ones, and those whose squares or inverses leave float32 or float64.
SCALES = [0, 0, 0, 0, 2, -3, 6, 20, -20, 37, -40, 150, -160, 300, -310]
CONTENTS = ["plain", "plain", "plain", "plain", "NaN", "inf", "constant", "constant column", "duplicates", "shifted"]
CONTENTS += ["zero", "one wild row", "minus zero"]
DTYPES = ["<f4", "<f4", "<f8", "<f8", ">f4", ">f8", "<f2", ">f2", "i1", "u1", ">i2", "<u2", "<i4", "<u4", "i8", "u8"]
DTYPES += ["?", "g", "c8", "O", "U3", "S2", "M8[s]", "m8[s]", "V2"]
FORMS = ["array", "array", "tensor", "tensor", "tensor", "gradient", "half", "bfloat16", "float8", "list", "tuple"]
FORMS += ["Fortran", "reversed", "strided", "transposed", "expanded", "read-only", "broadcast", "masked", "objects"]
FORMS += ["None", "Decimal", "frame", "nullable frame", "series", "categories", "polars", "sparse", "meta", "quantized"]
FORMS += ["nested", "complex", "dict", "generator", "inference", "parameter", "subclass", "unaligned"]
SHAPES = [(30, 2), (30, 2), (30, 2), (30, 2), (24, 1), (40, 3), (7, 2), (2, 2), (1, 2), (0, 2), (30, 0), (30,), ()]
SHAPES += [(5, 2, 2)]


class Drawn(NamedTuple):
    """What was drawn: the object, and its numbers as float64, or None where it does not hold any."""

    given: Any
    numbers: np.ndarray | None


@st.composite
def numbers(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """float64 of some scale, with what spoils them now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    x = np.asarray(rng.normal(size=shape)) * 10.0 ** draw(st.sampled_from(SCALES))
    content = draw(st.sampled_from(CONTENTS))
    if x.size == 0 or x.ndim == 0:
        return x
    if content in ("NaN", "inf"):
        x.flat[rng.integers(x.size)] = np.nan if content == "NaN" else rng.choice([-np.inf, np.inf])
    elif content in ("constant", "zero", "minus zero"):
        x[:] = {"constant": x.flat[0], "zero": 0.0, "minus zero": -0.0}[content]
    elif content == "constant column":
        x[..., :1] = 1
    elif content == "duplicates":
        x = x[rng.integers(0, max(1, len(x) // 4), len(x))]
    elif content == "shifted":
        x += 1e6
    elif content == "one wild row":
        x[rng.integers(len(x))] *= 10.0 ** draw(st.sampled_from([5, 15, 100]))
    return x


def formed(x: np.ndarray, form: str, seed: int) -> Any:
    """The same numbers in another form, or the array itself where it has no such form."""
    rng = np.random.default_rng(seed)
    makers = {
        "list": x.tolist,
        "tuple": lambda: tuple(x.tolist()),
        "Fortran": lambda: np.asfortranarray(x),
        "reversed": lambda: x[::-1].copy()[::-1],
        "strided": lambda: np.repeat(x, 2, 0)[::2],
        "broadcast": lambda: np.broadcast_to(x[:1], x.shape),
        "unaligned": lambda: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
        "masked": lambda: np.ma.array(x, mask=rng.random(x.shape) < rng.choice([0, 0.1])),
        "objects": lambda: x.astype(object),
        "Decimal": lambda: np.array([Decimal(repr(v)) for v in x.ravel().tolist()], object).reshape(x.shape),
        "None": lambda: _with_none(x, rng),
        "frame": lambda: pd.DataFrame(x),
        "nullable frame": lambda: pd.DataFrame(x).convert_dtypes(),
        "categories": lambda: pd.DataFrame(x).astype("category"),
        "series": lambda: pd.Series(list(x)),
        "polars": lambda: pl.DataFrame(x),
        "dict": lambda: {"x": x},
        "generator": lambda: (row for row in x),
        "read-only": lambda: _read_only(x),
    }
    tensors = {
        "tensor": lambda t: t,
        "gradient": lambda t: t.requires_grad_(),
        "parameter": torch.nn.Parameter,
        "half": lambda t: t.half(),
        "bfloat16": lambda t: t.bfloat16(),
        "float8": lambda t: t.to(torch.float8_e4m3fn),
        "transposed": lambda t: t.mT.contiguous().mT,
        "expanded": lambda t: t[:1].expand(t.shape),
        "sparse": lambda t: t.to_sparse(),
        "meta": lambda t: t.to("meta"),
        "quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
        "nested": lambda t: torch.nested.nested_tensor(list(t)),
        "complex": lambda t: t + 1j,
        "inference": _inference,
        "subclass": lambda t: t.as_subclass(_Subclass),
    }
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if form in tensors:
                return tensors[form](torch.from_numpy(np.ascontiguousarray(x)))
            return makers[form]() if form in makers else x
        # Not everything has every form.
        except Exception:
            return x


class _Subclass(torch.Tensor):
    """A tensor of a class of a user's own."""


def _inference(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tensor.clone()


def _with_none(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    objects = x.astype(object)
    if x.size:
        objects.flat[rng.integers(x.size)] = None
    return objects


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@st.composite
def arrays(draw: Any, shapes: list[tuple[int, ...]] | None = None) -> Drawn:
    """Numbers of any shape, dtype and form."""
    x = draw(numbers(draw(st.sampled_from(shapes or SHAPES))))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = x.astype(draw(st.sampled_from(DTYPES)) if draw(st.booleans()) else np.float64)
    form = draw(st.sampled_from(FORMS))
    given = formed(x, form, draw(st.integers(0, 99)))
    return Drawn(given, numbers_of(given))


def numbers_of(given: Any) -> np.ndarray | None:
    """The numbers of an object as float64, by numpy alone; None where numpy finds none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(given, torch.Tensor):
                given = given.detach().as_subclass(torch.Tensor).to(torch.float64).numpy()
            return np.asarray(given, np.float64)
    # What numpy cannot read, as a sparse tensor.
    except Exception:
        return None


@st.composite
def labels(draw: Any, n: int) -> Any:
    """Labels of n examples, of any kind; some of them no labels at all."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    codes = rng.integers(0, draw(st.sampled_from([1, 2, 3, max(1, n)])), n)
    kinds = {
        "codes": codes,
        "sorted": np.sort(codes),
        "negative": codes - 1,
        "gaps": codes * 7,
        "huge": codes * 10**15,
        "past int64": codes.astype(object) * 10**30,
        "names": np.array([f"class {c}" for c in codes]) if n else codes.astype(str),
        "bytes": codes.astype("S3"),
        "booleans": codes > 0,
        "dates": codes.astype("M8[D]"),
        "floats": codes.astype(float),
        "halves": codes / 2,
        "NaN": np.where(rng.random(n) < 0.1, np.nan, codes),
        "mixed": np.array([c if c % 2 else str(c) for c in codes.tolist()], object),
        "tuples": [(c, c) for c in codes.tolist()],
        "lists": [[c] for c in codes.tolist()],
        "one too many": np.append(codes, 0),
        "a scalar": 3,
        "text": "cat",
        "nothing": None,
        "unhashable": [{c} for c in codes.tolist()],
        "surrogates": np.array([f"\ud800{c}" for c in codes], object),
    }
    usual = ["codes", "codes", "codes", "names", "sorted"]
    made = kinds[draw(st.sampled_from(usual + list(kinds)))]
    if isinstance(made, np.ndarray) and draw(st.booleans()):
        return formed(made, draw(st.sampled_from(FORMS)), draw(st.integers(0, 99)))
    return made


def length_of(given: Any) -> int:
    """Rows of what was drawn, as far as it has any."""
    try:
        return len(given)
    # A scalar, a generator.
    except Exception:
        return 5


NO_NUMBERS = [None, "x", b"x", [], (), {}, object(), torch.tensor([1, 2]), np.zeros(2), float, ...]
INTEGERS = [-1, 0, 1, 2, 3, 2**63, True, np.int64(2), np.uint8(1), torch.tensor(2), 1.0, 2.5, Decimal(1), 1j]
FLOATS = [0.0, -0.0, 1e-9, 0.5, 1.0, 2, 1e308, 5e-324, -1.0, float("nan"), float("inf"), True]
FLOATS += [np.float32(0.5), np.float64(1.0), torch.tensor(0.5), Decimal("0.5"), 10**400]


def integers_or_not() -> st.SearchStrategy[Any]:
    """Small integers of several types, and what is none."""
    return st.sampled_from([1, 2, 2, 3, *INTEGERS, *NO_NUMBERS])


def floats_or_not() -> st.SearchStrategy[Any]:
    """Numbers of several types, and what is none."""
    return st.sampled_from([0.5, 1.0, *FLOATS, *NO_NUMBERS])


def choices_or_not(*choices: Any) -> st.SearchStrategy[Any]:
    """Some choices, and what is none of them."""
    return st.sampled_from([*choices, *choices, *choices[0][:1], "", 0, None, True, [], choices])


def usual_batch(seed: int, sizes: tuple[int, ...] = (20, 25), d: int = 2, dtype: str = "f8") -> fd.RaggedBatch:
    """A batch of points with which nothing is wrong."""
    rng = np.random.default_rng(seed)
    return fd.RaggedBatch.from_list([rng.normal(size=(n, d)).astype(dtype) for n in sizes])
