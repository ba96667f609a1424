"""Elementary functions of the CPU kernels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from fastdens.kernels.cpu._elementary import exp_minus, log1p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agree_with_numpy(rng, dtype):
    eps = np.finfo(dtype).eps
    y = np.concatenate(
        [[0], np.exp(rng.uniform(-40, 85, size=500)), [0.4142135, 0.4142136], 2.0 ** np.arange(1, 4) - 1]
    ).astype(dtype)
    want = np.log1p(y.astype(np.float64))
    assert (np.abs([float(log1p(v, dtype)) for v in y] - want) <= 3 * eps * want).all()
    a = np.concatenate([[0, 79.999, 80, 1e30], rng.uniform(0, 85, size=500)]).astype(dtype)
    want = np.exp(-a.astype(np.float64))
    assert (np.abs([float(exp_minus(v, dtype)) for v in a] - want) <= eps).all()
    infinity, nan = dtype(np.inf), dtype(np.nan)
    assert log1p(infinity, dtype) == np.inf and np.isnan(log1p(nan, dtype)) and exp_minus(infinity, dtype) == 0
