"""Lists of integers in JSON: what is read, and what is refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdens.io.index_lists import read_index_list, read_label_list


@pytest.fixture
def file(tmp_path):
    return tmp_path / "list.json"


def test_integers_are_read_in_their_order(rng, file):
    indices = rng.permutation(50)[:20]
    file.write_text(json.dumps(indices.tolist()))
    for found in (read_index_list(file), read_index_list(file, 50), read_label_list(file, 20, 50)):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, indices)
    file.write_text("[0]")
    assert read_index_list(file, 1).tolist() == read_label_list(file, 1, 1).tolist() == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2.0]", "has no index at position 1: write integers from 0"),
        ("[true]", "has no index at position 0"),
        ("[-1]", "has no index at position 0"),
        ("[0, null]", "has no index at position 1"),
        ('["1"]', "has no index at position 0"),
        ("[[1]]", "has no index at position 0"),
        ("[9223372036854775808]", "has no index at position 0"),
        ("[NaN]", "has no index at position 0"),
        ('{"train": [1]}', "holds a dict: write a list of integers, one index each"),
        ("[]", "holds an empty list"),
        ("3", "holds a int"),
        ("[1, 2", "is no JSON, or it is damaged"),
        ("\u00ff", "is no JSON, or it is damaged"),
        ("[" * 100_000, "is no JSON, or it is damaged"),
        ("[3, 8, 3, 8]", "has the index 3 at position 0 and again later: list each example once"),
        ("[0, 10]", "has the index 10 at position 1, but there are 10 examples, counted from 0"),
    ],
)
def test_what_is_no_list_of_examples_is_one_sentence(file, content, message):
    file.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_index_list(file, 10)
    assert str(caught.value).startswith(f"{file} {message}") and "\n" not in str(caught.value)


def test_labels_are_as_many_as_examples_and_of_the_classes(file):
    file.write_text("[0, 2, 2]")
    assert read_label_list(file, 3, 3).tolist() == [0, 2, 2]
    with pytest.raises(ValueError, match="has 3 labels, but there are 4 examples"):
        read_label_list(file, 4, 3)
    with pytest.raises(ValueError, match="has the label 2 at position 1, but there are 2 classes, counted from 0"):
        read_label_list(file, 3, 2)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_label_list(file.with_name("x"))
