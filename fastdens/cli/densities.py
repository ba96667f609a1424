"""The densities that ``fastdens analyze`` fits to the classes of a stage, and what fitting them tells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastdens as fd
from fastdens.convergence import rhat_threshold

MAX_COMPONENTS = 6
_RELATIVE_REG_COVAR = 1e-3

INIT_COMPONENTS = 6
# Split R-hat needs so many kept draws, and a fifth of the sweeps holds them.
_FEWEST_DRAWS = 4


class Chains(NamedTuple):
    """What the chains of a stage's classes kept.

    ``n_components`` int32 and ``log_joint`` float64 are [M, C, S], ``sweeps`` int64 [S]; split R-hat and effective
    sample size of the log-joint are float64 [M]; chains agree whose R-hat is at most ``limit``.
    """

    n_components: NDArray[np.int32]
    log_joint: NDArray[np.float64]
    sweeps: NDArray[np.int64]
    rhat: NDArray[np.float64]
    effective_sample_size: NDArray[np.float64]
    limit: float

    @property
    def n_agreeing(self) -> int:
        """Number of classes whose chains agree."""
        return int((self.rhat <= self.limit).sum())


class Fit(NamedTuple):
    """Models of a stage's classes, the log-density [N] of each training example under its class, the number of
    components of each class [M], float64 (a mean where there are draws), and the chains that they come from, None where
    there are none.
    """

    models: fd.DirichletProcessMixtures | fd.GaussianMixtures
    log_density: NDArray[np.float64]
    n_components: NDArray[np.float64]
    chains: Chains | None = None


class Density(NamedTuple):
    """A density to fit: ``fit(batch, seed, **options)``, where ``options`` are those that only it has, by default."""

    fit: Callable[..., Fit]
    options: Mapping[str, int | None]


def burn_in(sweeps: int) -> int:
    """Sweeps of a chain before the first that may be kept: four fifths, the paper's 320 of 400."""
    return 4 * sweeps // 5


def fit_dirichlet_process_mixtures(batch: fd.RaggedBatch, seed: int, *, chains: int, sweeps: int, thin: int) -> Fit:
    """Dirichlet-process mixtures by collapsed Gibbs sampling, kept and started as in the paper.

    Raises
    ------
    ValueError
        If the sweeps are too few for split R-hat.

    References
    ----------
    Jamroz & Kurdziel, Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional
    Networks, AAAI 2023.
    """
    dp = fd.DirichletProcessMixtures(
        n_sweeps=sweeps,
        burn_in=burn_in(sweeps),
        thin=thin,
        n_chains=chains,
        init_components=INIT_COMPONENTS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Whether chains agree is said of every class by its R-hat.
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
            burn_in(sweeps) + thin * np.arange(1, n_draws + 1),
            dp.rhat_.cpu().numpy(),
            dp.effective_sample_size_.cpu().numpy(),
            rhat_threshold(chains, n_draws),
        ),
    )


def fit_gaussian_mixtures(batch: fd.RaggedBatch, seed: int, *, components: int | None) -> Fit:
    """Mixtures of the given number of components, or of the number whose BIC, summed over classes, is least."""
    # Components may not become narrower than a thousandth of the layer's mean variance.
    reg_covar = _RELATIVE_REG_COVAR * float(batch.points.double().var(0).mean())
    candidates = [components] if components else range(1, min(MAX_COMPONENTS, int(batch.sizes.min())) + 1)
    fits = [
        fd.GaussianMixtures(k, reg_covar=reg_covar, n_init=2, max_iter=500, random_state=seed).fit(batch)
        for k in candidates or [1]
    ]
    best = min(fits, key=lambda fit: float(fit.bic(batch).sum()))
    log_density = best.score_samples(batch).double().cpu().numpy()
    return Fit(best, log_density, np.full(batch.n_models, float(best.n_components)))


DENSITIES = {
    "dp": Density(fit_dirichlet_process_mixtures, {"chains": 4, "sweeps": 400, "thin": 4}),
    "gmm": Density(fit_gaussian_mixtures, {"components": None}),
}


def density_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a density: those given, else its defaults.

    Raises
    ------
    ValueError
        If there is no such density, or an option is given that belongs to another.
    """
    if name not in DENSITIES:
        raise ValueError(f"there is no density {name!r}: it must be one of {', '.join(DENSITIES)}.")
    for other, density in DENSITIES.items():
        for option in density.options:
            if other != name and given[option] is not None:
                raise ValueError(f"--{option} is for --density {other}, but the density is {name}: leave it out.")
    own = {
        option: default if given[option] is None else given[option]
        for option, default in DENSITIES[name].options.items()
    }
    sweeps, thin = own.get("sweeps"), own.get("thin")
    if sweeps is not None and thin is not None and (sweeps - burn_in(sweeps)) // thin < _FEWEST_DRAWS:
        raise ValueError(
            f"--sweeps is {sweeps}, but split R-hat needs {_FEWEST_DRAWS} draws of the last fifth, one every {thin} "
            f"sweeps: raise it to {5 * _FEWEST_DRAWS * thin}, or lower --thin."
        )
    return own
