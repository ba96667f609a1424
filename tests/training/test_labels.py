"""Label noise: as many flips as asked for, all of them wrong labels."""

from __future__ import annotations

import torch

from fastdens.training import flip_labels


def test_flipped_labels_are_as_many_as_asked_for_and_all_wrong(rng, seed):
    labels = torch.from_numpy(rng.integers(0, 5, 1000))
    noisy = flip_labels(labels, 0.3, 5, torch.Generator().manual_seed(seed))
    assert int(noisy.flipped.sum()) == 300 and torch.equal(noisy.flipped, noisy.labels != labels)
    steps = torch.bincount((noisy.labels - labels)[noisy.flipped] % 5, minlength=5)
    # Each of four is binomial of 300 and 1/4, standard deviation 7.5.
    assert steps[0] == 0 and int((steps[1:] - 75).abs().max()) < 45
