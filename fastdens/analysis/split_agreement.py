"""Agreement of layers, or of networks, on the groups of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.optional import require


def split_agreement(
    groups: Mapping[str, ArrayLike | Tensor] | Sequence[ArrayLike | Tensor] | NDArray[np.integer] | Tensor,
) -> NDArray[np.float64]:
    """Adjusted Rand index of every pair of splits.

    The index is 1 for identical splits, whatever the groups are called, and 0 on average for random splits of the same
    group sizes. It is 0 between one group and two. Between one group and one group there are no groups to compare, and
    it is NaN.

    Parameters
    ----------
    groups : array, Tensor, or sequence or mapping of them
        [L, M], the group of each class in each layer or network, in the order of the result.

    Returns
    -------
    ndarray
        float64 [L, L], symmetric. On the diagonal, 1 for splits of several groups and NaN for a single group.

    Raises
    ------
    ValueError
        If groups are not integers, or two splits have different numbers of classes.
    ImportError
        If scikit-learn is missing.

    References
    ----------
    Hubert & Arabie, Comparing partitions, Journal of Classification 2, 1985.

    Examples
    --------
    >>> from fastdens.analysis import split_agreement
    >>> split_agreement({"layer3": [0, 0, 1, 1], "layer4": [1, 1, 0, 0]})
    array([[1., 1.],
           [1., 1.]])
    """
    adjusted_rand_score = require("sklearn.metrics", "split_agreement", "analysis").adjusted_rand_score
    named = groups if isinstance(groups, Mapping) else dict(enumerate(groups))
    splits = {name: as_numpy(split) for name, split in named.items()}
    n_classes = len(next(iter(splits.values()))) if splits else 0
    for name, split in splits.items():
        if split.shape != (n_classes,) or n_classes == 0 or not np.issubdtype(split.dtype, np.integer):
            raise ValueError(
                f"groups of {name!r} are {split.dtype} of shape {split.shape}, but each split needs one integer for "
                f"each of the same classes, here {n_classes}."
            )
    rows = list(splits.values())
    agreement = np.full((len(rows), len(rows)), np.nan)
    for (i, a), (j, b) in product(enumerate(rows), repeat=2):
        if np.ptp(a) > 0 or np.ptp(b) > 0:
            agreement[i, j] = adjusted_rand_score(a, b)
    return agreement
