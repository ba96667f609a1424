"""Ranks with ties, within strata and in bootstrap resamples.

A resample is the number of times that each example is drawn. The ranks in it follow from the order of the sample by
cumulative sums, so that no resample is sorted. With the variance of Kendall's tau in closed form, all intervals take
about a ninetieth of the time of scipy's bootstrap (``benchmarks/results/correlation.json``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Order of N examples within contiguous strata, with G groups of equal values.

    Attributes
    ----------
    order : ndarray
        int64 [N], sorts the examples by stratum, then by value. Group g is at ``order[starts[g]:ends[g]]``.
    starts, ends : ndarray
        int64 [G].
    group : ndarray
        int64 [N], the group of each example.
    stratum : ndarray
        int64 [G], the stratum of each group.
    """

    order: IntArray
    starts: IntArray
    ends: IntArray
    group: IntArray
    stratum: IntArray

    @classmethod
    def sort(cls, values: IntArray, stratum: IntArray) -> Ranking:
        """Sort values [N]; ``stratum`` [N] ascends."""
        order = np.lexsort((values, stratum))
        ordered, strata = values[order], stratum[order]
        first = np.ones(len(values), bool)
        first[1:] = (ordered[1:] != ordered[:-1]) | (strata[1:] != strata[:-1])
        starts = np.flatnonzero(first)
        group = np.empty(len(values), np.int64)
        group[order] = np.cumsum(first) - 1
        return cls(order, starts, np.append(starts[1:], len(values)), group, strata[starts])

    def centred_ranks(self, counts: IntArray, strata_starts: IntArray) -> FloatArray:
        """Mid-rank of each example [N] within its stratum in a resample, less the mean rank of the stratum."""
        drawn = np.add.reduceat(counts[self.order], self.starts)
        size = np.add.reduceat(counts, strata_starts)
        before = np.cumsum(drawn) - drawn - (np.cumsum(size) - size)[self.stratum]
        ranks: FloatArray = before + (drawn - size[self.stratum]) / 2
        return ranks[self.group]


@dataclass(frozen=True)
class RankedPairs:
    """Two rankings of the same N examples, which are sorted into S strata.

    Attributes
    ----------
    x, y : Ranking
    names : ndarray
        int64 [S], the label of each stratum.
    starts, sizes : ndarray
        int64 [S], the first example of each stratum and the number of its examples.
    """

    x: Ranking
    y: Ranking
    names: IntArray
    starts: IntArray
    sizes: IntArray

    @classmethod
    def sort(cls, x: IntArray, y: IntArray, strata: IntArray) -> RankedPairs:
        """Sort values ``x`` and ``y`` [N] of examples in the strata of these labels [N]."""
        by_stratum = np.argsort(strata, kind="stable")
        names, starts, stratum, sizes = np.unique(strata[by_stratum], True, True, True)
        return cls(Ranking.sort(x[by_stratum], stratum), Ranking.sort(y[by_stratum], stratum), names, starts, sizes)

    def spearman(self, counts: IntArray) -> FloatArray:
        """Spearman's rho of each stratum [S] in a resample; NaN where all values of x or of y are equal."""
        x, y = self.x.centred_ranks(counts, self.starts), self.y.centred_ranks(counts, self.starts)
        return weighted_correlation(x, y, counts, self.starts)


def dense_ranks(values: FloatArray) -> IntArray:
    """Replace values by 0, 1, 2, ... in ascending order, equal values by the same rank."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def weighted_correlation(x: FloatArray, y: FloatArray, counts: IntArray, strata_starts: IntArray) -> FloatArray:
    """Pearson's correlation [S] of values [N] that are centred within each stratum and drawn ``counts`` [N] times."""
    drawn_x = counts * x
    squares = np.add.reduceat(drawn_x * x, strata_starts) * np.add.reduceat(counts * y * y, strata_starts)
    with np.errstate(invalid="ignore"):
        correlation: FloatArray = np.add.reduceat(drawn_x * y, strata_starts) / np.sqrt(squares)
    return correlation


def draw_examples(sizes: IntArray, n_resamples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield resamples of the examples within each stratum: counts [N], which add up to ``sizes`` [S]."""
    size, start = np.repeat(sizes, sizes), np.repeat(np.cumsum(sizes) - sizes, sizes)
    for _ in range(n_resamples):
        # Rounded down before the start is added: a sum just under an integer might be rounded up to it.
        yield np.bincount((rng.random(len(size)) * size).astype(np.int64) + start, minlength=len(size))


def draw_strata(sizes: IntArray, n_resamples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield resamples of whole strata: counts [N], the same for all examples of a stratum."""
    n_strata = len(sizes)
    for _ in range(n_resamples):
        yield np.repeat(np.bincount(rng.integers(n_strata, size=n_strata), minlength=n_strata), sizes)
