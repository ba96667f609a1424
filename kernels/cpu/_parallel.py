"""A thread pool for kernels that release the GIL, and the work list that they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_SLICES_PER_THREAD = 4
_MIN_CHUNK_ROWS = 1024


class Chunks(NamedTuple):
    """Runs of rows of one model each: the unit of work of a thread."""

    model: NDArray[np.int64]  # [C] the model of each chunk
    start: NDArray[np.int64]  # [C] first row
    stop: NDArray[np.int64]  # [C] one past the last row
    first: NDArray[np.int64]  # [M+1] the chunks of model m are first[m]:first[m+1]


def chunk_rows(ranges: NDArray[np.int64], n_components: int, n_features: int) -> Chunks:
    """Cut row ranges [M, 2] into chunks.

    The size of a chunk depends on nothing but K and D, so that the sums of one model are formed in the same order
    whatever else is in the batch. At K * D rows or more, the partial sums of a chunk (K * D * D numbers) take no more
    memory than its points.
    """
    size = max(_MIN_CHUNK_ROWS, n_components * n_features)
    rows = ranges[:, 1] - ranges[:, 0]
    counts = np.maximum(1, -(-rows // size))
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    model = np.repeat(np.arange(len(ranges)), counts)
    start = ranges[model, 0] + (np.arange(len(model)) - first[model]) * size
    stop = np.minimum(start + size, ranges[model, 1])
    return Chunks(model, start, stop, first)


@lru_cache(maxsize=4)
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="fastdens")


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
