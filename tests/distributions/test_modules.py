"""Densities as modules of torch: they move, are saved, copied and loaded, apart from the fit they come from."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import fastdens as fd
from fastdens.distributions.shared_covariance import SharedCovarianceDensity
from tests.problems import mixture_problem, student_t_problem

COVARIANCES = ("full", "tied", "diag", "spherical")
NAMES = (*COVARIANCES, "tied across models", "student t", "factors")


def density_of(rng, name: str, dtype: torch.dtype = torch.float32):
    """A density of three models in four dimensions, and some points."""
    if name == "student t":
        problem = student_t_problem(rng, 6, 4, [2, 1, 3], dtype)
        return fd.StudentTMixtureDensity(*problem[1:], backend="reference"), problem.points
    if name == "factors":
        points, _, weights, means, scale = mixture_problem(rng, [2, 2, 2], 4, 2, "diag", dtype)
        loadings = torch.from_numpy(rng.normal(size=(3, 2, 4, 2))).to(dtype)
        return fd.FactorAnalyserMixtureDensity(weights, means, loadings, scale.square(), "reference"), points
    if name == "tied across models":
        points, _, weights, means, factors = mixture_problem(rng, [2, 2, 2], 4, 2, "tied", dtype)
        return SharedCovarianceDensity(weights, means, factors[0], backend="reference"), points
    points, _, *parameters = mixture_problem(rng, [2, 2, 2], 4, 2, name, dtype)
    return fd.GaussianMixtureDensity(*parameters, name, backend="reference"), points


def copies_of(density):
    stream = io.BytesIO()
    torch.save(density.state_dict(), stream)
    stream.seek(0)
    loaded = copy.deepcopy(density)
    for tensor in loaded.buffers():
        tensor.zero_()
    loaded.load_state_dict(torch.load(stream, weights_only=True))
    yield loaded
    yield copy.deepcopy(density)
    yield pickle.loads(pickle.dumps(density))
    yield density._replicate_for_data_parallel()
    yield nn.Sequential(nn.Identity(), density)[1]


@pytest.mark.parametrize("name", NAMES)
def test_copies_give_the_same_bits(rng, name):
    density, x = density_of(rng, name)
    want = density.log_prob(x)
    assert torch.equal(density(x), want)
    for other in copies_of(density):
        assert torch.equal(other(x), want) and other.backend == "reference" and repr(other) == repr(density)
    assert not list(density.parameters()) and not density.requires_grad_().log_prob(x).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_moves_with_the_network_it_is_in(rng, name):
    density, x = density_of(rng, name)
    want = density(x)
    network = nn.Sequential(nn.Identity(), density)
    for move in (nn.Module.half, nn.Module.bfloat16, lambda module: module.to(torch.float16), nn.Module.float):
        # Nothing is rounded: half precision holds no covariance.
        assert torch.equal(move(network)[1](x), want)
    assert network.double()(x).dtype == torch.float64
    moved = network.to("meta")[1]
    assert {tensor.device.type for tensor in moved.buffers()} == {"meta"} and moved.device.type == "meta"
    with pytest.raises(ValueError, match="x is on cpu and the models are on meta"):
        moved(x)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_other_shapes_is_refused(rng, name):
    density, x = density_of(rng, name)
    want, state = density(x), density.select(0, 2).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        density.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)"):
        density.load_state_dict({})
    other, _ = density_of(rng, name)
    assert not torch.equal(other(x), want)
    other.load_state_dict(density.state_dict())
    assert torch.equal(other(x), want)


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        fd.GaussianMixtures(2, max_iter=3),
        fd.FactorAnalyserMixtures(1, 1, max_iter=3),
        fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3),
    ],
    ids=repr,
)
def test_what_is_done_to_a_density_leaves_the_fit_alone(rng, estimator):
    batch = fd.RaggedBatch.from_list([torch.from_numpy(rng.normal(size=(n, 2))) for n in (20, 9)])
    want = estimator.fit(batch).score_samples(batch)
    density = estimator.density()
    density.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in density.state_dict().items()})
    estimator.density().double().to("meta")
    assert torch.equal(estimator.score_samples(batch), want)
    assert torch.equal(estimator.density().score_samples(batch), want)
