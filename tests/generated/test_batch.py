"""Batches of points and labels of every kind: what is taken is what was given, and nothing else is taken."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastdens as fd
from tests.contract import outcome
from tests.generated.strategies import arrays, integers_or_not, labels, length_of


@given(arrays(), st.data())
def test_a_batch_of_labels_holds_what_was_given(points, data):
    y = data.draw(labels(length_of(points.given)))
    batch, _ = outcome(lambda: fd.RaggedBatch.from_labels(points.given, y))
    if batch is None:
        return
    assert batch.points.dtype in (torch.float32, torch.float64) and not batch.points.requires_grad
    assert batch.offsets[0] == 0 and batch.offsets[-1] == len(batch.points) and bool((batch.sizes > 0).all())
    assert batch.index.sort().values.tolist() == list(range(len(batch.points)))
    assert len(set(batch.classes)) == batch.n_models
    if points.numbers is not None:
        given_order = batch.in_caller_order(batch.points).double().numpy()
        np.testing.assert_array_equal(given_order, points.numbers)


@given(arrays(), arrays(), st.data())
def test_a_batch_of_a_list_holds_what_was_given(one, other, data):
    names = data.draw(st.one_of(st.none(), labels(2)))
    batch, _ = outcome(lambda: fd.RaggedBatch.from_list([one.given, other.given], labels=names))
    if batch is not None:
        assert batch.n_models == 2
        if one.numbers is not None and other.numbers is not None:
            expected = np.concatenate([one.numbers, other.numbers])
            np.testing.assert_array_equal(batch.points.double().numpy(), expected)


@given(arrays([(12, 2)]), integers_or_not(), labels(3), labels(12))
def test_classes_that_are_given(points, n_classes, classes, y):
    for options in ({"n_classes": n_classes}, {"classes": classes}, {"n_classes": n_classes, "classes": classes}):
        batch, _ = outcome(lambda options=options: fd.RaggedBatch.from_labels(points.given, y, **options))
        if batch is not None:
            assert batch.n_models == len(batch.classes) and int(batch.sizes.sum()) == 12


@given(labels(12))
def test_labels_and_a_list_make_the_same_batch(y):
    x = np.random.default_rng(0).normal(size=(12, 2))
    batch, _ = outcome(lambda: fd.RaggedBatch.from_labels(x, y))
    if batch is None:
        return
    rows = batch.index.split(batch.sizes.tolist())
    listed = fd.RaggedBatch.from_list([x[part.numpy()] for part in rows])
    assert torch.equal(listed.points, batch.points) and torch.equal(listed.offsets, batch.offsets)
