"""Entropies and divergences by Monte Carlo against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import fastdens as fd
from fastdens.distributions import divergences
from tests.problems import mixture_problem, student_t_problem

# Standard errors: far enough out that a right result passes on every fresh seed.
Z = 5


def gaussians(rng, n_models=3, d=3, covariance_type="full"):
    """A density of one Gaussian a model, with its means and covariances."""
    _, _, weights, means, factor = mixture_problem(rng, [1] * n_models, d, 1, covariance_type)
    density = fd.GaussianMixtureDensity(weights, means, factor, covariance_type)
    full = {"full": lambda: factor[:, 0], "diag": lambda: torch.diag_embed(factor[:, 0])}[covariance_type]()
    return density, means[:, 0].numpy(), np.linalg.inv((full @ full.mT).numpy())


def gaussian_kl(mean_p, cov_p, mean_q, cov_q):
    difference, inverse = mean_q - mean_p, np.linalg.inv(cov_q)
    log_det = np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
    return 0.5 * (np.trace(inverse @ cov_p) + difference @ inverse @ difference - len(mean_p) + log_det)


def assert_near(estimate, exact):
    assert estimate.value.dtype == estimate.standard_error.dtype == torch.float64
    error = np.abs(estimate.value.numpy() - exact)
    assert (error <= Z * estimate.standard_error.numpy()).all(), (estimate, exact)


@pytest.fixture
def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_entropy_of_gaussians(rng, generator, covariance_type):
    density, means, covariances = gaussians(rng, covariance_type=covariance_type)
    exact = [scipy.stats.multivariate_normal(m, c).entropy() for m, c in zip(means, covariances, strict=True)]
    assert_near(density.entropy(20_000, generator), exact)


def test_entropy_of_student_t(rng, generator):
    problem = student_t_problem(rng, 1, 3, [1, 1, 1])
    factor = problem.scale_precisions_cholesky
    scale = torch.linalg.inv(factor @ factor.mT).numpy()
    exact = [
        scipy.stats.multivariate_t(problem.locations[m], scale[m], float(problem.degrees_of_freedom[m])).entropy()
        for m in range(3)
    ]
    assert_near(fd.StudentTMixtureDensity(*problem[1:]).entropy(20_000, generator), exact)


def test_kl_matrix_of_gaussians(rng, generator):
    density, means, covariances = gaussians(rng, n_models=4)
    estimate = density.kl_matrix(20_000, generator)
    exact = [
        [gaussian_kl(means[i], covariances[i], means[j], covariances[j]) if i != j else 0.0 for j in range(4)]
        for i in range(4)
    ]
    assert_near(estimate, exact)
    assert (estimate.value.diagonal() == 0).all() and (estimate.standard_error.diagonal() == 0).all()
    assert (estimate.standard_error + torch.eye(4) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_matrix_of_student_t_mixtures_in_one_dimension(rng, generator, dtype):
    density = fd.StudentTMixtureDensity(*student_t_problem(rng, 1, 1, [2, 3], dtype)[1:])
    estimate = density.kl_matrix(20_000, generator)
    node, weight = np.polynomial.legendre.leggauss(2_000)
    t = node * np.pi / 2
    log_prob = density.log_prob(np.tan(t)[:, None]).double().numpy()
    weight = weight[:, None] * np.pi / 2 / np.cos(t)[:, None] ** 2 * np.exp(log_prob)
    exact = np.array([[weight[:, i] @ (log_prob[:, i] - log_prob[:, j]) for j in range(2)] for i in range(2)])
    assert_near(estimate, exact)
    assert (estimate.value.diagonal() == 0).all() and (estimate.standard_error.diagonal() == 0).all()


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_relative_entropy_to_the_gaussian_of_the_class(rng, generator, shift):
    density, means, covariances = gaussians(rng)
    density = fd.GaussianMixtureDensity(density.weights, density.means + shift, density.precisions_cholesky)
    classes = [rng.normal(size=(n, 3)) * rng.uniform(0.5, 2, size=3) + means[m] for m, n in enumerate((40, 7, 200))]
    batch = fd.RaggedBatch.from_list([x + shift for x in classes])
    exact = [gaussian_kl(means[m], covariances[m], x.mean(0), np.diag(x.var(0))) for m, x in enumerate(classes)]
    assert_near(density.relative_entropy(batch, 20_000, generator), exact)


def test_relative_entropy_counts_weights_as_repeated_points(rng):
    x, y, w = rng.normal(size=(60, 3)), rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    repeated = fd.RaggedBatch.from_labels(x.repeat(w, 0), y.repeat(w))
    density = fd.GaussianMixtures(1).fit(repeated).density()
    x[w == 0] = np.nan
    weighted = fd.RaggedBatch.from_labels(x, y).weighted(w)
    one, other = (
        density.relative_entropy(batch, 100, torch.Generator().manual_seed(0)).value for batch in (weighted, repeated)
    )
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_relative_entropy_where_the_class_has_no_gaussian(rng, generator):
    problem = student_t_problem(rng, 1, 2, [2, 1, 1, 0])
    classes = [rng.normal(size=(20, 2)) for _ in range(4)]
    classes[1][:, 1] = 7.0
    classes[2] = classes[2][:0]
    estimate = fd.StudentTMixtureDensity(*problem[1:]).relative_entropy(
        fd.RaggedBatch.from_list(classes), 100, generator
    )
    assert estimate.value[0].isfinite() and estimate.standard_error[0] > 0
    assert estimate.value[1] == torch.inf and estimate.standard_error[1].isnan()
    assert estimate.value[2:].isnan().all() and estimate.standard_error[2:].isnan().all()


class Replay:
    """A density whose draws are given: what the estimates ask of one, and nothing else."""

    n_features = 1
    device = torch.device("cpu")

    def __init__(self, draws):
        self.draws, self.used, self.n_models = draws, 0, len(draws)

    def sample_components(self, n, generator=None):
        drawn = self.draws[:, self.used : self.used + n]
        self.used += n
        return drawn, torch.zeros(drawn.shape[:2], dtype=torch.int64)

    def log_prob(self, x):
        return x + torch.arange(self.n_models)

    def score_samples(self, batch):
        return batch.in_caller_order(batch.points[:, 0] * (1 + batch.model_of_row))


@pytest.mark.parametrize("elements", [1, 6, 21, 1 << 20])
def test_blocks_of_draws_add_up(rng, monkeypatch, elements):
    monkeypatch.setattr(divergences, "_MAX_ELEMENTS", elements)
    # A mean far from zero, and a variance far from it, need sums about the mean.
    draws = torch.from_numpy(1e8 + rng.normal(size=(3, 50, 1)))
    density = Replay(draws)
    values = -draws[..., 0].numpy() * np.arange(1, 4)[:, None]
    estimate = divergences.entropy(density, 50)
    assert density.used == 50
    np.testing.assert_allclose(estimate.value, values.mean(1), rtol=1e-14)
    np.testing.assert_allclose(estimate.standard_error, values.std(1, ddof=1) / np.sqrt(50), rtol=1e-6)


def test_a_draw_without_density_makes_the_divergence_infinite(monkeypatch):
    monkeypatch.setattr(divergences, "_MAX_ELEMENTS", 4)

    class Disjoint(Replay):
        def log_prob(self, x):
            return torch.cat([torch.zeros_like(x), torch.where(x > 0.8, -torch.inf, 0.0)], 1)

    estimate = divergences.kl_matrix(Disjoint(torch.linspace(0, 1, 40).expand(2, 40)[..., None]), 40)
    assert estimate.value[0].tolist() == [0, torch.inf] and estimate.standard_error[0, 1].isnan()


def test_a_model_of_nan_leaves_its_neighbours_alone(rng, generator):
    _, _, weights, means, factor = mixture_problem(rng, [1, 1, 1], 2, 2, "full")
    for parameter in (weights, means, factor):
        parameter[1] = torch.nan
    density = fd.GaussianMixtureDensity(weights, means, factor)
    batch = fd.RaggedBatch.from_list([rng.normal(size=(9, 2)) for _ in range(3)])
    for estimate in (density.entropy(50, generator), density.relative_entropy(batch, 50, generator)):
        assert estimate.value.isfinite().tolist() == [True, False, True]
    kl = density.kl_matrix(50, generator).value
    assert kl.isnan().tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    scores = density.score_samples(batch)
    assert scores.isnan().tolist() == [False] * 9 + [True] * 9 + [False] * 9


def test_score_samples_of_gaussian_mixtures_is_in_the_callers_order(rng):
    x, _, weights, means, factor = mixture_problem(rng, [20, 5, 9], 3, 2, "full")
    density = fd.GaussianMixtureDensity(weights, means, factor)
    y = rng.integers(0, 3, size=34)
    scores = density.score_samples(fd.RaggedBatch.from_labels(x.numpy(), y, n_classes=3))
    np.testing.assert_allclose(scores, density.log_prob(x)[torch.arange(34), torch.from_numpy(y)], rtol=1e-12)


def test_errors_are_one_sentence(rng):
    density, _, _ = gaussians(rng)
    with pytest.raises(ValueError, match="n_samples is 1, but it must be at least 2"):
        density.entropy(1)
    with pytest.raises(TypeError, match=r"n_samples is 2\.5"):
        density.kl_matrix(2.5)
    with pytest.raises(TypeError, match="make one with"):
        density.relative_entropy(rng.normal(size=(9, 3)))
    with pytest.raises(ValueError, match="the batch has 1 models with D = 3, but 3 models with D = 3 were fitted"):
        density.relative_entropy(fd.RaggedBatch.from_list([rng.normal(size=(9, 3))]))
