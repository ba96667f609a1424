"""Label noise: labels flipped at random, of examples that a network can fit only by memorizing them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class FlippedLabels(NamedTuple):
    """Labels, some of them flipped.

    Attributes
    ----------
    labels : Tensor
        int64 [N].
    flipped : Tensor
        bool [N], True where the label was flipped.
    """

    labels: Tensor
    flipped: Tensor


def flip_labels(
    labels: Tensor, share: float, n_classes: int, generator: torch.Generator, *, redraw: bool = False
) -> FlippedLabels:
    """Replace the labels of a random share of the examples, each other label being equally likely.

    Parameters
    ----------
    labels : Tensor
        int64 [N], from 0 to ``n_classes - 1``.
    share : float
        Of the examples, between 0 and 1; ``round(share * N)`` labels are flipped.
    n_classes : int
        At least 2.
    generator : torch.Generator
        On the CPU.
    redraw : bool
        Draw each label anew with probability ``share``, all classes being equally likely, so that it may stay as it
        was. Flipped are then those that differ.

    Returns
    -------
    FlippedLabels
        The labels, and which of them are flipped.

    Examples
    --------
    >>> import torch
    >>> from fastdens.training import flip_labels
    >>> labels = torch.arange(100) % 10
    >>> flip_labels(labels, 0.2, 10, torch.Generator().manual_seed(0)).flipped.sum()
    tensor(20)
    """
    if redraw:
        drawn = torch.rand(len(labels), dtype=torch.float64, device="cpu", generator=generator) < share
        noisy = torch.where(drawn, torch.randint(n_classes, (len(labels),), device="cpu", generator=generator), labels)
        return FlippedLabels(noisy, noisy != labels)
    n_flipped = round(share * len(labels))
    chosen = torch.randperm(len(labels), generator=generator, device="cpu")[:n_flipped]
    flipped = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    flipped[chosen] = True
    step = torch.randint(1, n_classes, (n_flipped,), generator=generator, device="cpu")
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + step) % n_classes
    return FlippedLabels(noisy, flipped)
