"""Anagrams: orders of letters, long tails, and that only the place of the letters tells the classes apart."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from fastdens.training.datasets.anagrams import LETTERS, anagrams


def test_shapes_and_labels(seed):
    data = anagrams(7, 5, 3, image_size=20, seed=seed)
    assert data.train.shape == (35, 3, 20, 20) and data.test.shape == (21, 3, 20, 20)
    assert data.train.dtype == data.test.dtype == torch.uint8 and data.train_labels.dtype == torch.int64
    assert torch.bincount(data.train_labels).tolist() == [5] * 7
    assert torch.bincount(data.test_labels).tolist() == [3] * 7
    assert len(set(data.class_names)) == 7 and all(sorted(name) == sorted(LETTERS) for name in data.class_names)
    assert not data.long_tailed.any() and not data.train_subpopulation.any()


def test_same_seed_same_images_whatever_is_long_tailed(seed):
    plain = anagrams(4, 12, 6, image_size=8, seed=seed)
    other = anagrams(5, 12, 6, long_tailed=[2], image_size=8, seed=seed)
    same = (plain.train_labels != 2).nonzero()[:, 0]
    assert torch.equal(plain.train[same], other.train[same])
    assert not torch.equal(plain.train[24:36], other.train[24:36])
    assert other.class_names[:4] == plain.class_names
    assert not torch.equal(plain.train, anagrams(4, 12, 6, image_size=8, seed=seed + 1).train)


def test_as_many_classes_as_orders_and_no_two_alike(seed):
    names = anagrams(720, 1, 1, image_size=8, seed=seed).class_names
    assert set(names) == {"".join(order) for order in permutations(LETTERS)}


def test_long_tails_have_the_frequencies_of_zipf(seed):
    data = anagrams(3, 3000, 1000, long_tailed=[1], image_size=8, seed=seed)
    harmonic = sum(1 / k for k in range(1, 721))
    for subpopulation, labels in (
        (data.train_subpopulation, data.train_labels),
        (data.test_subpopulation, data.test_labels),
    ):
        own = subpopulation[labels == 1]
        for k in (1, 2, 5):
            p = 1 / (k * harmonic)
            assert abs(float((own == k - 1).double().mean()) - p) < 5 * math.sqrt(p * (1 - p) / len(own))
        assert not subpopulation[labels != 1].any()
    once = np.bincount(data.train_subpopulation[data.train_labels == 1][:80].numpy()) == 1
    assert 0.3 < once.sum() / 80 < 0.75


def test_classes_differ_in_the_place_of_their_letters_only(seed):
    data = anagrams(6, 60, 60, image_size=24, seed=seed)
    # Without colour and polarity: how far the ink lies from the paper.
    grey = [part.double().mean(1) for part in (data.train, data.test)]
    ink = [(part - part.flatten(1).median(1).values[:, None, None]).abs() for part in grey]
    means = [
        torch.stack([x[y == c].mean(0) for c in range(6)])
        for x, y in zip(ink, (data.train_labels, data.test_labels), strict=True)
    ]
    distance = cdist(means[0].flatten(1).numpy(), means[1].flatten(1).numpy())
    assert (distance.argmin(1) == np.arange(6)).all()
    amount = ink[0].mean((1, 2)).reshape(6, 60)
    error = (amount.var(1) / 60).sqrt()
    for a, b in combinations(range(6), 2):
        assert abs(float(amount[a].mean() - amount[b].mean())) < 5 * math.hypot(error[a], error[b])


def test_classes_by_share_name_and_index(seed):
    names = anagrams(5, 1, 1, image_size=8, seed=seed).class_names
    assert int(anagrams(5, 1, 1, long_tailed=0.4, image_size=8, seed=seed).long_tailed.sum()) == 2
    chosen = anagrams(5, 1, 1, long_tailed=[names[3], 0], image_size=8, seed=seed).long_tailed
    assert chosen.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 721}, "letters have 720 orders"),
        ({"long_tailed": ["AXOTLL?"]}, "names the class 'AXOTLL\\?', but there is none"),
        ({"long_tailed": 1.5}, "a share of the classes is between 0 and 1"),
        ({"image_size": 7}, "image_size"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        anagrams(**{"n_classes": 3, "n_train": 1, "n_test": 1, "image_size": 8, **options})
