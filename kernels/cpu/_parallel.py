"""How a kernel that releases the GIL is run: tensors as arrays, and a pool of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SLICES_PER_THREAD = 4


@lru_cache(maxsize=4)
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="fastdens")


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The numbers of a tensor as a kernel reads them: contiguous, with no gradient; no copy where it is so already."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    array: NDArray[Any] = tensor.contiguous().numpy()
    return array


def parallel_for(kernel: Callable[..., Any], n_items: int, *arguments: Any) -> None:
    """Run ``kernel(begin, end, *arguments)`` over slices of ``range(n_items)`` on ``torch.get_num_threads()`` threads.

    A slice writes only what belongs to its items, so the result does not depend on the number of threads.
    """
    n_threads = torch.get_num_threads()
    n_slices = min(n_items, n_threads * _SLICES_PER_THREAD)
    if n_threads == 1 or n_slices <= 1:
        if n_items:
            kernel(0, n_items, *arguments)
        return
    bounds = np.linspace(0, n_items, n_slices + 1).astype(np.int64).tolist()
    # The pool of a parent process has no threads in a forked child, hence the process id in the key.
    pool = _pool(os.getpid(), n_threads)
    futures = [pool.submit(kernel, begin, end, *arguments) for begin, end in pairwise(bounds)]
    for future in futures:
        future.result()
