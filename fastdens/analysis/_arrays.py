"""Arguments of the analysis: arrays or tensors in, numpy out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def as_numpy(x: ArrayLike | Tensor) -> NDArray[Any]:
    """An array or a tensor, on whatever device, as an array."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def as_labels(labels: ArrayLike | Tensor, n_examples: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """Integer labels, one an example.

    Raises
    ------
    ValueError
        If they are not N integers from 0, or exceed ``n_classes``.
    """
    array = as_numpy(labels)
    if array.shape != (n_examples,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels are {array.dtype} of shape {array.shape}, but there are {n_examples} examples: pass one "
            "integer for each."
        )
    if n_examples and (array.min() < 0 or (n_classes is not None and array.max() >= n_classes)):
        bound = "" if n_classes is None else f" and are under the number of classes, {n_classes}"
        raise ValueError(f"labels run from {array.min()} to {array.max()}, but classes count from 0{bound}: renumber.")
    return array.astype(np.int64)
