"""Points at 1e20 and 1e30 in float32, whose squares overflow: densities and classes are those of float64."""

from __future__ import annotations

import pytest
import torch

import fastdens as fd

FITS = {
    "gaussian": lambda: fd.GaussianMixtures(2, max_iter=5, tol=0),
    "variational": lambda: fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=5),
}


@pytest.fixture
def batch(rng):
    return fd.RaggedBatch.from_list([torch.from_numpy(rng.normal(size=(40, 3))).float() for _ in range(2)])


@pytest.fixture
def points(rng):
    """Some near, some far."""
    near = torch.from_numpy(rng.normal(size=(7, 3))).float()
    return near * torch.tensor([1, 1e21, 1e30, 1, 1e25, 1e15, 1])[:, None]


@pytest.mark.parametrize("name", FITS)
def test_densities_and_gradients_are_those_of_float64(batch, points, name):
    density = FITS[name]().fit(batch).density()
    found = density.log_prob(points.requires_grad_())
    assert not found.isnan().any()
    (gradient,) = torch.autograd.grad(found.sum(), points)
    assert gradient.isfinite().all()
    if name == "variational":
        # Polynomial tails: every density is a number.
        assert found.isfinite().all() and (found[[1, 2, 4, 5]] < -50).all()
    else:
        assert (found[[1, 2, 4]] == -torch.inf).all() and found[[0, 3, 6]].isfinite().all()


def test_the_most_probable_component_is_that_of_float64(batch, points):
    single = fd.GaussianMixtures(2, max_iter=5, tol=0).fit(batch)
    double = fd.GaussianMixtures(2, max_iter=0, dtype=torch.float64)
    double.weights_init, double.means_init = single.weights_.double(), single.means_.double()
    factors = single.precisions_cholesky_.double()
    double.precisions_init = factors @ factors.mT
    double.fit(batch)
    asked = fd.RaggedBatch.from_list([points, points])
    assert torch.equal(single.predict(asked), double.predict(asked))
    assert torch.allclose(single.predict_proba(asked).double(), double.predict_proba(asked), atol=1e-4)
