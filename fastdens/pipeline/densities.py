"""The densities that an analysis can fit to the classes of a layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import fastdens as fd
from fastdens.convergence import rhat_threshold
from fastdens.pipeline.options import AnalysisOptions, burn_in
from fastdens.pipeline.results import Chains

MAX_COMPONENTS = 6
_RELATIVE_REG_COVAR = 1e-3

INIT_COMPONENTS = 6


@dataclass(frozen=True)
class Fit:
    """The fitted densities of a layer's M classes.

    Attributes
    ----------
    models : DirichletProcessMixtures or GaussianMixtures
    log_density : ndarray
        float64 [N], of each training example under its class, in nats.
    n_components : ndarray
        float64 [M], components of each class (a mean where there are draws).
    chains : Chains or None
        None where the density was not sampled.
    """

    models: fd.DirichletProcessMixtures | fd.GaussianMixtures
    log_density: NDArray[np.float64]
    n_components: NDArray[np.float64]
    chains: Chains | None = None


class FitDensity(Protocol):
    """Fits a density to every class of a batch."""

    def __call__(self, batch: fd.RaggedBatch, options: AnalysisOptions, *, progress: bool = True) -> Fit:
        """The fit; ``progress`` shows a bar where it takes long."""


def fit_dirichlet_process_mixtures(batch: fd.RaggedBatch, options: AnalysisOptions, *, progress: bool = True) -> Fit:
    """Dirichlet-process mixtures by collapsed Gibbs sampling, with the paper's starts and burn-in.

    Parameters
    ----------
    batch : RaggedBatch
    options : AnalysisOptions
        ``chains``, ``sweeps``, ``thin`` and ``seed`` count.
    progress : bool
        Show a progress bar (needs rich).

    References
    ----------
    Jamroz & Kurdziel, Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional
    Networks, AAAI 2023.
    """
    dp = fd.DirichletProcessMixtures(
        n_sweeps=options.sweeps,
        burn_in=burn_in(options.sweeps),
        thin=options.thin,
        n_chains=options.chains,
        init_components=INIT_COMPONENTS,
        random_state=options.seed,
        progress=progress,
    )
    with warnings.catch_warnings():
        # The R-hat of each class says whether its chains agree.
        warnings.simplefilter("ignore", fd.ConvergenceWarning)
        dp.fit(batch)
    n_components, log_joint = dp.n_components_.cpu().numpy(), dp.log_joint_.cpu().numpy()
    n_draws = log_joint.shape[2]
    return Fit(
        dp,
        # A sampled density may give a few odd examples a component of their own, under which they are dense.
        dp.leave_one_out().cpu().numpy(),
        n_components.mean((1, 2)),
        Chains(
            n_components,
            log_joint,
            burn_in(options.sweeps) + options.thin * np.arange(1, n_draws + 1),
            dp.rhat_.cpu().numpy(),
            dp.effective_sample_size_.cpu().numpy(),
            rhat_threshold(options.chains, n_draws),
        ),
    )


def fit_gaussian_mixtures(batch: fd.RaggedBatch, options: AnalysisOptions, *, progress: bool = True) -> Fit:
    """Gaussian mixtures by EM, with one number of components for all classes.

    Parameters
    ----------
    batch : RaggedBatch
    options : AnalysisOptions
        ``components`` and ``seed`` count; without ``components`` the number with the least BIC, summed over classes.
    progress : bool
        Ignored: EM is quick.
    """
    # Components may not become narrower than a thousandth of the layer's mean variance.
    reg_covar = _RELATIVE_REG_COVAR * float(batch.points.double().var(0).mean())
    most = max(1, min(MAX_COMPONENTS, int(batch.sizes.min())))
    candidates = [options.components] if options.components else range(1, most + 1)
    fits = [
        fd.GaussianMixtures(k, reg_covar=reg_covar, n_init=2, max_iter=500, random_state=options.seed).fit(batch)
        for k in candidates
    ]
    best = min(fits, key=lambda fit: float(fit.bic(batch).sum()))
    log_density = best.score_samples(batch).double().cpu().numpy()
    return Fit(best, log_density, np.full(batch.n_models, float(best.n_components)))


DENSITIES: Mapping[str, FitDensity] = {"dp": fit_dirichlet_process_mixtures, "gmm": fit_gaussian_mixtures}
