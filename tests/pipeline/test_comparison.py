"""Two analyses side by side: classes by name, layers by name or position, examples only where they are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from fastdens.analysis import ClassLogDensity
from fastdens.pipeline import compare
from tests.report.analysis_problem import CLASSES, analysis_problem


def same_examples(rng, **parts):
    """Two analyses of the same examples with other densities and scores."""
    a = analysis_problem(rng, **parts)
    b = analysis_problem(rng, **parts)
    return a, replace(b, examples=a.examples)


def test_classes_are_matched_by_name(rng):
    a = analysis_problem(rng, class_names=("cat", "dog", "emu", "fox", "gnu", "hen"))
    b = analysis_problem(rng, class_names=("hen", "ant", "gnu", "fox", "dog"))
    found = compare(a, b)
    assert found.class_names == ("dog", "fox", "gnu", "hen")
    assert found.only_a == ("cat", "emu") and found.only_b == ("ant",)
    layer = found.layers[1]
    in_a, in_b = [1, 3, 4, 5], [4, 3, 2, 0]
    np.testing.assert_array_equal(layer.a.mean, a.layers[1].classes.mean[in_a])
    np.testing.assert_array_equal(layer.b.mean, b.layers[1].classes.mean[in_b])
    np.testing.assert_array_equal(layer.b.relative_entropy.value, b.layers[1].relative_entropy.value[in_b])
    np.testing.assert_array_equal(layer.b.group, b.layers[1].modes.group[in_b])
    expected = spearmanr(layer.a.mean, layer.b.mean)[0]
    assert layer.classes.spearman.value == pytest.approx(expected)
    moved = [name for name, i, j in zip(found.class_names, in_a, in_b, strict=True) if i % 2 != j % 2]
    assert list(layer.changed) == moved and found.layers[0].changed == ()
    assert not found.layers[0].splits.comparable and layer.splits.comparable


def test_no_common_class_is_one_sentence(rng):
    a, b = analysis_problem(rng, class_names=("cat", "dog", "emu", "fox")), analysis_problem(rng)
    with pytest.raises(ValueError, match=r"^no class has the same name in both: A has 'cat', 'dog', 'emu', \.\.\., B"):
        compare(a, b)


@pytest.mark.parametrize(
    ("a", "b", "pairs", "by_position", "unpaired"),
    [
        (("x", "y", "z"), ("z", "y", "w"), [("y", "y"), ("z", "z")], False, (("x",), ("w",))),
        (("x", "y"), ("p", "q", "r"), [("x", "p"), ("y", "q")], True, ((), ("r",))),
    ],
)
def test_layers_are_paired_by_name_or_else_by_position(rng, a, b, pairs, by_position, unpaired):
    found = compare(analysis_problem(rng, layer_names=a), analysis_problem(rng, layer_names=b))
    assert [(layer.a.name, layer.b.name) for layer in found.layers] == pairs
    assert found.by_position is by_position and (found.unpaired_a, found.unpaired_b) == unpaired


def test_the_same_examples_are_compared_one_by_one(rng):
    a, b = same_examples(rng)
    found = compare(a, b)
    assert found.different_examples is None and found.same_tests
    for at, layer in enumerate(found.layers):
        expected = spearmanr(a.layers[at].log_density, b.layers[at].log_density)[0]
        assert layer.examples.spearman.value == pytest.approx(expected)
    one, other = a.memorization.scores.values, b.memorization.scores.values
    known = np.isfinite(one) & np.isfinite(other)
    assert found.memorization.n == known.sum() < len(known)
    assert found.memorization.spearman.value == pytest.approx(spearmanr(one[known], other[known])[0])
    assert compare(a, replace(b, memorization=None)).memorization is None


def test_examples_with_other_labels_are_not_compared(rng):
    a, b = same_examples(rng)
    labels = b.examples.labels.copy()
    labels[:3] = (labels[:3] + 1) % len(CLASSES)
    found = compare(a, replace(b, examples=replace(b.examples, labels=labels)))
    assert found.different_examples == "3 of 200 have another label"
    assert found.memorization is None and all(layer.examples is None for layer in found.layers)
    shorter = replace(b.examples, labels=labels[:-1], test_labels=b.examples.test_labels[:-1], test_predicted=None)
    found = compare(a, replace(b, examples=shorter))
    assert found.different_examples == "A has 200 and B has 199" and not found.same_tests
    assert found.test_accuracy[1] is None and found.test_accuracy_difference is None


def test_labels_are_the_same_by_name_whatever_their_numbers(rng):
    a, b = same_examples(rng)
    order = np.array([3, 1, 4, 0, 2])
    renamed = replace(
        b.examples,
        class_names=tuple(CLASSES[c] for c in np.argsort(order)),
        labels=order[b.examples.labels],
        test_labels=order[b.examples.test_labels],
    )
    assert compare(a, replace(b, examples=renamed)).different_examples is None


def test_an_analysis_agrees_with_itself(rng):
    a = analysis_problem(rng)
    found = compare(a, a)
    assert found.options == () and found.test_accuracy_difference == (0, 0, 0)
    for layer in found.layers:
        assert layer.classes.spearman.value == layer.examples.kendall.value == pytest.approx(1)
    assert found.layers[1].splits.rand_index == 1 and found.layers[1].changed == ()


def test_differing_options_are_listed(rng):
    a = analysis_problem(rng)
    provenance = replace(a.provenance, width=32, settings={"dataset": "digits", "flip": 0.1})
    b = replace(a, options=replace(a.options, seed=7), provenance=provenance)
    assert set(compare(a, b).options) == {("width", 16, 32), ("flip", None, 0.1), ("seed", 0, 7)}


def test_equal_densities_have_no_order(rng):
    a = analysis_problem(rng)
    flat = ClassLogDensity(np.zeros(5), np.ones(5), np.full(5, 40))
    b = replace(a, layers=tuple(replace(layer, classes=flat) for layer in a.layers))
    assert np.isnan(compare(a, b).layers[0].classes.spearman.value)
