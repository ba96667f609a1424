"""Bins of equal size, from the least to the most dense examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.errors import check_integer


def density_bins(
    log_density: ArrayLike | Tensor, n_bins: int, labels: ArrayLike | Tensor | None = None
) -> NDArray[np.int64]:
    """Sort examples by density and cut them into ``n_bins`` bins of equal size.

    Sizes differ by at most one example; with labels, also within each class. Examples of equal density keep their
    order.

    Parameters
    ----------
    log_density : array or Tensor
        [N], log-density of each example under its own class (nats).
    n_bins : int
        From 1 to N.
    labels : array or Tensor, optional
        [N] integers from 0. If given, each class is sorted and cut on its own, so that every bin holds the same share
        of it.

    Returns
    -------
    ndarray
        int64 [N], the bin of each example, 0 for the least dense.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, there are more bins than examples, or a density is NaN.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> from fastdens.analysis import density_bins
    >>> density_bins([-5.0, -1.0, -3.0, -2.0], n_bins=2)
    array([0, 1, 0, 1])
    """
    values = as_numpy(log_density).astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"log_density has shape {values.shape}, but it must be [N].")
    if check_integer("n_bins", n_bins, 1) > len(values):
        raise ValueError(f"n_bins is {n_bins}, but there are {len(values)} examples: pass {len(values)} bins at most.")
    bad = np.isnan(values)
    if bad.any():
        raise ValueError(f"the log-density of example {int(bad.argmax())} is NaN: leave it out.")
    labels = np.zeros(len(values), np.int64) if labels is None else as_labels(labels, len(values))
    order = np.lexsort((values, labels))
    sizes = np.unique(labels, return_counts=True)[1]
    out = np.empty(len(values), np.int64)
    # The remainder of a class goes to one bin each, starting where that of the last class ended, so that the totals
    # differ by at most one.
    start = next_bin = 0
    for size in sizes:
        share, rest = divmod(int(size), n_bins)
        counts = np.full(n_bins, share)
        counts[(next_bin + np.arange(rest)) % n_bins] += 1
        out[order[start : start + size]] = np.repeat(np.arange(n_bins), counts)
        start, next_bin = start + size, (next_bin + rest) % n_bins
    return out
