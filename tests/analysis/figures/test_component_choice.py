from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_chosen_components, plot_component_criterion
from tests.analysis.figures.drawing import assert_legible, bars, legend_of, points, segments


@pytest.mark.parametrize("criterion", ["bic", "icl", "held_out"])
@pytest.mark.parametrize("n_classes", [1, 7])
def test_each_class_falls_to_its_best_number(axes, rng, criterion, n_classes):
    numbers = torch.tensor([1, 2, 4, 5])
    values = {f"class {c}": rng.normal(size=4) * 10.0 ** rng.integers(0, 5) for c in range(n_classes)}
    assert plot_component_criterion(axes, numbers, values, criterion) is axes
    for drawn, own, line in zip(points(axes), values.values(), axes.lines, strict=True):
        loss = own.max() - own if criterion == "held_out" else own - own.min()
        np.testing.assert_allclose(drawn, np.column_stack([numbers, loss]))
        assert line.get_markevery() == [int(loss.argmin())]
    assert ("below" in axes.get_ylabel()) == (criterion == "held_out") and legend_of(axes) == list(values)
    assert_legible(axes)


def test_errors_and_numbers_that_a_class_cannot_have(axes, rng):
    values = {"ant": torch.tensor([-3.0, -2.0, -2.5]), "bee": torch.tensor([-1.0, torch.nan, torch.nan])}
    errors = {"ant": [0.1, 0.2, 0.3], "bee": [0.1, np.nan, np.nan]}
    plot_component_criterion(axes, [1, 2, 3], values, "held_out", standard_errors=errors)
    assert axes.get_title(loc="right") == "2 of 6 values not finite, left out"
    assert legend_of(axes) == ["ant", "bee", "± 1 standard error"]
    ant, bee = segments(axes)
    x = points(axes)[0][:, 0]
    np.testing.assert_allclose(ant, bars(x, np.array([0.9, -0.2, 0.2]), np.array([1.1, 0.2, 0.8])))
    assert len(bee) == 1
    assert_legible(axes)
    with pytest.raises(ValueError, match="criterion"):
        plot_component_criterion(axes, [1, 2, 3], values, "aic")
    with pytest.raises(ValueError, match=r"values of 'ant' has shape \(3,\), but it must be \[R\] with R = 2"):
        plot_component_criterion(axes, [1, 2], values, "bic")


def test_classes_are_counted_by_their_numbers(axes, rng):
    best = rng.integers(0, 6, 50)
    best[:2] = 0, 5
    assert plot_chosen_components(axes, torch.from_numpy(best)) is axes
    assert [round(bar.get_height()) for bar in axes.patches] == [int((best == k).sum()) for k in range(1, 6)]
    assert axes.get_title(loc="right") == f"{(best == 0).sum()} of 50 classes failed, left out"
    assert_legible(axes)
    with pytest.raises(ValueError, match="best is 0 for all of 3 classes"):
        plot_chosen_components(axes, [0, 0, 0])
