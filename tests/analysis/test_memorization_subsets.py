"""Most and least memorized examples, worked out by sorting each class, and random ones."""

from __future__ import annotations

import numpy as np
import pytest

from fastdens.analysis.memorization_subsets import global_subsets, memorization_subsets, threshold_subsets


def test_each_class_gives_its_extremes(rng):
    scores, labels = rng.normal(size=200), rng.choice([0, 1, 5], 200)
    found = memorization_subsets(scores, labels, 20, random_state=int(rng.integers(1000)))
    for k, c in enumerate((0, 1, 5)):
        rising = sorted(np.flatnonzero(labels == c), key=lambda i: scores[i])
        part = slice(20 * k, 20 * (k + 1))
        assert found.least[part].tolist() == rising[:20]
        assert found.most[part].tolist() == rising[:-21:-1]
        assert len(set(found.random[part])) == 20 and set(found.random[part]) <= set(rising)
    assert all(subset.shape == (60,) and subset.dtype == np.int64 for subset in found)


def test_ties_and_random_examples_are_uniform(rng):
    # One example stands out; which of the other nine come along is chance: 2 of 9 with it, or 3 of 10 at random.
    scores, labels = np.zeros(10), np.zeros(10, int)
    scores[4] = 1.0
    n_states = 2000
    start = int(rng.integers(10**6))
    counts = np.zeros((3, 10))
    for state in range(start, start + n_states):
        for count, subset in zip(counts, memorization_subsets(scores, labels, 3, random_state=state), strict=True):
            count[subset] += 1
    assert counts[0, 4] == n_states and counts[1, 4] == 0
    others = np.arange(10) != 4
    for count, share in ((counts[0, others], 2 / 9), (counts[1, others], 3 / 9), (counts[2], 3 / 10)):
        assert (np.abs(count - n_states * share) < 5 * np.sqrt(n_states * share * (1 - share))).all()


def test_random_state_and_the_class_alone_decide(rng):
    scores, labels = np.round(rng.normal(size=120)), np.repeat([0, 1, 2], 40)
    first = memorization_subsets(scores, labels, 15, random_state=3)
    again = memorization_subsets(scores[:80], labels[:80], 15, random_state=3)
    other = memorization_subsets(scores, labels, 15, random_state=4)
    for a, b, c in zip(first, again, other, strict=True):
        assert (a[:30] == b).all() and (a != c).any()


def test_scores_that_are_not_finite_and_errors():
    scores, labels = np.array([0.5, np.nan, 0.1, np.inf, 0.2, 0.3]), np.array([0, 0, 0, 1, 1, 1])
    found = memorization_subsets(scores, labels, 2)
    assert found.most.tolist() == [0, 2, 5, 4] and found.least.tolist() == [2, 0, 4, 5]
    with pytest.raises(ValueError, match="class 0 has 2 examples with a finite score, but size is 3"):
        memorization_subsets(scores, labels, 3)
    with pytest.raises(ValueError, match="size is 0"):
        memorization_subsets(scores, labels, 0)
    with pytest.raises(ValueError, match="random_state is -1"):
        memorization_subsets(scores, labels, 1, random_state=-1)
    with pytest.raises(ValueError, match=r"scores has shape \(1, 6\)"):
        memorization_subsets(scores[None], labels, 1)
    with pytest.raises(ValueError, match="labels"):
        memorization_subsets(scores, labels[:4], 1)


def test_global_subsets_are_the_ends_of_the_order_and_others(rng):
    scores = rng.normal(size=300)
    scores[rng.permutation(300)[:30]] = np.nan
    found = global_subsets(scores, 40, random_state=int(rng.integers(1000)))
    rising = [i for i in np.argsort(scores) if np.isfinite(scores[i])]
    assert found.least.tolist() == rising[:40] and found.most.tolist() == rising[:-41:-1]
    assert len(set(found.random)) == 40 and set(found.random) <= set(rising[40:-40])
    thirds = global_subsets(scores, 90)
    assert sorted(np.concatenate(thirds)) == sorted(rising)
    with pytest.raises(ValueError, match="270 examples have a finite score, but three subsets of 91 need 273"):
        global_subsets(scores, 91)


def test_equal_scores_are_ordered_by_chance(rng):
    scores = np.array([0.0] * 8 + [1.0, 2.0])
    start, n_states = int(rng.integers(10**6)), 2000
    counts = np.zeros((3, 10))
    for state in range(start, start + n_states):
        for count, subset in zip(counts, global_subsets(scores, 3, random_state=state), strict=True):
            count[subset] += 1
    assert (counts[0, 8:] == n_states).all() and not counts[1:, 8:].any()
    for count, share in zip(counts[:, :8], (1 / 8, 3 / 8, 3 / 8), strict=True):
        assert (np.abs(count - n_states * share) < 5 * np.sqrt(n_states * share * (1 - share))).all()


def test_threshold_subsets_are_of_the_classes_that_have_enough(rng):
    labels = rng.permutation(np.repeat([0, 1, 2, 4], [50, 40, 30, 4]))
    scores = np.round(rng.uniform(-0.2, 1.2, len(labels)), 2)
    scores[rng.random(len(labels)) < 0.1] = np.nan
    high, low, size = 0.7, 0.3, 9
    found = threshold_subsets(scores, labels, size, low=low, high=high, random_state=int(rng.integers(1000)))
    for subset, chosen in zip(found, (scores >= high, scores <= low, np.isfinite(scores)), strict=True):
        enough = [c for c in (0, 1, 2, 4) if (chosen & (labels == c)).sum() >= size]
        assert labels[subset].tolist() == np.repeat(enough, size).tolist() and len(set(subset)) == len(subset)
        assert chosen[subset].all()
    nothing = threshold_subsets(scores, labels, 60, low=low, high=high)
    assert [len(subset) for subset in nothing] == [0, 0, 0] and nothing.most.dtype == np.int64
    every = threshold_subsets(scores, labels, 1, low=np.inf, high=-np.inf)
    assert np.isfinite(scores[np.concatenate(every)]).all()
