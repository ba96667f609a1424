"""The densities that an analysis can fit to the classes of a layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import fastdens as fd
from fastdens import distributed
from fastdens.pipeline.options import AnalysisOptions, burn_in
from fastdens.pipeline.results import Chains
from fastdens.process_group import current_group

MAX_COMPONENTS = 6
_RELATIVE_REG_COVAR = 1e-3

INIT_COMPONENTS = 6

ClassModels: TypeAlias = fd.DirichletProcessMixtures | fd.GaussianMixtures
Models = TypeVar("Models", fd.DirichletProcessMixtures, fd.GaussianMixtures)


@dataclass(frozen=True)
class Fit:
    """The fitted densities of a layer's M classes.

    Attributes
    ----------
    models : DirichletProcessMixtures or GaussianMixtures
    n_components : ndarray
        float64 [M], components of each class (a mean where there are draws).
    chains : Chains or None
        None where the density was not sampled.
    """

    models: ClassModels
    n_components: NDArray[np.float64]
    chains: Chains | None = None


class FitDensity(Protocol):
    """Fits a density to every class of a batch."""

    def __call__(
        self,
        batch: fd.RaggedBatch,
        options: AnalysisOptions,
        *,
        progress: bool = True,
        checkpoint: Path | None = None,
    ) -> Fit:
        """The fit; ``progress`` shows a bar where it takes long, ``checkpoint`` is the file of an unfinished fit."""


def _fit(estimator: Models, batch: fd.RaggedBatch, checkpoint: Path | None = None) -> Models:
    """Fit in this process, its chains kept in a file, or on all ranks of the job, their models kept in a folder."""
    folder = None if checkpoint is None else checkpoint.with_suffix("")
    if current_group().size > 1 or (folder is not None and folder.exists()):
        return distributed.fit(estimator, batch, checkpoint=folder)
    options: dict[str, Any] = {} if checkpoint is None else {"checkpoint": checkpoint}
    return estimator.fit(batch, **options)


def fit_dirichlet_process_mixtures(
    batch: fd.RaggedBatch, options: AnalysisOptions, *, progress: bool = True, checkpoint: Path | None = None
) -> Fit:
    """Dirichlet-process mixtures by collapsed Gibbs sampling, with the paper's burn-in.

    Parameters
    ----------
    batch : RaggedBatch
        Points of the models to fit.
    options : AnalysisOptions
        ``seed`` and the options that belong to this density count.
    progress : bool
        Show a progress bar (in a terminal, needs rich).
    checkpoint : Path, optional
        File to which the chains are written while they are sampled, and from which they go on.

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
        init=options.init,
        init_components=INIT_COMPONENTS,
        split_merge="auto" if options.split_merge is None else options.split_merge,
        search=options.search,
        stop=options.stop,
        max_sweeps=options.max_sweeps,
        random_state=options.seed,
        progress=progress,
    )
    with warnings.catch_warnings():
        # The report names the classes whose chains do not agree.
        warnings.simplefilter("ignore", fd.ConvergenceWarning)
        _fit(dp, batch, checkpoint)
    n_components, n_sweeps, convergence = dp.n_components_.cpu().numpy(), dp.n_sweeps_.cpu().numpy(), dp.convergence_
    return Fit(
        dp,
        n_components.mean((1, 2)),
        Chains(
            n_components,
            dp.log_joint_.cpu().numpy(),
            kept_sweeps(n_sweeps, n_components.shape[2], options),
            n_sweeps,
            convergence.rhat.cpu().numpy(),
            convergence.effective_sample_size.cpu().numpy(),
            convergence.converged.cpu().numpy(),
            convergence.max_rhat,
            convergence.min_effective_sample_size,
            dp.split_merge_.cpu().numpy(),
        ),
    )


def kept_sweeps(n_sweeps: NDArray[np.int64], n_draws: int, options: AnalysisOptions) -> NDArray[np.int64]:
    """Sweeps after which the draws of each class were kept, int64 [M, S].

    The last draw follows the last sweep. Every round after the first makes twice as many sweeps as the one before, from
    which it keeps as many draws, twice as far apart.

    Parameters
    ----------
    n_sweeps : ndarray
        int64 [M], sweeps of each class.
    n_draws : int
        S.
    options : AnalysisOptions
        ``sweeps`` and ``thin`` count.
    """
    of_first_round = options.sweeps - burn_in(options.sweeps)
    # A round may end a few sweeps early, where its draws do not fill it; it is still the nearest whole number.
    further_rounds = np.rint(np.log2((n_sweeps - options.sweeps) / of_first_round + 2) - 1).astype(np.int64)
    distance = options.thin * 2**further_rounds
    sweeps: NDArray[np.int64] = n_sweeps[:, None] - distance[:, None] * np.arange(n_draws - 1, -1, -1)
    return sweeps


def fit_gaussian_mixtures(
    batch: fd.RaggedBatch, options: AnalysisOptions, *, progress: bool = True, checkpoint: Path | None = None
) -> Fit:
    """Gaussian mixtures by EM, with one number of components for all classes.

    Parameters
    ----------
    batch : RaggedBatch
        Points of the models to fit.
    options : AnalysisOptions
        ``components`` and ``seed`` count; without ``components`` the number with the least BIC, summed over classes.
    progress, checkpoint
        Ignored: EM is quick.
    """
    # Components may not become narrower than a thousandth of the layer's mean variance.
    reg_covar = _RELATIVE_REG_COVAR * float(batch.points.double().var(0).mean())
    most = max(1, min(MAX_COMPONENTS, int(batch.sizes.min())))
    candidates = [options.components] if options.components else range(1, most + 1)
    fits = [
        _fit(fd.GaussianMixtures(k, reg_covar=reg_covar, n_init=2, max_iter=500, random_state=options.seed), batch)
        for k in candidates
    ]
    best = min(fits, key=lambda fit: float(fit.bic(batch).sum()))
    return Fit(best, np.full(batch.n_models, float(best.n_components)))


DENSITIES: Mapping[str, FitDensity] = {"dp": fit_dirichlet_process_mixtures, "gmm": fit_gaussian_mixtures}
