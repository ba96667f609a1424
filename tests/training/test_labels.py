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


def test_labels_drawn_anew_may_stay(rng):
    labels = torch.from_numpy(rng.integers(0, 4, 40_000))
    given = flip_labels(labels, 0.4, 4, torch.Generator().manual_seed(int(rng.integers(2**31))), redraw=True)
    assert torch.equal(given.flipped, given.labels != labels) and given.labels.dtype == torch.int64
    # A drawn label differs with probability 3/4; five standard errors of a share of 40,000 are at most 0.0125.
    assert abs(float(given.flipped.float().mean()) - 0.3) < 0.0125
    for one in range(4):
        own = given.labels[labels == one]
        shares = torch.bincount(own, minlength=4) / len(own)
        expected = torch.full((4,), 0.1) + 0.6 * torch.nn.functional.one_hot(torch.tensor(one), 4)
        assert (shares - expected).abs().max() < 0.025
    for share, classes in ((0.0, 4), (0.9, 1)):
        kept = flip_labels(torch.zeros(9, dtype=torch.int64), share, classes, torch.Generator(), redraw=True)
        assert not kept.flipped.any()
