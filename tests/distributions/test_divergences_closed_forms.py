"""Divergences of fitted densities against closed forms and numerical integration; the spread of their errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

import fastdens as fd

# Standard errors: far enough out that a right result passes on every fresh seed.
Z = 5


@pytest.fixture
def generator(seed):
    return torch.Generator().manual_seed(seed)


def gaussian_kl(mean_p, cov_p, mean_q, cov_q):
    """``1/2 (tr(Q^-1 P) + d' Q^-1 d - D + log det Q / det P)``."""
    difference = mean_q - mean_p
    log_det = np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
    solved = np.linalg.solve(cov_q, np.column_stack([cov_p, difference]))
    return 0.5 * (np.trace(solved[:, :-1]) + difference @ solved[:, -1] - len(mean_p) + log_det)


def full_covariances(models, d):
    covariances = models.covariances_
    return {
        "full": lambda: covariances[:, 0],
        "tied": lambda: covariances,
        "diag": lambda: torch.diag_embed(covariances[:, 0]),
        "spherical": lambda: covariances[:, 0, None, None] * torch.eye(d),
    }[models.covariance_type]().numpy()


def assert_scores_are_normal(z):
    """Independent z-scores: none far out, no common bias, and squares that sum to a chi-square."""
    assert np.abs(z).max() < Z
    assert abs(z.mean()) * np.sqrt(len(z)) < Z
    assert 1e-6 < scipy.stats.chi2(len(z)).cdf((z**2).sum()) < 1 - 1e-6


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_kl_of_fitted_gaussians(rng, generator, covariance_type):
    d, n_models = 4, 80
    classes = [
        rng.normal(size=(60, d)) @ (np.eye(d) + 0.2 * rng.normal(size=(d, d))) + 0.5 * rng.normal(size=d)
        for _ in range(n_models)
    ]
    models = fd.GaussianMixtures(1, covariance_type=covariance_type).fit(fd.RaggedBatch.from_list(classes))
    estimate = models.density().kl_matrix(1000, generator)
    means, covariances = models.means_[:, 0].numpy(), full_covariances(models, d)
    # One pair of each row: rows have draws of their own, pairs of a row do not.
    pairs = [(i, (i + 1 + int(rng.integers(n_models - 1))) % n_models) for i in range(n_models)]
    exact = np.array([gaussian_kl(means[i], covariances[i], means[j], covariances[j]) for i, j in pairs])
    rows, columns = np.array(pairs).T
    z = (estimate.value.numpy()[rows, columns] - exact) / estimate.standard_error.numpy()[rows, columns]
    assert_scores_are_normal(z)


def test_relative_entropy_of_correlated_gaussians(rng, generator):
    # Moments match those of the class, so that only the correlations are left: -1/2 log det of their matrix.
    classes = [rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + 10 * rng.normal(size=3) for _ in range(150)]
    batch = fd.RaggedBatch.from_list(classes)
    density = fd.GaussianMixtures(1, reg_covar=0, init_params="random").fit(batch).density()
    estimate = density.relative_entropy(batch, 2000, generator)
    exact = [-0.5 * np.linalg.slogdet(np.corrcoef(x, rowvar=False))[1] for x in classes]
    assert_scores_are_normal((estimate.value.numpy() - exact) / estimate.standard_error.numpy())
    models = fd.GaussianMixtures(1, covariance_type="diag", reg_covar=0, init_params="random").fit(batch)
    zero = models.density().relative_entropy(batch, 500, generator)
    assert (zero.value.abs() < 1e-9).all() and (zero.standard_error < 1e-9).all()


def mixtures(rng, d, n_models=3, n_components=3):
    """A density of mixtures, and the log-density of each as scipy has it."""
    weights = rng.dirichlet(np.full(n_components, 3.0), n_models)
    means = 1.5 * rng.normal(size=(n_models, n_components, d))
    roots = rng.normal(size=(n_models, n_components, d, 2 * d + 1)) / np.sqrt(2 * d + 1)
    covariances = roots @ roots.swapaxes(-1, -2) + 0.2 * np.eye(d)
    # precision = U U' with U upper triangular.
    factors = torch.linalg.solve_triangular(
        torch.linalg.cholesky(torch.from_numpy(covariances)).mT, torch.eye(d, dtype=torch.float64), upper=True
    )
    density = fd.GaussianMixtureDensity(torch.from_numpy(weights), torch.from_numpy(means), factors)

    def log_density(m, x):
        parts = [
            np.log(weights[m, k]) + scipy.stats.multivariate_normal(means[m, k], covariances[m, k]).logpdf(x)
            for k in range(n_components)
        ]
        return np.logaddexp.reduce(parts)

    return density, log_density


def test_kl_of_mixtures_in_one_dimension(rng, generator):
    density, log_density = mixtures(rng, 1)
    estimate = density.kl_matrix(20_000, generator)
    for i, j in [(0, 1), (1, 2), (2, 0)]:

        def integrand(x, i=i, j=j):
            log_p = log_density(i, x)
            return np.exp(log_p) * (log_p - log_density(j, x))

        exact, error = scipy.integrate.quad(integrand, -20, 20, points=[-4, -2, 0, 2, 4], limit=200)
        assert error < 1e-5
        assert abs(estimate.value[i, j] - exact) < Z * estimate.standard_error[i, j]


def test_divergences_of_mixtures_in_two_dimensions(rng, generator):
    density, log_density = mixtures(rng, 2)
    axis = np.linspace(-16, 16, 321)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    log_p = np.stack([log_density(m, grid) for m in range(3)])

    def integral(values):
        return scipy.integrate.simpson(scipy.integrate.simpson(values, x=axis), x=axis)

    np.testing.assert_allclose(integral(np.exp(log_p)), 1, rtol=1e-6)
    estimate = density.kl_matrix(20_000, generator)
    exact = integral(np.exp(log_p[:, None]) * (log_p[:, None] - log_p))
    assert (np.abs(estimate.value.numpy() - exact) <= Z * estimate.standard_error.numpy()).all()

    classes = [rng.normal(size=(40, 2)) @ rng.normal(size=(2, 2)) + rng.normal(size=2) for _ in range(3)]
    relative = density.relative_entropy(fd.RaggedBatch.from_list(classes), 20_000, generator)
    log_q = np.stack([scipy.stats.norm(x.mean(0), x.std(0)).logpdf(grid).sum(-1) for x in classes])
    exact = integral(np.exp(log_p) * (log_p - log_q))
    assert (np.abs(relative.value.numpy() - exact) <= Z * relative.standard_error.numpy()).all()
    entropy = density.entropy(20_000, generator)
    exact = -integral(np.exp(log_p) * log_p)
    assert (np.abs(entropy.value.numpy() - exact) <= Z * entropy.standard_error.numpy()).all()
