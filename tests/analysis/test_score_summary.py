"""A summary of scores, counted one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fastdens.analysis import summarize_scores


def test_numbers_are_counted(rng):
    labels = rng.integers(0, 5, 400)
    scores = np.round(rng.uniform(-0.3, 1.3, 400), 1).clip(-0.2, 1)
    scores[labels == 3] = np.nan
    scores[rng.permutation(400)[:20]] = np.nan
    found = summarize_scores(scores, labels, n_top=30, high=0.7, low=0.0, n_examples=12)
    pairs = [(float(s), int(c)) for s, c in zip(scores, labels, strict=True) if s == s]
    known = sorted(s for s, _ in pairs)
    assert found.n == len(known) and found.mean == pytest.approx(sum(known) / len(known))
    assert found.memorized == pytest.approx(sum(s > 0.25 for s in known) / len(known))
    counted = (sum(s == 1 for s in known), sum(s == 0 for s in known), sum(s < 0 for s in known))
    assert (found.n_one, found.n_zero, found.n_negative) == counted and min(counted) > 0
    assert (found.highest_from, found.lowest_to) == (known[-30], known[29])
    high, low = Counter(c for s, c in pairs if s >= 0.7), Counter(c for s, c in pairs if s <= 0.0)
    assert found.n_classes_high == sum(n >= 12 for n in high.values())
    assert found.n_classes_low == sum(n >= 12 for n in low.values())
    for c in range(5):
        own = [s for s, of in pairs if of == c]
        assert found.class_mean[c] == pytest.approx(np.mean(own) if own else np.nan, nan_ok=True)


def test_what_few_scores_do_not_tell_is_not_a_number():
    found = summarize_scores([0.5, 1.0, np.nan], n_top=2)
    assert (found.highest_from, found.lowest_to, found.n) == (0.5, 1.0, 2)
    assert found.n_classes_high is None and found.class_mean is None
    assert np.isnan(summarize_scores([0.5, 1.0, np.nan], n_top=3).highest_from)
    nothing = summarize_scores([np.nan], [0])
    assert nothing.n == 0 and np.isnan(nothing.mean) and np.isnan(nothing.memorized) and nothing.n_classes_low == 0
    with pytest.raises(ValueError, match="n_top is 0"):
        summarize_scores([0.5], n_top=0)
    with pytest.raises(ValueError, match=r"scores has shape \(1, 2\)"):
        summarize_scores([[0.5, 1.0]])
    with pytest.raises(ValueError, match="labels"):
        summarize_scores([0.5, 1.0], [1])
