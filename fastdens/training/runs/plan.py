"""Plans: the networks to train, which examples each of them sees, and their seeds."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


class TrainingRun(NamedTuple):
    """One network to train.

    Attributes
    ----------
    name : str
        Also of its file.
    included : Tensor
        bool [N], the training examples that the network sees.
    seed : int
        Decides its initial weights and everything random in its training.
    """

    name: str
    included: Tensor
    seed: int


def subset_runs(n_networks: int, n_examples: int, share: float = 0.7, seed: int = 0) -> list[TrainingRun]:
    """Plan networks that each see a random share of the examples, to estimate memorization.

    More networks, asked for later, leave the earlier ones as they are.

    Parameters
    ----------
    n_networks, n_examples : int
        Networks to train, and examples to draw from.
    share : float
        Each network sees ``round(share * n_examples)`` examples, every subset of that size being equally likely.
    seed : int
        The random stream of network t is seeded by (seed, t).

    Returns
    -------
    list of TrainingRun
        "memorization-0000" and so on.

    Raises
    ------
    ValueError
        If the share leaves no example in or none out, or a number is out of range.

    References
    ----------
    Feldman & Zhang, What neural networks memorize and why, NeurIPS 2020, section 2 (share 0.7).

    Examples
    --------
    >>> from fastdens.training.runs import subset_runs
    >>> runs = subset_runs(3, n_examples=100)
    >>> [run.name for run in runs], runs[0].included.sum()
    (['memorization-0000', 'memorization-0001', 'memorization-0002'], tensor(70))
    """
    if n_networks < 1:
        raise ValueError(f"n_networks is {n_networks}, but there is no estimate without a network: pass 1 or more.")
    if seed < 0:
        raise ValueError(f"seed is {seed}, but seeds count from 0: pass 0 or more.")
    n_included = round(share * n_examples) if 0 < share < 1 else 0
    if not 0 < n_included < n_examples:
        raise ValueError(
            f"a share of {share} of {n_examples} examples leaves none in or none out: pass a share between 0 and 1, "
            "such as 0.7."
        )
    runs = []
    for t in range(n_networks):
        rng = np.random.default_rng((seed, t))
        included = torch.zeros(n_examples, dtype=torch.bool, device="cpu")
        included[torch.from_numpy(rng.permutation(n_examples)[:n_included])] = True
        runs.append(TrainingRun(f"memorization-{t:04d}", included, int(rng.integers(2**62))))
    return runs


def left_out_runs(bins: ArrayLike | Tensor, n_bins: int, seed: int = 0) -> list[TrainingRun]:
    """Plan one network for each bin of the examples, which sees all examples but those of the bin.

    Parameters
    ----------
    bins : array of int [N]
        The bin of each training example, counted from 0.
    n_bins : int
        At least 2.
    seed : int
        The same for all networks, so that they differ by the bin alone.

    Returns
    -------
    list of TrainingRun
        "without-bin-0" and so on.

    Raises
    ------
    ValueError
        If bins are not integers from 0 to ``n_bins - 1``, or one has no examples or all of them.

    Examples
    --------
    >>> from fastdens.training.runs import left_out_runs
    >>> [run.name for run in left_out_runs([0, 1, 1, 0], n_bins=2)]
    ['without-bin-0', 'without-bin-1']
    """
    bin_of_example = torch.as_tensor(bins, device="cpu")
    if bin_of_example.ndim != 1 or bin_of_example.is_floating_point() or bin_of_example.dtype == torch.bool:
        raise ValueError(
            f"bins are {bin_of_example.dtype} of shape {list(bin_of_example.shape)}: pass one integer for each example."
        )
    counts = Counter(bin_of_example.tolist())
    for b in sorted(counts.keys() - set(range(n_bins))):
        raise ValueError(f"an example is in bin {b}, but the {n_bins} bins count from 0: renumber them.")
    for b in range(n_bins):
        if not 0 < counts[b] < len(bin_of_example):
            raise ValueError(
                f"bin {b} has {counts[b]} of the {len(bin_of_example)} examples: pass bins that each have some and not "
                "all."
            )
    return [TrainingRun(f"without-bin-{b}", (bin_of_example != b).cpu(), seed) for b in range(n_bins)]
