"""Modes of class fitting: do the classes of a layer fall into a densely and a sparsely fitted group?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis._arrays import as_numpy
from fastdens.batch import RaggedBatch
from fastdens.gaussian_mixtures import GaussianMixtures

_SIGNIFICANCE = 0.05
_FEWEST_CLASSES = 4


class Modes(NamedTuple):
    """Groups of classes.

    ``n_groups`` is 1 or 2; ``line`` separates two groups, NaN for one; ``group`` int64 [M] is 1 for classes above the
    line, else 0; ``dip_pvalue`` is that of Hartigan's test of unimodality; ``bic_gain`` is the BIC of one Gaussian less
    that of two (positive: two are better).
    """

    n_groups: int
    line: float
    group: NDArray[np.int64]
    dip_pvalue: float
    bic_gain: float


def find_modes(class_means: ArrayLike | Tensor) -> Modes:
    """Split classes by their mean log-density, if the data show two groups.

    Two groups need both a dip test that rejects one mode at the 5 % level, which heavy tails do not make it do, and two
    Gaussians with a lower BIC than one. The line is then the midpoint of the largest gap between sorted means.

    Parameters
    ----------
    class_means : array or Tensor
        [M], mean log-density of each class. Under four classes are one group: there is nothing to test.

    Raises
    ------
    ValueError
        If a mean is not finite.
    ImportError
        If diptest is missing.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023 (the line). Hartigan & Hartigan, The dip test of unimodality, Annals of Statistics
    13, 1985. Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978.
    """
    means = as_numpy(class_means).astype(np.float64)
    if means.ndim != 1:
        raise ValueError(f"class_means has shape {means.shape}, but it must be [M].")
    bad = ~np.isfinite(means)
    if bad.any():
        raise ValueError(f"the mean log-density of class {int(bad.argmax())} is {means[bad][0]}: leave that class out.")
    if len(means) < _FEWEST_CLASSES or np.ptp(means) == 0:
        return Modes(1, math.nan, np.zeros(len(means), np.int64), math.nan, math.nan)
    try:
        from diptest import diptest
    except ImportError:
        raise ImportError("find_modes needs diptest, not installed: pip install 'fastdens[analysis]'.") from None
    dip_pvalue = float(diptest(means)[1])
    bic_gain = _bic_gain(means)
    if not (dip_pvalue < _SIGNIFICANCE and bic_gain > 0):
        return Modes(1, math.nan, np.zeros(len(means), np.int64), dip_pvalue, bic_gain)
    ordered = np.sort(means)
    widest = int(np.diff(ordered).argmax())
    line = float(ordered[widest : widest + 2].mean())
    return Modes(2, line, (means > line).astype(np.int64), dip_pvalue, bic_gain)


def _bic_gain(means: NDArray[np.float64]) -> float:
    standardized = (means - means.mean()) / means.std()
    batch = RaggedBatch.from_list([standardized[:, None]])
    # A component on a single class may not shrink to a point: that is no group.
    bic = [
        GaussianMixtures(k, reg_covar=1e-2, n_init=5, max_iter=500, tol=1e-4, backend="reference").fit(batch).bic(batch)
        for k in (1, 2)
    ]
    return float(bic[0] - bic[1])
