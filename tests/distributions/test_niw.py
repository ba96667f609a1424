"""The prior from the data: against numpy, far from the origin, and whatever the neighbours are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels.layout import Layout

from fastdens.distributions.niw import data_prior


def ragged(rng, sizes, d, shift=0.0):
    """Points whose scale and centre differ by model, and the layout of the models."""
    centres, scales = rng.normal(size=(len(sizes), d)), rng.uniform(0.5, 2, size=(len(sizes), d))
    model = np.repeat(np.arange(len(sizes)), sizes)
    x = shift + centres[model] + scales[model] * rng.normal(size=(sum(sizes), d))
    return torch.from_numpy(x), Layout.from_offsets(torch.tensor([0, *sizes]).cumsum(0), sum(sizes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e8])
@pytest.mark.parametrize(("sizes", "d"), [([1], 1), ([5, 1, 64], 1), ([33, 2, 70], 5), ([40, 7], 17)])
def test_agrees_with_numpy(rng, sizes, d, shift, dtype):
    points, layout = ragged(rng, sizes, d, shift)
    points = points.to(dtype)
    prior = data_prior(points, layout, kappa0=0.02, init_components=4)
    assert prior.mean.dtype == prior.scale_diagonal.dtype == torch.float64
    assert (prior.kappa, prior.nu) == (0.02, d + 2)
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        x = points[start:stop].numpy().astype(np.longdouble)
        # The mean is rounded to float64 where the data are, the variance where they are spread.
        np.testing.assert_allclose(prior.mean[m], x.mean(0).astype(float), rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(
            prior.scale_diagonal[m], (x.var(0) / np.longdouble(4) ** (2 / d)).astype(float), rtol=1e-12, atol=1e-14
        )


def test_a_shift_moves_the_mean_alone(rng):
    points, layout = ragged(rng, [30, 9], 3)
    points = (points * 1024).round() / 1024  # exact also when shifted
    near = data_prior(points, layout)
    for shift in (2.0**14, -(2.0**27)):
        far = data_prior(points + shift, layout)
        assert torch.equal(far.scale_diagonal, near.scale_diagonal)
        torch.testing.assert_close(far.mean - shift, near.mean, rtol=0, atol=2 * abs(shift) * 2.0**-52)


def test_equal_points_have_no_scale(rng):
    points, layout = ragged(rng, [4, 6], 2, shift=1e6)
    points[:4] = points[0]
    prior = data_prior(points, layout)
    assert torch.equal(prior.mean[0], points[0])
    assert (prior.scale_diagonal[0] == 0).all()
    assert (prior.scale_diagonal[1] > 0).all()


def test_same_bits_in_any_company(rng):
    points, layout = ragged(rng, [50, 20, 1, 130], 3)
    everything = data_prior(points, layout)
    for models in ([0], [1, 3], [0, 2, 3]):
        some = data_prior(points, layout.select(torch.tensor(models)))
        chosen = everything.select(torch.tensor(models))
        assert torch.equal(some.mean, chosen.mean)
        assert torch.equal(some.scale_diagonal, chosen.scale_diagonal)
    points[55] = float("nan")
    poisoned = data_prior(points, layout)
    others = torch.tensor([True, False, True, True])
    assert torch.equal(poisoned.select(others).mean, everything.select(others).mean)
    assert torch.equal(poisoned.select(others).scale_diagonal, everything.select(others).scale_diagonal)
    assert poisoned.scale_diagonal[1].isnan().all()


def test_parameters_that_give_no_prior(rng):
    points, layout = ragged(rng, [6], 3)
    assert data_prior(points, layout, nu0=2.5).nu == 2.5
    with pytest.raises(ValueError, match="nu0 is 2, but the prior of 3 features needs more than 2"):
        data_prior(points, layout, nu0=2)
    with pytest.raises(ValueError, match="kappa0 is 0"):
        data_prior(points, layout, kappa0=0)
    with pytest.raises(ValueError, match="init_components is 0"):
        data_prior(points, layout, init_components=0)
