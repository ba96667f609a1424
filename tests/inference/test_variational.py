"""Variational inference against scikit-learn, its bound against scipy, its predictive against Student's t."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from fastdens.kernels.layout import Layout
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart, data_prior
from fastdens.inference.variational import VariationalProblem, expected_log_weights, variational_inference
from fastdens.inference.variational_predictive import predictive
from tests.problems import relative_error


class Start(BayesianGaussianMixture):
    """scikit-learn's estimator from given responsibilities."""

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.resp)


def sklearn_fits(points, layout, resp, prior, alpha, **options):
    fits = []
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        peer = Start(
            n_components=resp.shape[1],
            weight_concentration_prior_type="dirichlet_process",
            weight_concentration_prior=alpha,
            mean_prior=prior.mean[m].numpy(),
            mean_precision_prior=prior.kappa,
            degrees_of_freedom_prior=prior.nu,
            covariance_prior=np.diag(prior.scale_diagonal[m].numpy()),
            reg_covar=0,
            **options,
        )
        peer.resp = resp[start:stop].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fits.append(peer.fit(points[start:stop].numpy()))
    return fits


def layout_of(offsets):
    return Layout.from_offsets(torch.tensor(offsets), int(offsets[-1]))


def infer(points, layout, resp, prior, *, tol=1e-3, max_iter=100, **options):
    """Everything that inference found, by name."""
    found = variational_inference(
        VariationalProblem(points, layout, prior, **options), resp, tol=tol, max_iter=max_iter
    )
    state, info = found.state, found.info
    return SimpleNamespace(
        **{**info._asdict(), **state._asdict()},
        state=state,
        weights=state.weights,
        n_iter=found.n_iter,
        converged=found.converged,
    )


def clusters(rng, sizes, d, n_components=4, shift=0.0):
    """Models of three clusters each, their layout, and random responsibilities."""
    model = np.repeat(np.arange(len(sizes)), sizes)
    centres = 3 * rng.normal(size=(len(sizes), 3, d))
    x = shift + centres[model, rng.integers(0, 3, size=len(model))] + rng.normal(size=(len(model), d))
    resp = rng.dirichlet(np.full(n_components, 0.5), size=len(model))
    return torch.from_numpy(x), layout_of([0, *np.cumsum(sizes)]), torch.from_numpy(resp)


def classes(load, rng, n_components):
    x, y = load(return_X_y=True)
    order = np.argsort(y, kind="stable")
    resp = rng.dirichlet(np.full(n_components, 0.5), size=len(y))
    layout = layout_of([0, *np.bincount(y).cumsum()])
    return torch.from_numpy(x[order].astype(float)), layout, torch.from_numpy(resp)


def bits(posterior):
    return [value for value in vars(posterior).values() if isinstance(value, torch.Tensor)]


