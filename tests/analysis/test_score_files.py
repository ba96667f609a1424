"""Files of memorization scores: what is read back, and what is refused in one sentence."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from fastdens.analysis.score_files import read_memorization_scores


@pytest.fixture
def file(rng, tmp_path):
    """A file as the published ones are, with 20 scores, and what is in it."""
    scores, labels = rng.uniform(-0.1, 1, 20).astype(np.float32), rng.integers(0, 5, 20).astype(np.int32)
    path = tmp_path / "scores.npz"
    np.savez(path, tr_mem=scores, tr_labels=labels, tr_mem_standard_error=scores)
    return path, scores, labels


def refused(path, *arguments, error=ValueError, **options):
    with pytest.raises(error) as caught:
        read_memorization_scores(path, *arguments, **options)
    message = str(caught.value)
    # One sentence of one line.
    assert "\n" not in message and message.endswith(".") and not re.search(r"\. [A-Z]", message)
    return message


def test_scores_and_labels_are_read(file):
    path, scores, labels = file
    for found in (
        read_memorization_scores(path),
        read_memorization_scores(str(path), 20),
        read_memorization_scores(path, labels=labels),
    ):
        assert found.scores.dtype == np.float64 and found.labels.dtype == np.int64
        np.testing.assert_array_equal(found.scores, scores)
        np.testing.assert_array_equal(found.labels, labels)


def test_scores_alone_are_read(rng, tmp_path):
    scores = rng.random(7)
    np.save(tmp_path / "alone.npy", scores)
    np.savez_compressed(tmp_path / "alone.npz", tr_mem=scores)
    for name in ("alone.npy", "alone.npz"):
        found = read_memorization_scores(tmp_path / name, labels=np.arange(7))
        np.testing.assert_array_equal(found.scores, scores)
        assert found.labels is None


def test_another_number_of_examples(file):
    path, _, labels = file
    assert f"{path} holds 20 scores, but there are 1437 training examples: pass" in refused(path, 1437)
    assert "holds 20 scores, but there are 19" in refused(path, labels=labels[:-1])
    assert "labels has shape (2, 10)" in refused(path, labels=labels.reshape(2, 10))


def test_labels_that_disagree(file):
    path, _, labels = file
    other = labels.copy()
    other[[4, 9]] += 1
    message = refused(path, 20, other)
    assert f"label {labels[4]} for example 4, but that of the training set is {labels[4] + 1}" in message
    assert "2 of 20 labels differ" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite(file, bad):
    path, scores, _ = file
    scores[[3, 8]] = bad
    np.savez(path, tr_mem=scores)
    assert f"has a score of {bad} at example 3, and 2 in all" in refused(path)


def test_no_file_and_no_scores_in_it(file, tmp_path):
    _, scores, labels = file
    assert "there is no file" in refused(tmp_path / "no" / "folder.npz", error=FileNotFoundError)
    assert "'scores.npz'" in refused(tmp_path / "score.npz", error=FileNotFoundError)
    assert "is a folder" in refused(tmp_path, error=FileNotFoundError)
    np.savez(tmp_path / "a.npz", tt_mem=scores, tr_labels=labels)
    assert "no array 'tr_mem', it holds 'tt_mem'" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz")
    assert "it holds nothing" in refused(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"tr_mem": np.ones((4, 1))}, "float64 of shape (4, 1)"),
        ({"tr_mem": np.arange(4)}, "tr_mem of .* is int64"),
        ({"tr_mem": np.ones(4), "tr_labels": np.ones(4) / 2}, "tr_labels of .* has the label 0.5 in row 0"),
        ({"tr_mem": np.ones(4), "tr_labels": np.ones(4, complex)}, "tr_labels of .* is complex128"),
        ({"tr_mem": np.ones(4), "tr_labels": np.arange(3)}, "holds 4 scores and 3 labels"),
        ({"tr_mem": np.array([{}], object)}, "holds Python objects, in pickle's format: pass allow_pickle"),
    ],
)
def test_arrays_of_the_wrong_kind(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    assert re.search(words if ".*" in words else re.escape(words), refused(tmp_path / "x.npz"))


# Python's own, of a header with a backslash in it.
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_damaged_files_are_told(rng, file, tmp_path):
    path, scores, _ = file
    np.save(tmp_path / "y.npy", scores)
    for whole in (path.read_bytes(), (tmp_path / "y.npy").read_bytes()):
        for _ in range(60):
            path.write_bytes(whole[: rng.integers(len(whole))])
            assert "damaged or of another format" in refused(path)
    # A byte changed may leave a file that can be read; it never gives another error.
    (tmp_path / "y.npy").unlink()
    messages = []
    whole = bytearray(whole)
    for _ in range(200):
        changed = whole.copy()
        changed[rng.integers(128)] = rng.integers(256)
        path.write_bytes(changed)
        try:
            read_memorization_scores(path)
        except ValueError as error:
            messages.append(str(error))
    assert messages and all(str(path) in message for message in messages)
    path.write_text("tr_mem\n0.5\n")
    assert "cannot be read as .npz or .npy" in refused(path)


def test_pickled_scores_are_read_if_they_may_be(file, tmp_path):
    _, scores, labels = file
    content = {"tr_mem": scores.tolist(), "tr_labels": labels.astype(object), "other": None}
    objects = np.empty((), object)
    objects[()] = content
    np.savez(tmp_path / "objects.npz", tr_mem=scores.astype(object), tr_labels=labels)
    np.save(tmp_path / "dict.npy", objects)
    for name, protocol in (("x.pkl", 2), ("x.npz", 4), ("y.pickle", 0)):
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
    for name in ("objects.npz", "dict.npy", "x.pkl", "x.npz", "y.pickle"):
        assert "pass allow_pickle (--allow-pickle" in refused(tmp_path / name)
        found = read_memorization_scores(tmp_path / name, labels=labels, allow_pickle=True)
        np.testing.assert_array_equal(found.scores, scores)
        np.testing.assert_array_equal(found.labels, labels)


def test_a_pickle_of_scores_that_asks_for_more_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", tr_mem=np.array([Runs(), 1.0], object))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"tr_mem": np.ones(3), "x": Runs()}))
    for name in ("a.npz", "b.pkl"):
        for options in ({}, {"allow_pickle": True}):
            refused(tmp_path / name, **options)
    assert not (tmp_path / "ran").exists()
    np.savez(tmp_path / "c.npz", tr_mem=np.array([[1.0], None], object))
    assert "tr_mem of" in refused(tmp_path / "c.npz", allow_pickle=True)


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.float64])
def test_scores_and_labels_of_other_dtypes(rng, tmp_path, dtype):
    scores, labels = rng.uniform(-1, 1, 9).astype(dtype), rng.integers(0, 5, 9)
    for kind in (np.uint8, ">i2", np.int64, np.float32, str):
        np.savez(tmp_path / "x.npz", tr_mem=scores, tr_labels=labels.astype(kind))
        found = read_memorization_scores(tmp_path / "x.npz", labels=labels.astype(str) if kind is str else labels)
        np.testing.assert_array_equal(found.scores, scores.astype(np.float64))


def test_scores_of_some_of_the_examples(file):
    path, scores, labels = file
    chosen = np.array([7, 0, 19])
    found = read_memorization_scores(path, 20, labels[chosen], examples=chosen)
    np.testing.assert_array_equal(found.scores, scores[chosen])
    np.testing.assert_array_equal(found.labels, labels[chosen])
    assert "holds 20 scores, but the examples run to 20" in refused(path, examples=np.array([20]))
