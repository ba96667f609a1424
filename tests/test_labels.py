"""Labels of every kind are numbered as numpy.unique sorts them; a missing one is an error that says where."""

from __future__ import annotations

import datetime
import enum

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.labels import encode, encode_as, read_labels

NAMES = np.array(["ant", "bee", "cat", "dog"])


def pandas(values, dtype=None):
    return pytest.importorskip("pandas").Series(values, dtype=dtype)


def polars(values, dtype=None):
    pl = pytest.importorskip("polars")
    return pl.Series(values, dtype=None if dtype is None else getattr(pl, dtype))


# From the class of each row, 0 to 3, its label.
KINDS = {
    "from 0": lambda c: c,
    "from 1": lambda c: c + 1,
    "gaps": lambda c: 3 * c + 5,
    "negative": lambda c: c - 2,
    "huge": lambda c: c * 10**12,
    "int8": lambda c: (c * 60 - 100).astype(np.int8),
    "uint8": lambda c: (c * 80).astype(np.uint8),
    "past int64": lambda c: c.astype(np.uint64) + np.uint64(2**63),
    "Python integers": lambda c: [10**30 + int(v) for v in c],
    "past 64 bits by one": lambda c: [2**64 + int(v) - 2 for v in c],
    "big-endian": lambda c: (c * 7).astype(">i4"),
    "reversed": lambda c: (2 * c)[::-1].copy()[::-1],
    "booleans": lambda c: c > 1,
    "list of booleans": lambda c: (c > 1).tolist(),
    "whole floats": lambda c: c * 2.0,
    "float16": lambda c: (c + 1).astype(np.float16),
    "huge floats": lambda c: c * 1e30,
    "tensor": lambda c: torch.from_numpy(c) * 5 - 3,
    "bfloat16 tensor": lambda c: torch.from_numpy(c).bfloat16(),
    "bool tensor": lambda c: torch.from_numpy(c > 0),
    "uint16 tensor": lambda c: torch.from_numpy(c.astype(np.uint16)),
    "column": lambda c: c[:, None] + 3,
    "strings": lambda c: NAMES[c],
    "list of strings": lambda c: NAMES[c].tolist(),
    "objects": lambda c: NAMES[c].astype(object),
    "bytes": lambda c: NAMES[c].astype("S"),
    "digits": lambda c: np.array(["10", "9", "1", ""])[c],
    "dates": lambda c: np.datetime64("2020-01-01") + c,
    "dates of Python": lambda c: [datetime.date(2020, 1, 1 + int(v)) for v in c],
    "intervals": lambda c: pytest.importorskip("pandas").cut(c, [-1, 0, 1, 2, 3]),
    "pandas": lambda c: pandas(c * 2),
    "pandas, nullable": lambda c: pandas(c * 2, "Int32"),
    "pandas, nullable floats": lambda c: pandas(c * 2, "Float64"),
    "pandas, boolean": lambda c: pandas(c > 1, "boolean"),
    "pandas, string": lambda c: pandas(NAMES[c], "string"),
    "pandas, category": lambda c: pandas(NAMES[c], "category"),
    "pandas, category of integers": lambda c: pandas(c * 4, "category"),
    "pandas, index": lambda c: pytest.importorskip("pandas").Index(NAMES[c]),
    "pandas, frame": lambda c: pandas(NAMES[c]).to_frame(),
    "polars": lambda c: polars(c * 2),
    "polars, strings": lambda c: polars(NAMES[c].tolist()),
    "polars, category": lambda c: polars(NAMES[c].tolist(), "Categorical"),
    "pyarrow, dictionary": lambda c: pytest.importorskip("pyarrow").array(NAMES[c]).dictionary_encode(),
    "pyarrow, chunks": lambda c: pytest.importorskip("pyarrow").chunked_array([c[:3], c[3:]]),
}


def plain(labels):
    """The same labels as a list of Python values."""
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(labels, method):
            return getattr(labels, method)()
    if hasattr(labels, "iloc"):
        return labels.iloc[:, 0].tolist()
    return list(labels)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_are_numbered_in_their_order(rng, kind):
    c = rng.permutation(np.arange(30) % 4)
    x = rng.normal(size=(30, 2))
    labels = KINDS[kind](c)
    batch = fd.RaggedBatch.from_labels(x, labels)
    values = [v[0] if isinstance(v, list) else v for v in plain(KINDS[kind](c))]
    expected = sorted(set(values))
    assert list(batch.classes) == expected == sorted(expected)
    assert batch.classes == batch.labels and batch.n_models == len(expected)
    own = batch.in_caller_order(batch.model_of_row)
    assert own.tolist() == [expected.index(v) for v in values]
    np.testing.assert_array_equal(batch.in_caller_order(batch.points), x)
    name = batch.describe(1)
    assert name == f"model 1 (class {batch.classes[1]!r})"
    # Other points of the same classes, some of which do not occur.
    few = np.flatnonzero(own != 1)
    other = fd.RaggedBatch.from_labels(x[few], [values[i] for i in few], classes=batch.classes)
    assert other.sizes[1] == 0 and other.classes == batch.classes


