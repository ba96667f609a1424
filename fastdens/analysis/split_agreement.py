"""Agreement of layers, or of networks, on the groups of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    group sizes. Two layers with one group each agree (1); a layer with one group and a layer with two do not (0).

    Parameters
    ----------
    groups : array, Tensor, or sequence or mapping of them
        [L, M], the group of each class in each layer or network, in the order of the result.

    Returns
    -------
    ndarray
        float64 [L, L], symmetric, 1 on the diagonal.

    Raises
    ------
    ValueError
        If groups are not integers, or two splits have different numbers of classes.
    ImportError
        If scikit-learn is missing.

    References
    ----------
    Hubert & Arabie, Comparing partitions, Journal of Classification 2, 1985.
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
    return np.array([[adjusted_rand_score(a, b) for b in rows] for a in rows], np.float64).reshape(len(rows), len(rows))
