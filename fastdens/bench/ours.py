"""What fastdens does for each operation, as :mod:`fastdens.bench.peers` has it for other libraries.

Every estimator is used as its documentation says, with the backend that it chooses itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastdens as fd
from fastdens import kernels
from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import inertia, mean_log_likelihood
from fastdens.bench.parameters import parameters_of, precisions_cholesky
from fastdens.bench.peers.given import labels_of, queries_of
from fastdens.bench.prior import KAPPA0
from fastdens.distributions.niw import data_prior
from fastdens.inference.gibbs import stream_keys
from fastdens.kernels.gibbs import GibbsSweeps

SETTLING_SWEEPS = 20
"""Sweeps of every chain before those that are timed."""

N_CHAINS, MAX_RHAT = 4, 1.05
"""Chains of each model that run until they agree, and the R-hat at which they do."""

N_FACTORS = 8
"""Factors of a factor analyser."""


def batch_of(points: Tensor) -> fd.RaggedBatch:
    """Points [M, N, D] as a batch, without a copy."""
    m, n, d = points.shape
    offsets = n * torch.arange(m + 1, device=points.device)
    index = torch.arange(m * n, device=points.device)
    return fd.RaggedBatch(points.reshape(m * n, d), offsets, index, tuple(range(m)))


def em(case: Case) -> Run:
    """``n_iter`` iterations of EM from the parameters of the start, all models in one fit."""
    start = parameters_of(case.start, case.variant)
    precisions = start.covariances.reciprocal()
    if case.variant in ("full", "tied"):
        factors = precisions_cholesky(start.covariances)
        precisions = factors @ factors.mT
    estimator = fd.GaussianMixtures(
        case.problem.n_components,
        covariance_type=case.variant,
        tol=0,
        max_iter=case.n_iter,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=precisions,
    )
    return Run(partial(estimator.fit, batch_of(case.points)), lambda fitted: _likelihood(case, fitted))


def _likelihood(case: Case, fitted: Any) -> Tensor:
    """Mean log-likelihood of the fitted parameters, [M]."""
    return mean_log_likelihood(case.points, Parameters(fitted.weights_, fitted.means_, fitted.covariances_))


def factors(case: Case) -> Run:
    """EM of factor analysers, from its own start."""
    estimator = fd.FactorAnalyserMixtures(
        case.problem.n_components, n_factors=N_FACTORS, tol=0, max_iter=case.n_iter, random_state=0
    )
    return Run(partial(estimator.fit, batch_of(case.points)), lambda fitted: fitted.lower_bound_.double())


def start(case: Case) -> Run:
    """k-means++ alone, or k-means++ and ``n_iter`` iterations of k-means."""
    batch, k = batch_of(case.points), case.problem.n_components
    if case.variant == "kmeans":
        return Run(
            partial(kernels.kmeans, batch.points, batch.layout, k, 0, max_iter=case.n_iter, tol=0),
            lambda found: inertia(case.points, found.centres),
        )
    return Run(
        partial(kernels.kmeans_plusplus, batch.points, batch.layout, k, 0),
        lambda rows: inertia(case.points, batch.points[rows]),
    )


def density_of(start: Parameters) -> fd.GaussianMixtureDensity:
    """The density of given parameters, full covariances."""
    factor = kernels.precision_cholesky(start.covariances)[0]
    return fd.GaussianMixtureDensity(start.weights, start.means, factor)


def log_prob(case: Case) -> Run:
    """Log-density of every query under every model."""
    assert case.start is not None
    density = density_of(case.start)
    return Run(partial(density.log_prob, queries_of(case)), lambda found: found.double())


def kl(case: Case) -> Run:
    """Monte Carlo estimate of the divergence of each model from the next, from ``n_iter`` draws of it."""
    assert case.start is not None
    own, following = density_of(case.start), density_of(Parameters(*(part.roll(-1, 0) for part in case.start)))
    generator = torch.Generator().manual_seed(0)

    def work() -> Tensor:
        drawn = batch_of(own.sample_components(case.n_iter, generator)[0])
        ratio = own.score_samples(drawn).double() - following.score_samples(drawn).double()
        return ratio.reshape(case.problem.n_models, -1).mean(1)

    return Run(work, lambda found: found)


class _Chains(NamedTuple):
    """One chain of every model that can go on, from its labels and its alpha."""

    batch: fd.RaggedBatch
    n_components: int
    labels: Tensor
    alpha: Tensor

    def sweeps(self, n_sweeps: int) -> GibbsSweeps:
        """``n_sweeps`` sweeps, the labels of each kept."""
        points, layout = self.batch.points, self.batch.layout
        prior = data_prior(points, layout, KAPPA0, init_components=self.n_components)
        keys = stream_keys(points, layout, 1, 0)
        state = (self.labels, self.alpha, keys, prior.mean, prior.scale_diagonal)
        return kernels.gibbs_sweep(points, layout, *state, kappa0=prior.kappa, nu0=prior.nu, n_sweeps=n_sweeps)


def _chains_from(case: Case) -> _Chains:
    alpha = torch.ones(case.problem.n_models, 1, dtype=torch.float64, device=case.points.device)
    return _Chains(batch_of(case.points), case.problem.n_components, labels_of(case).reshape(1, -1).int(), alpha)


def settled(case: Case) -> Case:
    """The case with the labels that its chains have after some sweeps, so that few points still move."""
    labels = _chains_from(case).sweeps(SETTLING_SWEEPS).labels[-1, 0].long()
    return replace(case, labels=labels.reshape(case.problem.n_models, -1))


def gibbs(case: Case) -> Run:
    """Collapsed Gibbs sweeps of one chain of every model, without split-merge moves."""
    chains = _chains_from(case)

    def outcome(done: GibbsSweeps) -> Tensor:
        last = done.n_components[:, 0, case.n_iter // 2 :]
        return last.double().mean(1)

    return Run(partial(chains.sweeps, case.n_iter), outcome)


def chains(case: Case) -> Run:
    """Four chains of every model, from overdispersed starts until they agree."""
    estimator = fd.DirichletProcessMixtures(
        n_sweeps=case.n_iter,
        burn_in=case.n_iter * 3 // 4,
        thin=1,
        n_chains=N_CHAINS,
        stop="converged",
        max_rhat=MAX_RHAT,
        progress=False,
    )

    def outcome(fitted: fd.DirichletProcessMixtures) -> Tensor:
        return fitted.convergence_.converged.double()

    return Run(partial(estimator.fit, batch_of(case.points)), outcome)


def variational(case: Case) -> Run:
    """Coordinate ascent from the labels: K components, a concentration of one, the prior that all libraries have."""
    k = case.problem.n_components
    estimator = fd.VariationalDirichletProcessMixtures(
        truncation=k,
        init_components=k,
        labels_init=labels_of(case).flatten(),
        alpha=1.0,
        kappa0=KAPPA0,
        tol=0,
        max_iter=case.n_iter,
    )
    return Run(partial(estimator.fit, batch_of(case.points)), lambda fitted: _likelihood(case, fitted))


def neighbours(case: Case) -> Run:
    """Distance of each query to its k-th neighbour, k = ``n_iter``, among the points of all models."""
    everything = case.points.reshape(-1, case.problem.n_features)
    detector = fd.ood.NearestNeighbours(case.n_iter, normalize=False).fit(everything)
    return Run(partial(detector.score, queries_of(case)), lambda found: found.double())


def scores(case: Case) -> Run:
    """Squared Mahalanobis distance of each query to the nearest model, fit included: the models are the classes."""
    everything = case.points.reshape(-1, case.problem.n_features)
    labels = torch.arange(case.problem.n_models, device=everything.device).repeat_interleave(case.problem.n_points)

    def work() -> Tensor:
        return fd.ood.Mahalanobis().fit(everything, labels).score(queries_of(case))

    return Run(work, lambda found: found.double())


OURS = Peer(
    "fastdens",
    f"fastdens=={fd.__version__}",
    "fastdens",
    "",
    {
        "em": em,
        "factors": factors,
        "start": start,
        "log_prob": log_prob,
        "gibbs": gibbs,
        "chains": chains,
        "variational": variational,
        "kl": kl,
        "neighbours": neighbours,
        "scores": scores,
    },
)
