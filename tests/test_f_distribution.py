"""The F distribution against scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from fastdens.f_distribution import f_survival, f_upper_quantile


@pytest.mark.parametrize("within", [1, 2, 4, 17, 18, 312, 70_000])
@pytest.mark.parametrize("between", [1, 3, 7, 199, 2001])
def test_quantiles_of_f_are_those_of_scipy(between, within):
    for probability in (1e-3, 0.5, 1e-6, 0.999):
        found = f_upper_quantile(probability, between, within)
        assert found == pytest.approx(stats.f.isf(probability, between, within), rel=1e-8)
        assert found == pytest.approx(stats.f.ppf(1 - probability, between, within), rel=1e-6)
        assert f_survival(found, between, within) == pytest.approx(probability, rel=1e-9)
