"""Arrays of every kind give the same numbers; what is missing or no number is one sentence with its place."""

from __future__ import annotations

import array
from decimal import Decimal

import numpy as np
import pytest
import torch

from fastdens.arrays import Matrix, as_array, as_points, as_tensor


class WithArray:
    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return np.array(self.x, dtype)


class WithDlpack:
    """As arrays of accelerators: numpy cannot read it."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


def pandas(x, dtype=None):
    frame = pytest.importorskip("pandas").DataFrame(np.asarray(x), columns=["a", "b", "b"])
    return frame if dtype is None else frame.astype(dtype)


def polars(x):
    return pytest.importorskip("polars").DataFrame(np.asarray(x), schema=["a", "b", "c"])


def arrow(x):
    pa = pytest.importorskip("pyarrow")
    return pa.table({name: pa.array(column) for name, column in zip("abc", np.asarray(x).T, strict=True)})


def unaligned(x):
    x = np.asarray(x)
    records = np.zeros(x.shape, [("skip", "i1"), ("x", x.dtype)])
    records["x"] = x
    return records["x"]


KINDS = {
    "list": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "rows": list,
    "tensors": lambda x: list(torch.from_numpy(x)),
    "tensor with gradient": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
    "transposed tensor": lambda x: torch.from_numpy(x.T.copy()).T,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "columns reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "Fortran": np.asfortranarray,
    "big-endian": lambda x: x.astype(">f8"),
    "big-endian float32": lambda x: x.astype(">f4"),
    "float16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "decimals": lambda x: [[Decimal(v) for v in row] for row in x.tolist()],
    "bfloat16": lambda x: torch.from_numpy(x).bfloat16(),
    "float8": lambda x: torch.from_numpy(x).to(torch.float8_e4m3fn),
    "matrix": np.asmatrix,
    "unmasked": np.ma.masked_invalid,
    "unaligned": unaligned,
    "__array__": WithArray,
    "rows with __array__": lambda x: [WithArray(row) for row in x],
    "dlpack": lambda x: WithDlpack(torch.from_numpy(x)),
    "dlpack bfloat16": lambda x: WithDlpack(torch.from_numpy(x).bfloat16()),
    "capsule": lambda x: torch.from_numpy(x).__dlpack__(),
    "memoryview": memoryview,
    "long long": lambda x: x.astype(np.longlong),
    "int8": lambda x: x.astype(np.int8),
    "int64, big-endian": lambda x: x.astype(">i8"),
    "pandas": pandas,
    "pandas, nullable": lambda x: pandas(x, "Float32"),
    "pandas, nullable integers": lambda x: pandas(x, "Int16"),
    "pandas, mixed": lambda x: pandas(x).assign(a=lambda f: f["a"].astype("Int64")),
    "pandas, category": lambda x: pandas(x, "category"),
    "polars": polars,
    "pyarrow": arrow,
    "vectors": lambda x: pytest.importorskip("pandas").Series(list(x)),
    "vectors of polars": lambda x: pytest.importorskip("polars").Series(x.tolist()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_every_kind_are_the_same_numbers(rng, kind):
    x = rng.integers(-8, 8, (5, 3)).astype(np.float64)
    points = as_points(KINDS[kind](x))
    assert points.dtype in (torch.float32, torch.float64) and points.is_contiguous() and not points.requires_grad
    assert torch.equal(points.double(), torch.from_numpy(x))
    given = KINDS[kind](x)
    if kind != "capsule":
        np.testing.assert_array_equal(np.asarray(as_array(given), np.float64), x)
        blocks = Matrix(given).blocks(6, torch.float64)
        assert torch.equal(torch.cat(list(blocks)), torch.from_numpy(x))
        columns = Matrix(given).column_blocks(7, torch.float64)
        assert torch.equal(torch.cat(list(columns)), torch.from_numpy(x).T)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint32, np.uint64, np.int32])
def test_integers_become_float64(rng, dtype):
    x = rng.integers(0, 2, (4, 2)).astype(dtype)
    for given in (x, torch.from_numpy(x), x[::-1], x.tolist()):
        assert as_points(given).dtype == torch.float64
    assert torch.equal(as_points(x), torch.from_numpy(x.astype(np.float64)))


def test_memory_is_shared_where_it_can_be():
    x = np.zeros((4, 2), np.float32)
    assert as_points(x).data_ptr() == x.ctypes.data
    x.flags.writeable = False
    assert as_points(x).data_ptr() != x.ctypes.data
    assert torch.equal(as_points(np.broadcast_to(x[:1], (3, 2))), torch.zeros(3, 2))
    assert torch.equal(
        as_points(np.lib.stride_tricks.sliding_window_view(np.arange(4.0), 2))[2], torch.tensor([2.0, 3.0]).double()
    )
    assert as_tensor(array.array("d", [1, 2])).tolist() == [1, 2] and as_tensor(range(3)).tolist() == [0, 1, 2]


def of_pandas(values, dtype):
    return pytest.importorskip("pandas").DataFrame({"a": [1.0, 2.0, 3.0], "b": values}).astype({"b": dtype})


def of_polars(values):
    return pytest.importorskip("polars").DataFrame({"a": [1.0, 2.0, 3.0], "b": values}, strict=False)


masked = np.ma.array([[1.0, 2], [3, 4], [5, 6]], mask=[[0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: masked, "a masked value in row 1, column 1"),
        (lambda: list(masked), r"row 1 of x has a masked value in row 1"),
        (lambda: [[1.0], [np.ma.masked]], "missing value .* in row"),
        (lambda: [[1.0, 2], [3, None], [5, 6]], r"missing value \(None\) .*in row 1"),
        (lambda: np.array([[1, 2], [3, None]], object), r"missing value \(None\) in row 1, column 1"),
        (lambda: of_pandas([1, None, 2], "Int64"), "column 'b' of x has a missing value in row 1"),
        (lambda: of_pandas([1, None, 2], "object"), "column 'b' of x has a missing value in row 1"),
        (lambda: of_pandas([1, None, 2], "Float32"), "column 'b' of x has a missing value"),
        (lambda: of_polars([1, None, 2]), "column 'b' of x has a missing value in row 1"),
        (lambda: of_polars([1.5, None, 2]), "column 'b' of x has a missing value in row 1"),
        (lambda: np.zeros((2, 2), complex), "complex"),
        (lambda: torch.zeros(2, 2, dtype=torch.complex64), "complex"),
        (lambda: of_pandas(["u", "v", "w"], "category"), "column 'b' of x has a str in row 0"),
        (lambda: of_polars(["u", "v", "w"]), "column 'b' of x has|column 'b' of x holds strings"),
        (lambda: of_pandas(["2020", "2021", "2022"], "datetime64[ns]"), "column 'b' of x holds dates"),
        (lambda: np.full((2, 2), "a"), "holds strings, which cannot be read as an array of numbers"),
        (lambda: [[1, "a"], [2, "b"]], "has a str .*cannot be read as an array of numbers"),
        (lambda: np.zeros((2, 2), "M8[s]"), "holds dates"),
        (lambda: np.zeros(2, [("a", "f4"), ("b", "f4")]), "records of the fields 'a', 'b'"),
        (lambda: np.zeros((2, 2), "V2"), "raw bytes"),
        (lambda: [[1.0, 2], [3]], "rows have different lengths"),
        (lambda: [np.zeros(2), np.zeros(3)], "rows have different lengths"),
        (lambda: [np.zeros(2), 3.0], "rows have different lengths"),
        (lambda: {"a": [1.0]}, "is a dict, which cannot be read as an array of numbers"),
        (lambda: (v for v in [1.0]), "is a generator"),
        (lambda: None, "is a NoneType"),
        (lambda: "text", "points are|holds strings"),
        (lambda: torch.zeros(2, 2).to_sparse(), "sparse tensor"),
        (lambda: torch.zeros(2, 2, device="meta"), "device meta"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2, 1), torch.zeros(3, 1)]), "nested tensor"),
        (lambda: [[10**400]], "too large for float64"),
        (lambda: 3.0, r"shape \(\), but points are \[N, D\]"),
        (lambda: [], r"shape \(0,\), but points are \[N, D\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_missing_or_no_number_is_one_sentence(given, message):
    for take in (as_points, Matrix):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            take(given())
        text = str(caught.value)
        assert "\n" not in text and text.startswith(("x ", "column ", "row ")) and text.endswith(".")


def test_errors_of_other_libraries_are_told_in_our_words():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("lost. Call somebody.\nNow.")

    with pytest.raises(TypeError, match=r"^x is a Broken, which cannot be read as an array of numbers, lost: pass"):
        as_tensor(Broken())


def test_a_masked_tensor_is_refused():
    masked_tensor = pytest.importorskip("torch.masked").masked_tensor
    x = torch.ones(3, 2)
    with pytest.warns(UserWarning, match="prototype"):
        whole, partly = masked_tensor(x, x > 0), masked_tensor(x, x.cumsum(0) != 2)
    assert torch.equal(as_points(whole), x)
    with pytest.raises(ValueError, match="a masked value in row 1, column 0 and 2 in all"):
        as_points(partly)
