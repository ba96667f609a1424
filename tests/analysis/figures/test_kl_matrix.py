from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fastdens.analysis.figures import plot_kl_matrix
from tests.analysis.figures.drawing import assert_legible, names_of


@pytest.mark.parametrize("n", [1, 10, 30, 100])
def test_divergences_of_classes_are_a_matrix_in_the_order_asked_for(rng, n):
    axes = Figure(figsize=(5.5, 4.6), layout="constrained").subplots()
    kl = rng.lognormal(3, 2, (n, n))
    np.fill_diagonal(kl, 0)
    order = rng.permutation(n)
    assert plot_kl_matrix(axes, torch.from_numpy(kl), names_of(n), order=order) is axes
    (image,) = axes.images
    drawn = image.get_array()
    others = ~np.eye(n, dtype=bool)
    np.testing.assert_array_equal(drawn.mask, ~others)
    np.testing.assert_array_equal(drawn.data[others], kl[np.ix_(order, order)][others])
    assert image.get_cmap().name == "viridis"
    if n == 1:
        assert image.colorbar is None
    else:
        assert type(image.norm).__name__ == "LogNorm" and "nats" in image.colorbar.ax.get_ylabel()
        assert (image.norm.vmin, image.norm.vmax) == (kl[others].min(), kl[others].max())
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert ([text.get_text() for text in labels] == [names_of(n)[c] for c in order]) is (n <= 30)
    assert_legible(axes)


def test_divergences_that_are_not_finite_are_blank_and_alike_ones_are_on_a_linear_scale(axes):
    plot_kl_matrix(axes, [[0, 1, np.inf], [1.5, 0, 2], [np.nan, 2, 0]], ["a", "b", "c"])
    assert axes.images[0].get_array().mask.sum() == 5 and type(axes.images[0].norm).__name__ == "Normalize"
    assert axes.get_title(loc="right") == "2 of 6 values not finite, left out"
    with pytest.raises(ValueError, match=r"^order does not name each of the 2 classes once"):
        plot_kl_matrix(axes, np.ones((2, 2)), ["a", "b"], order=[0, 0])
    with pytest.raises(ValueError, match=r"^kl has shape \(2, 3\), but it must be \[M, M\] with M = 2\.$"):
        plot_kl_matrix(axes, np.ones((2, 3)), ["a", "b"])