def test_classes_that_are_given_count_from_0_or_are_those():
    x = np.zeros((3, 2))
    assert fd.RaggedBatch.from_labels(x, [0.0, 2.0, 2.0], n_classes=4).sizes.tolist() == [1, 0, 2, 0]
    assert fd.RaggedBatch.from_labels(x, [True, False, True], n_classes=2).sizes.tolist() == [1, 2]
    batch = fd.RaggedBatch.from_labels(x, ["b", "a", "b"], classes=["b", "c", "a"])
    assert batch.sizes.tolist() == [2, 0, 1] and batch.classes == ("b", "c", "a")
    assert fd.RaggedBatch.from_list([x, x], labels=["u", "v"]).describe(1) == "model 1 (class 'v')"
    assert fd.RaggedBatch.from_list([x, x], labels=np.array([4, 2])).classes == (4, 2)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (lambda: [0, np.nan, 1], {}, r"y has a missing label \(NaN\) in row 1"),
        (lambda: torch.tensor([0, 1, np.nan]), {}, r"missing label \(NaN\) in row 2"),
        (lambda: [0, None, 1], {}, r"missing label \(None\) in row 1"),
        (lambda: ["a", None, "b"], {}, r"missing label \(None\) in row 1"),
        (lambda: np.array(["a", np.nan, "b"], object), {}, r"missing label \(nan\) in row 1"),
        (lambda: np.array(["2020", "NaT", "2021"], "M8[D]"), {}, r"missing label \(NaT\) in row 1"),
        (lambda: pandas([1, None, 2], "Int64"), {}, "a missing value in row 1"),
        (lambda: pandas(["a", None, "a"], "category"), {}, "a missing value in row 1"),
        (lambda: pandas(["a", "b", None]), {}, "a missing value in row 2"),
        (lambda: pandas([1.0, 2.0, None]), {}, r"missing label \(NaN\) in row 2"),
        (lambda: polars([1, None, 2]), {}, "a missing value in row 1"),
        (lambda: polars(["a", None, "c"], "Categorical"), {}, "a missing value in row 1"),
        (lambda: [pytest.importorskip("pandas").NA, "a", "b"], {}, r"missing label \(<NA>\) in row 0"),
        (lambda: np.ma.array([0, 1, 2], mask=[0, 0, 1]), {}, "a masked value in row 2"),
        (lambda: [0, np.ma.masked, 2], {}, "missing label .* in row 1"),
        (lambda: [0, 0.5, 1], {}, "label 0.5 in row 1, but labels are integers or names"),
        (lambda: [0, np.inf, 1], {}, "label inf in row 1"),
        (lambda: [0, "a", 1], {}, "mixes labels of number with str, first in row 1"),
        (lambda: [0, 1j, 1], {}, "complex"),
        (lambda: [Colour.RED, Colour.BLUE, Colour.RED], {}, "objects of type Colour, which cannot be sorted"),
        (lambda: [{}, {}, {}], {}, "objects of type dict"),
        (lambda: np.zeros(3, "V3"), {}, "raw bytes"),
        (lambda: np.eye(3), {}, r"shape \(3, 3\), but x has 3 rows"),
        (lambda: "abc", {}, r"shape \(\), but x has 3 rows"),
        (lambda: None, {}, "y is a NoneType"),
        (lambda: [0, 1, 3], {"n_classes": 3}, "label 3, but n_classes is 3: it must be at least 4"),
        (lambda: [0, 1, -1], {"n_classes": 3}, "label -1, but classes count from 0"),
        (lambda: [0, 1, 2], {"n_classes": 2.5}, "n_classes is 2.5"),
        (lambda: ["a", "b", "c"], {"n_classes": 3}, "n_classes counts integers"),
        (lambda: ["a", "b", "c"], {"classes": ["a", "b"]}, "label 'c' in row 2, which is none of the classes 'a', 'b'"),
        (lambda: [1, 2, 3], {"classes": ["1", "2", "3"]}, "label 1 in row 0, which is none of the classes '1', '2'"),
        (lambda: [1, 2, 2], {"classes": [1, 2, 1]}, "give each once"),
        (lambda: [0, 1, 2], {"classes": [0, 1, 2], "n_classes": 3}, "pass one of the two"),
    ],
)
def test_labels_that_are_none_are_one_sentence(labels, options, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        fd.RaggedBatch.from_labels(np.zeros((3, 2)), labels(), **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_labels_that_are_dense_or_far_apart_are_numbered_alike(rng):
    for spread in (1, 5, 10**6, 10**17):
        labels = torch.from_numpy(rng.integers(-5, 5, 200) * spread)
        codes, classes = encode(labels)
        expected, inverse = np.unique(labels.numpy(), return_inverse=True)
        assert list(classes) == expected.tolist() and codes.tolist() == inverse.tolist()
        shuffled = rng.permutation(expected).tolist()
        assert [shuffled[c] for c in encode_as(labels, shuffled).tolist()] == labels.tolist()
    assert encode(torch.tensor([2**63 - 1, -(2**63)]))[1] == (-(2**63), 2**63 - 1)
    assert encode(read_labels([], 0))[1] == ()
