"""The fixtures of scikit-learn's own tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def global_dtype(request):
    return request.param


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's tests use unless they are told otherwise."""
    return 42
