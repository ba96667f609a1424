from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastdens.analysis.figures import plot_split_agreement
from tests.analysis.figures.drawing import assert_legible, layers_of


@pytest.mark.parametrize("n", [1, 4, 12])
def test_agreement_is_written_into_its_cells(rng, n):
    axes = Figure(figsize=(5.2, 4.2), layout="constrained").subplots()
    agreement = rng.uniform(-0.2, 1, (n, n))
    np.fill_diagonal(agreement, 1)
    agreement[0, -1] = np.nan
    assert plot_split_agreement(axes, agreement, layers_of(n)) is axes
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), agreement)
    for text in axes.texts:
        column, row = text.get_position()
        value, shown = agreement[row, column], text.get_text().replace("−", "-")
        assert shown == "–" if np.isnan(value) else float(shown) == pytest.approx(value, abs=0.00501)
    assert len(axes.texts) == n * n
    assert_legible(axes)
    assert max(text.get_window_extent().width for text in axes.texts) <= 1.1 * axes.bbox.width / n
    with pytest.raises(ValueError, match=r"^agreement has a value of 2, but an adjusted Rand index is at most 1"):
        plot_split_agreement(axes, np.full((n, n), 2), layers_of(n))
