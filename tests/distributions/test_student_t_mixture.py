"""fd.StudentTMixtureDensity against scipy: it integrates to one, and its samples follow it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import fastdens as fd
from fastdens.distributions import student_t_mixture
from tests.problems import relative_error, student_t_problem


def density_of(problem, **options):
    return fd.StudentTMixtureDensity(*problem[1:], **options)


def model(density, m):
    """Weights, locations, scale matrices and degrees of freedom of a model, as numpy arrays."""
    own = slice(*density.offsets[m : m + 2].tolist())
    factor = density.scale_precisions_cholesky[own].double()
    scale = torch.linalg.inv(factor @ factor.mT)
    weights = density.log_weights[own].double().exp()
    return tuple(t.double().numpy() for t in (weights, density.locations[own], scale, density.degrees_of_freedom[own]))


def scipy_log_prob(density, m, x):
    parts = zip(*model(density, m), strict=True)
    return np.log(sum(w * scipy.stats.multivariate_t(loc, scale, dof).pdf(x) for w, loc, scale, dof in parts))


@pytest.mark.parametrize("backend", ["cpu", "reference", "triton"])
def test_log_prob_agrees_with_scipy(rng, backend):
    problem = student_t_problem(rng, 30, 3, [2, 4, 1])
    density = density_of(problem, backend=backend)
    assert (density.n_models, density.n_features) == (3, 3)
    log_prob = density.log_prob(problem.points.numpy())
    assert log_prob.shape == (30, 3)
    for m in range(3):
        np.testing.assert_allclose(log_prob[:, m], scipy_log_prob(density, m, problem.points.numpy()), rtol=1e-10)
    point = problem.points.clone().requires_grad_()
    density.log_prob(point).sum().backward()
    assert point.grad.isfinite().all()


def test_score_samples_is_in_the_callers_order(rng):
    problem = student_t_problem(rng, 50, 3, [2, 4, 1])
    density = density_of(problem)
    y = rng.integers(0, 3, size=50)
    scores = density.score_samples(fd.RaggedBatch.from_labels(problem.points.numpy(), y, n_classes=3))
    assert relative_error(scores, density.log_prob(problem.points)[torch.arange(50), torch.from_numpy(y)]) < 1e-12


def test_computes_in_the_dtype_of_the_models(rng):
    problem = student_t_problem(rng, 8, 3, [2], torch.float32)
    density = density_of(problem)
    batch = fd.RaggedBatch.from_list([problem.points.double()])
    assert density.log_prob(problem.points.double()).dtype == density.score_samples(batch).dtype == torch.float32
    assert density.sample(2).dtype == torch.float32


@pytest.mark.parametrize("n_features", [1, 2])
def test_integrates_to_one(rng, n_features):
    density = density_of(student_t_problem(rng, 1, n_features, [2, 3]))
    # x = tan(t) brings the line, and its heavy tails, into an interval.
    node, weight = np.polynomial.legendre.leggauss(250)
    t = node * np.pi / 2
    x, weight = np.tan(t), weight * np.pi / 2 / np.cos(t) ** 2
    points = np.stack(np.meshgrid(*[x] * n_features), -1).reshape(-1, n_features)
    weights = np.prod(np.stack(np.meshgrid(*[weight] * n_features), -1).reshape(-1, n_features), 1)
    np.testing.assert_allclose(weights @ density.log_prob(points).exp().numpy(), 1, rtol=1e-5)


def test_samples_in_one_dimension_follow_the_density(rng, seed):
    density = density_of(student_t_problem(rng, 1, 1, [3, 1]))
    drawn = density.sample(5_000, torch.Generator().manual_seed(seed))
    assert drawn.shape == (5_000, 2, 1)
    for m in range(2):
        weights, location, scale, dof = model(density, m)
        mixture = scipy.stats.t(dof, loc=location[:, 0], scale=np.sqrt(scale[:, 0, 0]))
        test = scipy.stats.kstest(drawn[:, m, 0].numpy(), lambda x, w=weights, t=mixture: t.cdf(x[:, None]) @ w)
        assert test.pvalue > 1e-6


def test_samples_have_the_moments_of_their_component(rng, seed, monkeypatch):
    # Several gathers of factors, the last of them short.
    monkeypatch.setattr(student_t_mixture, "_MAX_GATHERED_ELEMENTS", 9 * 7_001)
    problem = student_t_problem(rng, 1, 3, [2, 0, 1])
    density = density_of(problem._replace(degrees_of_freedom=problem.degrees_of_freedom + 20))
    n = 40_000
    points, component = density.sample_components(n, torch.Generator().manual_seed(seed))
    assert points.shape == (3, n, 3) and component.shape == (3, n)
    for m in (0, 2):
        weights, locations, scales, dof = model(density, m)
        counts = np.bincount(component[m], minlength=len(weights))
        assert (np.abs(counts - n * weights) < 5 * np.sqrt(n * weights * (1 - weights)) + 1).all()
        for k in np.flatnonzero(counts > 1_000):
            own = points[m, component[m] == k].numpy()
            covariance = scales[k] * dof[k] / (dof[k] - 2)
            size = np.sqrt(np.diag(covariance))
            assert (np.abs(own.mean(0) - locations[k]) < 5 * size / np.sqrt(len(own))).all()
            assert (np.abs(np.cov(own.T) - covariance) < 8 * np.outer(size, size) / np.sqrt(len(own))).all()
            # (x - mu)' S^-1 (x - mu) / D has the F distribution of D and nu degrees of freedom.
            centred = own - locations[k]
            form = np.einsum("nd,de,ne->n", centred, np.linalg.inv(scales[k]), centred)
            assert scipy.stats.kstest(form / 3, scipy.stats.f(3, dof[k]).cdf).pvalue > 1e-6


def test_components_are_drawn_by_weight_among_thousands(rng, seed):
    counts = [3_000, 1, 0, 700, 2_000]
    problem = student_t_problem(rng, 1, 1, counts)
    impossible = torch.from_numpy(rng.random(sum(counts)) < 0.3)
    impossible[[0, 2_999, 3_001, 3_700, -1]] = True
    impossible[3_000] = False
    density = density_of(problem._replace(log_weights=problem.log_weights.masked_fill(impossible, -torch.inf)))
    n = 20_000
    _, component = density.sample_components(n, torch.Generator().manual_seed(seed))
    assert (component[2] == -1).all() and (component[1] == 0).all()
    for m in (0, 3, 4):
        weights = model(density, m)[0]
        weights = weights / weights.sum()
        assert int(component[m].min()) >= 0 and int(component[m].max()) < counts[m]
        assert (weights[component[m].numpy()] > 0).all()
        # Groups of a hundred neighbours are large enough for the chi-square test.
        observed = np.add.reduceat(np.bincount(component[m], minlength=counts[m]), np.arange(0, counts[m], 100))
        expected = n * np.add.reduceat(weights, np.arange(0, counts[m], 100))
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-6


def test_same_seed_same_draws(rng, seed):
    density = density_of(student_t_problem(rng, 1, 4, [3, 2]))
    one, two = (density.sample(50, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, density.sample(50, torch.Generator().manual_seed(seed + 1)))


def test_shifted_float32_models(rng, seed):
    problem = student_t_problem(rng, 1, 4, [3, 2], torch.float32, shift=1e4)
    density = density_of(problem)
    exact = density_of([t if t.dtype == torch.int64 else t.double() for t in problem])
    drawn = density.sample(200, torch.Generator().manual_seed(seed))
    batch = fd.RaggedBatch.from_list(list(drawn.transpose(0, 1)))
    assert relative_error(density.score_samples(batch), exact.score_samples(batch)) < 1e-4


def test_models_without_components_or_of_nan_are_nan(rng, seed):
    problem = student_t_problem(rng, 6, 2, [2, 0, 1])
    for parameter in problem[2:]:
        parameter[2] = torch.nan
    density = density_of(problem)
    points, component = density.sample_components(5, torch.Generator().manual_seed(seed))
    assert points[0].isfinite().all() and points[1:].isnan().all()
    assert (component[0] >= 0).all() and (component[1:] == -1).all()
    log_prob = density.log_prob(problem.points)
    assert log_prob[:, 0].isfinite().all() and log_prob[:, 1:].isnan().all()
    assert density.entropy(10).value.isnan().tolist() == [False, True, True]


def test_errors_are_one_sentence(rng):
    problem = student_t_problem(rng, 6, 3, [2, 1])
    density = density_of(problem)
    with pytest.raises(ValueError, match=r"x has shape \(6, 2\), but the models have D = 3"):
        density.log_prob(problem.points[:, :2])
    with pytest.raises(TypeError, match="make one with"):
        density.score_samples(problem.points)
    with pytest.raises(ValueError, match="the batch has 1 models with D = 3, but 2 models with D = 3 were fitted"):
        density.score_samples(fd.RaggedBatch.from_list([problem.points]))
    with pytest.raises(ValueError, match="n is 0"):
        density.sample(0)