def check_against_sklearn(result, peers):
    for m, peer in enumerate(peers):
        assert int(result.n_iter[m]) == peer.n_iter_
        assert bool(result.converged[m]) == peer.converged_
        assert float(result.lower_bound[m]) == pytest.approx(peer.lower_bound_, rel=1e-9)
        a, b = result.stick_a, result.stick_b
        pairs = {
            "a": (a, peer.weight_concentration_[0]),
            "b": (b, peer.weight_concentration_[1]),
            "mean_precision": (result.mean_precision, peer.mean_precision_),
            "degrees_of_freedom": (result.degrees_of_freedom, peer.degrees_of_freedom_),
            "means": (result.means, peer.means_),
            "covariances": (result.covariances, peer.covariances_),
            "precisions_cholesky": (result.precisions_cholesky, peer.precisions_cholesky_),
            "weights": (result.weights, peer.weights_),
        }
        for name, (value, expected) in pairs.items():
            np.testing.assert_allclose(value[m], expected, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("data", ["ragged", "one feature", "iris", "digits"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_agrees_with_sklearn(rng, backend, data):
    if data == "ragged":
        points, layout, resp = clusters(rng, [60, 12, 133], 3)
    elif data == "one feature":
        points, layout, resp = clusters(rng, [40, 9], 1)
    else:
        points, layout, resp = classes(load_iris if data == "iris" else load_digits, rng, 3)
    prior = data_prior(points, layout)
    # Some pixels of digits never change.
    prior = prior._replace(scale_diagonal=prior.scale_diagonal.clamp_min(1e-2))
    alpha = float(rng.gamma(2.0))
    options = {"tol": 1e-3, "max_iter": 30}
    result = infer(points, layout, resp, prior, alpha=alpha, backend=backend, **options)
    assert not result.bad.any()
    assert (result.alpha == alpha).all()
    check_against_sklearn(result, sklearn_fits(points, layout, resp, prior, alpha, **options))


def test_models_converge_each_by_itself(rng):
    points, layout, resp = clusters(rng, [60, 12, 133, 30], 2)
    prior = data_prior(points, layout)
    options = {"tol": 1e-2, "max_iter": 1000}
    result = infer(points, layout, resp, prior, alpha=1.0, **options)
    assert result.converged.all()
    assert len(set(result.n_iter.tolist())) > 1
    check_against_sklearn(result, sklearn_fits(points, layout, resp, prior, 1.0, **options))


@pytest.mark.parametrize("alpha", [0.7, None])
def test_triton_agrees_with_reference(rng, alpha):
    points, layout, resp = clusters(rng, [7, 1, 12], 2, 3)
    prior = data_prior(points, layout)._replace(scale_diagonal=torch.ones(3, 2, dtype=torch.float64))
    options = {"alpha": alpha, "tol": 0.0, "max_iter": 3}
    want = infer(points, layout, resp, prior, backend="reference", **options)
    got = infer(points, layout, resp, prior, backend="triton", **options)
    for a, b in zip(bits(got), bits(want), strict=True):
        assert relative_error(a, b) < 1e-10


@pytest.mark.parametrize("alpha", [0.7, None])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_float32_agrees_with_float64(rng, backend, alpha):
    # As the caller passes them: each model about a point of its own.
    points, layout, resp = clusters(rng, [60, 12, 133], 5)
    prior = data_prior(points, layout)
    options = {"alpha": alpha, "tol": 0.0, "max_iter": 4, "backend": backend}
    want = infer(points, layout, resp, prior, **options)
    got = infer(points.float(), layout, resp.float(), prior, **options)
    assert got.means.dtype == got.covariances.dtype == got.precisions_cholesky.dtype == torch.float32
    assert got.lower_bound.dtype == got.mean_precision.dtype == got.weights.dtype == torch.float64
    for name in ("means", "weights", "alpha", "degrees_of_freedom", "lower_bound"):
        assert relative_error(getattr(got, name), getattr(want, name)) < 1e-3, name
    assert relative_error(got.covariances, want.covariances) < 1e-3


def test_many_dimensions_in_float32_with_components_left_empty(rng):
    points, layout, resp = clusters(rng, [40, 25], 64)
    resp = torch.nn.functional.one_hot(resp[:, :2].argmax(1), 4).double()
    prior = data_prior(points, layout)
    options = {"alpha": 1.0, "max_iter": 3}
    result = infer(points.float(), layout, resp.float(), prior, **options)
    # An empty component has kappa = kappa0: D / (2 kappa0) = 3200 is in its log-weight, which no exponential holds.
    assert (expected_log_weights(result.state).min(1).values < -3000).all()
    assert not result.bad.any()
    assert torch.isfinite(result.lower_bound).all()
    want = infer(points, layout, resp, prior, **options)
    assert relative_error(result.weights, want.weights) < 1e-4
    assert relative_error(result.lower_bound, want.lower_bound) < 1e-4


def full_lower_bound(points, resp, posterior, m, prior, alpha_prior, shape, rate):
    """``E[log p] - E[log q]`` of model m term by term, with every constant; q(alpha) is Gamma(shape, rate)."""
    x, r, d = points.numpy(), resp.numpy(), points.shape[1]
    a, b = (stick[m].numpy() for stick in (posterior.stick_a, posterior.stick_b))
    kappa, nu = posterior.mean_precision[m].numpy(), posterior.degrees_of_freedom[m].numpy()
    total = scipy.stats.gamma.entropy(shape, scale=1 / rate) + scipy.special.entr(r).sum()
    mean_alpha, mean_log_alpha = shape / rate, scipy.special.digamma(shape) - np.log(rate)
    s1, s2 = alpha_prior
    total += s1 * np.log(s2) - scipy.special.gammaln(s1) + (s1 - 1) * mean_log_alpha - s2 * mean_alpha
    log_stick = scipy.special.digamma(a) - scipy.special.digamma(a + b)
    log_left = scipy.special.digamma(b) - scipy.special.digamma(a + b)
    total += (mean_log_alpha + (mean_alpha - 1) * log_left + scipy.stats.beta.entropy(a, b)).sum()
    scale0, mean0 = prior.scale_diagonal[m].numpy(), prior.mean[m].numpy()
    log_z0 = (
        0.5 * prior.nu * (d * np.log(2) - np.log(scale0).sum())
        + scipy.special.multigammaln(prior.nu / 2, d)
        + 0.5 * d * np.log(2 * np.pi)
    )
    for k in range(r.shape[1]):
        w = np.linalg.inv(nu[k] * posterior.covariances[m, k].numpy())
        mean = posterior.means[m, k].numpy()
        log_det = scipy.special.digamma((nu[k] - np.arange(d)) / 2).sum() + d * np.log(2) + np.linalg.slogdet(w)[1]
        square = d / kappa[k] + nu[k] * np.einsum("ni,ij,nj->n", x - mean, w, x - mean)
        log_lik = 0.5 * (log_det - square - d * np.log(2 * np.pi))
        total += r[:, k] @ (log_lik + log_stick[k] + log_left[:k].sum())
        square = d / kappa[k] + nu[k] * (mean - mean0) @ w @ (mean - mean0)
        total += 0.5 * (d * np.log(prior.kappa) + log_det - prior.kappa * square) - log_z0
        total += 0.5 * ((prior.nu - d - 1) * log_det - nu[k] * np.trace(np.diag(scale0) @ w))
        # The entropies of mu given Lambda and of Lambda.
        total += 0.5 * (d * np.log(2 * np.pi) + d - d * np.log(kappa[k]) - log_det)
        total += scipy.stats.wishart.entropy(nu[k], w)
    return total


def dropped_constant(n_points, n_components, m, prior):
    """What the lower bound leaves out, as scikit-learn does: log-normalisers of the prior and of the Gaussians."""
    d = prior.mean.shape[1]
    log_z0 = (
        0.5 * prior.nu * (d * np.log(2) - float(prior.scale_diagonal[m].log().sum()))
        + scipy.special.gammaln((prior.nu - np.arange(d)) / 2).sum()
        - 0.5 * d * np.log(prior.kappa)
    )
    return -n_components * log_z0 - 0.5 * n_points * d * np.log(2 * np.pi)


def last_step(points, layout, resp, prior, **options):
    """Result of three iterations, and the responsibilities and the mean alpha of its last E step."""
    options = {"tol": 0.0, **options}
    before = infer(points, layout, resp, prior, max_iter=2, **options)
    weights = expected_log_weights(before.state)
    e_step = kernels.responsibilities(
        points, layout, weights, before.means, before.precisions_cholesky, log_weights=True
    )
    return infer(points, layout, resp, prior, max_iter=3, **options), e_step.resp


@pytest.mark.parametrize("alpha_prior", [(1.0, 1.0), (2.5, 0.4)])
@pytest.mark.parametrize("d", [1, 3])
def test_lower_bound_and_alpha_are_those_of_the_formula(rng, d, alpha_prior):
    points, layout, resp = clusters(rng, [50, 31], d)
    prior = data_prior(points, layout)
    result, resp = last_step(points, layout, resp, prior, alpha=None, alpha_prior=alpha_prior)
    n_components = resp.shape[1]
    for m, (start, stop) in enumerate(layout.ranges.tolist()):

        def bound(shape, rate, m=m, rows=slice(start, stop)):
            return full_lower_bound(points[rows], resp[rows], result, m, prior, alpha_prior, shape, rate)

        shape = alpha_prior[0] + n_components
        rate = shape / float(result.alpha[m])
        best = bound(shape, rate)
        constant = dropped_constant(stop - start, n_components, m, prior)
        assert float(result.lower_bound[m]) + constant == pytest.approx(best, rel=1e-9, abs=1e-8)
        found = scipy.optimize.minimize(
            lambda log: -bound(*np.exp(log)),
            np.zeros(2),
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-10},
        )
        assert -found.fun <= best + 1e-8
        np.testing.assert_allclose(np.exp(found.x), [shape, rate], rtol=1e-3)


def test_a_sure_alpha_is_a_fixed_one(rng):
    points, layout, resp = clusters(rng, [40, 25], 2)
    prior = data_prior(points, layout)
    options = {"tol": 0.0, "max_iter": 5}
    fixed = infer(points, layout, resp, prior, alpha=0.5, **options)
    sure = infer(points, layout, resp, prior, alpha=None, alpha_prior=(5e9, 1e10), **options)
    torch.testing.assert_close(sure.alpha, fixed.alpha, rtol=1e-7, atol=0)
    torch.testing.assert_close(sure.means, fixed.means, rtol=1e-6, atol=1e-6)
    # The bound with alpha given leaves out log B(1, alpha) of each stick.
    expected = fixed.lower_bound + resp.shape[1] * np.log(0.5)
    torch.testing.assert_close(sure.lower_bound, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.3, None])
def test_lower_bound_never_decreases(rng, alpha):
    points, layout, resp = clusters(rng, [60, 12, 133, 1], 3)
    prior = data_prior(points, layout)
    prior = prior._replace(scale_diagonal=prior.scale_diagonal.clamp_min(0.1))
    options = {"alpha": alpha, "tol": 0.0}
    bounds = torch.stack([infer(points, layout, resp, prior, max_iter=i, **options).lower_bound for i in range(1, 25)])
    gain = bounds.diff(dim=0)
    assert (gain > -1e-9 * bounds.abs().max()).all()
    assert (gain[0] > 0).all()


@pytest.mark.parametrize("alpha", [1.0, None])
def test_one_component_is_the_exact_posterior(rng, alpha):
    """With T = 1, N = 1 or more, the components are those of the conjugate posterior, in closed form."""
    points, layout, _ = clusters(rng, [1, 1, 17], 1)
    prior = NormalInverseWishart(torch.zeros(3, 1).double(), torch.ones(3, 1).double(), 0.3, 2.5)
    result = infer(points, layout, torch.ones(len(points), 1).double(), prior, alpha=alpha)
    assert result.converged.all()
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        x = points[start:stop].numpy()
        n, mean = len(x), x.mean()
        assert float(result.degrees_of_freedom[m, 0]) == pytest.approx(2.5 + n)
        assert float(result.mean_precision[m, 0]) == pytest.approx(0.3 + n)
        assert float(result.means[m, 0, 0]) == pytest.approx(n * mean / (0.3 + n))
        scale = 1 + np.square(x - mean).sum() + 0.3 * n / (0.3 + n) * mean**2
        assert float(result.covariances[m, 0, 0, 0]) == pytest.approx(scale / (2.5 + n))
        assert float(result.weights[m, 0]) == 1


@pytest.mark.parametrize("alpha", [1.0, None])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bad_model_leaves_its_neighbours_bit_for_bit(rng, dtype, backend, alpha):
    points, layout, resp = clusters(rng, [60, 12, 133, 21, 40], 3)
    points, resp = points.to(dtype), resp.to(dtype)
    prior = data_prior(points, layout)
    options = {"alpha": alpha, "tol": 1e-2, "max_iter": 20, "backend": backend}
    clean = infer(points, layout, resp, prior, **options)
    points[65] = float("nan")
    points[60 + 12 + 133 :][:21] = 0  # all points alike: the scale of the prior is zero
    poisoned = infer(points, layout, resp, data_prior(points, layout), **options)
    assert poisoned.bad.tolist() == [False, True, False, True, False]
    assert not poisoned.converged[[1, 3]].any()
    for a, b in zip(bits(clean), bits(poisoned), strict=True):
        assert torch.equal(a[[0, 2, 4]], b[[0, 2, 4]])


@pytest.mark.parametrize("alpha", [1.0, None])
def test_same_bits_alone(rng, alpha):
    points, layout, resp = clusters(rng, [60, 12, 133], 3, 5)
    prior = data_prior(points, layout)
    options = {"alpha": alpha, "tol": 1e-2, "max_iter": 20}
    together = infer(points, layout, resp, prior, **options)
    for m in range(3):
        alone = infer(points, layout.select(slice(m, m + 1)), resp, prior.select(torch.tensor([m])), **options)
        for a, b in zip(bits(together), bits(alone), strict=True):
            assert torch.equal(a[m : m + 1], b)


def test_without_iterations_it_is_the_m_step(rng):
    points, layout, resp = clusters(rng, [60, 12], 2)
    prior = data_prior(points, layout)
    result = infer(points, layout, resp, prior, alpha=2.0, max_iter=0)
    assert result.n_iter.tolist() == [0, 0]
    assert not result.converged.any()
    assert (result.lower_bound == -torch.inf).all()
    check_against_sklearn(result, sklearn_fits(points, layout, resp, prior, 2.0, max_iter=0))


def student_t_mixture(parts, m, x):
    """Log-density of model m by scipy, from the parts as they are defined."""
    columns = []
    for k in range(parts.locations.shape[1]):
        factor = parts.scale_precisions_cholesky[m, k].numpy()
        assert np.array_equal(factor, np.triu(factor))
        t = scipy.stats.multivariate_t(
            parts.locations[m, k], np.linalg.inv(factor @ factor.T), float(parts.degrees_of_freedom[m, k])
        )
        columns.append(float(parts.log_weights[m, k]) + t.logpdf(x).reshape(-1))
    return scipy.special.logsumexp(columns, 0)


@pytest.mark.parametrize("alpha", [0.8, None])
@pytest.mark.parametrize("d", [1, 3])
def test_predictive_is_a_mixture_of_student_t(rng, d, alpha):
    points, layout, resp = clusters(rng, [60, 12], d)
    prior = data_prior(points, layout, nu0=d + 1.5)
    result = infer(points, layout, resp, prior, alpha=alpha)
    parts = predictive(result.state, prior)
    torch.testing.assert_close(parts.log_weights.exp().sum(1), torch.ones(2).double(), rtol=1e-12, atol=0)
    # What the sticks leave aside, the weights are scikit-learn's.
    inside = parts.log_weights[:, :-1].softmax(1)
    torch.testing.assert_close(inside, result.weights, rtol=1e-10, atol=1e-14)
    x = 3 * rng.normal(size=(9, d))
    for m in range(2):
        a, b = (stick[m].numpy() for stick in (result.stick_a, result.stick_b))
        left, density = 1.0, np.zeros(len(x))
        for k in range(resp.shape[1]):
            kappa, nu = float(result.mean_precision[m, k]), float(result.degrees_of_freedom[m, k])
            scale = nu * result.covariances[m, k].numpy() * (1 + kappa) / (kappa * (nu + 1 - d))
            t = scipy.stats.multivariate_t(result.means[m, k], scale, nu + 1 - d)
            density += left * a[k] / (a[k] + b[k]) * t.pdf(x).reshape(-1)
            left *= b[k] / (a[k] + b[k])
        scale = np.diag(prior.scale_diagonal[m]) * (1 + prior.kappa) / (prior.kappa * 2.5)
        density += left * scipy.stats.multivariate_t(prior.mean[m], scale, 2.5).pdf(x).reshape(-1)
        np.testing.assert_allclose(student_t_mixture(parts, m, x), np.log(density), rtol=1e-9)


def test_predictive_integrates_to_one(rng):
    points, layout, resp = clusters(rng, [60, 12], 1)
    prior = data_prior(points, layout)
    parts = predictive(infer(points, layout, resp, prior, alpha=None).state, prior)
    for m in range(2):
        # On the whole line, by x = tan(u).
        mass, _ = scipy.integrate.quad(
            lambda u, m=m: np.exp(student_t_mixture(parts, m, np.tan([[u]])))[0] / np.cos(u) ** 2,
            -np.pi / 2,
            np.pi / 2,
            limit=400,
            epsabs=1e-7,
        )
        assert mass == pytest.approx(1, abs=1e-6)
