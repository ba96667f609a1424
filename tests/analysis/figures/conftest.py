from __future__ import annotations

import pytest

from tests.analysis.figures.drawing import new_axes


@pytest.fixture
def axes():
    return new_axes()
