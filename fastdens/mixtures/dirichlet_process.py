"""Dirichlet-process Gaussian mixtures for a batch of models: collapsed Gibbs sampling, or variational inference."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch, as_points
from fastdens.convergence import effective_sample_size, rhat_threshold, split_rhat, to_arviz
from fastdens.distributions.niw import NormalInverseWishart, data_prior
from fastdens.distributions.posterior_predictive import WEIGHTS, leave_one_out, posterior_predictive
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.errors import (
    ConvergenceWarning,
    bad_models,
    check_batch,
    check_integer,
    check_non_negative,
    raise_failed,
)
from fastdens.inference.gibbs import (
    ChainProblem,
    ChainState,
    Draws,
    join_draws,
    random_labels,
    sample,
    stream_keys,
)
from fastdens.inference.variational import (
    VariationalResult,
    expected_log_weights,
    predictive,
    variational_inference,
)
from fastdens.io.checkpoints import read_checkpoint, write_checkpoint
from fastdens.io.state_file import fingerprint
from fastdens.kernels.layout import bounded_runs
from fastdens.kernels.options import BACKENDS, MATMUL_PRECISIONS, check_choice
from fastdens.progress import progress_bar

METHODS = ("gibbs", "vb")

# A density is made of as many models at a time as keep its matrices under this many numbers.
_MAX_PREDICTIVE_ELEMENTS = 1 << 26
RESUMABLE = (
    "kappa0",
    "nu0",
    "alpha_prior",
    "alpha",
    "n_chains",
    "burn_in",
    "thin",
    "init_components",
    "random_state",
)


class DirichletProcessMixtures:
    """Infinite mixtures of Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`.

    A Dirichlet process with concentration alpha and a normal-inverse-Wishart base measure: m0 is the sample mean, S0
    the diagonal of the sample variances (divisor n) over ``init_components ** (2 / D)``, and alpha has a gamma prior.

    Parameters
    ----------
    method : {"gibbs", "vb"}
        Collapsed Gibbs sampling, one point at a time in an order drawn anew for each sweep; or truncated stick-breaking
        variational inference, for fits that need no samples or are too large for sampling.
    n_sweeps, burn_in, thin : int
        (gibbs) Sweeps of each chain; after the first ``burn_in`` every ``thin``-th is kept:
        S = (n_sweeps - burn_in) // thin.
    n_chains : int
        (gibbs) Chains C of each model.
    init_components : int
        K0, clusters to which points are assigned at random at the start (gibbs), and the divisor of the prior's scale.
    kappa0 : float
        How many points the prior mean is worth.
    nu0 : float, optional
        Degrees of freedom of the prior, greater than D - 1; D + 2 by default.
    alpha_prior : (float, float)
        Shape and rate of the gamma prior of alpha.
    alpha : float, optional
        Keep alpha at this value.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    progress : bool
        (gibbs) Show sweeps, models and mean log-joint while sampling (needs rich).
    on_error : {"raise", "skip"}
        What to do about models that cannot be fitted: name them in a :class:`~fastdens.ModelError`, or fit all others
        and note those in ``failed_`` and ``failures_``; their floating-point attributes are NaN, their labels -1.
    labels_init : array or Tensor, optional
        Integers [N], or [C, N] for gibbs, in the caller's row order: the cluster of each point at the start.
    resp_init : array or Tensor, optional
        (vb) Responsibilities [N, T] at the start, in the caller's row order.
    truncation : int
        (vb) Components T of the variational posterior.
    max_iter, tol : int, float
        (vb) Iterations at most; a model has converged when its lower bound changes by less than ``tol``.
    dtype : torch.dtype, optional
        Of densities, and of variational inference: float32 or float64, by default that of the points. Gibbs sampling
        computes in float64.
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the matrix products of the Triton kernels in float32.

    Attributes
    ----------
    n_components_ : Tensor
        int32 [M, C, S], clusters that hold points; 0 for a failed model.
    alpha_ : Tensor
        float64 [M, C, S].
    log_joint_ : Tensor
        (gibbs) float64 [M, C, S], log p(points, labels, alpha), or given alpha if that is fixed.
    labels_ : Tensor
        int64 [C, N], the cluster of each point in the last kept draw, in the caller's row order.
    sampled_labels_ : Tensor
        (gibbs) int32 [S, C, N], the same of every kept draw.
    rhat_, effective_sample_size_ : Tensor
        (gibbs) float64 [M], split R-hat and effective sample size of the log-joint.
    prior_ : NormalInverseWishart
        Of each model, NaN for a failed one.
    weights_, means_, covariances_, mean_precision_, degrees_of_freedom_ : Tensor
        (vb) [M, T], [M, T, D], [M, T, D, D], [M, T], [M, T]: scikit-learn's attributes with a leading axis of models.
    weight_concentration_ : tuple of Tensor
        (vb) Two of [M, T].
    lower_bound_, n_iter_, converged_ : Tensor
        (vb) [M].
    failed_ : Tensor
        bool [M].
    failures_ : dict of int to str
        Why, for each model that failed.

    References
    ----------
    Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. Escobar & West, Bayesian
    density estimation and inference using mixtures, JASA 90, 1995. Blei & Jordan, Variational inference for Dirichlet
    process mixtures, Bayesian Analysis 1, 2006. Jamroz, Kurdziel & Opala, A Bayesian nonparametrics view into deep
    representations, NeurIPS 2020.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 8), torch.arange(1000) % 10
    >>> batch = fd.RaggedBatch.from_labels(x, y)
    >>> dp = fd.DirichletProcessMixtures(n_sweeps=40, burn_in=20, progress=False).fit(batch)
    >>> dp.n_components_.shape
    torch.Size([10, 1, 5])
    """

    n_components_: Tensor
    alpha_: Tensor
    log_joint_: Tensor
    labels_: Tensor
    sampled_labels_: Tensor
    rhat_: Tensor
    effective_sample_size_: Tensor
    prior_: NormalInverseWishart
    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    mean_precision_: Tensor
    degrees_of_freedom_: Tensor
    weight_concentration_: tuple[Tensor, Tensor]
    lower_bound_: Tensor
    n_iter_: Tensor
    converged_: Tensor
    failed_: Tensor
    failures_: dict[int, str]
    _state: ChainState
    _state_facts: dict[str, Any]

    def __init__(
        self,
        method: str = "gibbs",
        *,
        n_sweeps: int = 400,
        burn_in: int = 320,
        thin: int = 4,
        n_chains: int = 1,
        init_components: int = 6,
        kappa0: float = 0.01,
        nu0: float | None = None,
        alpha_prior: tuple[float, float] = (1.0, 1.0),
        alpha: float | None = None,
        random_state: int = 0,
        backend: str = "auto",
        progress: bool = True,
        on_error: str = "raise",
        labels_init: ArrayLike | Tensor | None = None,
        resp_init: ArrayLike | Tensor | None = None,
        truncation: int = 20,
        max_iter: int = 500,
        tol: float = 1e-3,
        dtype: torch.dtype | None = None,
        matmul_precision: str = "ieee",
    ) -> None:
        self.method = method
        self.n_sweeps = n_sweeps
        self.burn_in = burn_in
        self.thin = thin
        self.n_chains = n_chains
        self.init_components = init_components
        self.kappa0 = kappa0
        self.nu0 = nu0
        self.alpha_prior = alpha_prior
        self.alpha = alpha
        self.random_state = random_state
        self.backend = backend
        self.progress = progress
        self.on_error = on_error
        self.labels_init = labels_init
        self.resp_init = resp_init
        self.truncation = truncation
        self.max_iter = max_iter
        self.tol = tol
        self.dtype = dtype
        self.matmul_precision = matmul_precision

    def __repr__(self) -> str:
        return f"DirichletProcessMixtures(method={self.method!r})"

    def fit(
        self,
        batch: RaggedBatch,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 50,
        resume: bool = False,
    ) -> DirichletProcessMixtures:
        """Fit every model of the batch.

        Ctrl-C during sampling raises KeyboardInterrupt as ever, but first puts the state of the chains into the
        checkpoint, if there is one; ``fit(batch, resume=True)`` also goes on from there in the same process.

        Parameters
        ----------
        batch : RaggedBatch
        checkpoint : path-like, optional
            (gibbs) File to which the state of the chains is written while sampling, and at the end. If it exists, the
            same fit goes on from it, and gives bit for bit what it would have given without the interruption.
        checkpoint_every : int
            Sweeps between two writes, rounded up to the end of a launch of some 16 sweeps.
        resume : bool
            (gibbs) Go on from the state in which this estimator was interrupted, or from its last fit if ``n_sweeps``
            is larger now.

        Returns
        -------
        DirichletProcessMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model has no points, NaN, infinity, or a feature that is constant, and ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is not what it may be, or the checkpoint is damaged or of another fit.

        Warns
        -----
        ConvergenceWarning
            If chains have not converged by split R-hat, or variational inference has stopped at ``max_iter``.
        """
        self._check_parameters()
        given = check_batch(batch)
        if self.method == "vb" and (checkpoint is not None or resume):
            raise ValueError("method is 'vb', which has no checkpoint and nothing to resume: leave those out.")
        check_integer("checkpoint_every", checkpoint_every, 1)
        failures = _failures(given)
        if self.on_error == "raise":
            raise_failed(given, failures, "on_error='skip' fits all others")
        models = torch.tensor([m for m in range(given.n_models) if m not in failures], device=given.points.device)
        rows = torch.isin(given.model_of_row, models)
        fitted = _select(given, models, rows) if failures else given
        if not len(models):
            raise_failed(given, failures, "there is no other model")
        prior = data_prior(fitted.points, fitted.ranges, self.kappa0, self.nu0, self.init_components)
        self.failures_ = dict(sorted(failures.items()))
        self.failed_ = torch.zeros(given.n_models, dtype=torch.bool, device=given.points.device)
        self.failed_[list(failures)] = True
        self.prior_ = prior._replace(
            mean=self._place(prior.mean, models), scale_diagonal=self._place(prior.scale_diagonal, models)
        )
        self._fitted = fitted
        self._models = models
        self._order = given.index[rows]
        self._density: dict[str, StudentTMixtureDensity] = {}
        if self.method == "vb":
            self._fit_variational(given, fitted, prior)
        else:
            self._fit_gibbs(given, fitted, prior, checkpoint, checkpoint_every, resume)
        return self

    def _check_parameters(self) -> None:
        check_choice("method", self.method, METHODS)
        for name, minimum in (
            ("n_sweeps", 1),
            ("burn_in", 0),
            ("thin", 1),
            ("n_chains", 1),
            ("init_components", 1),
            ("random_state", 0),
            ("truncation", 1),
            ("max_iter", 1),
        ):
            check_integer(name, getattr(self, name), minimum)
        if self.method == "gibbs" and self.n_sweeps - self.burn_in < self.thin:
            raise ValueError(
                f"n_sweeps is {self.n_sweeps}, burn_in {self.burn_in} and thin {self.thin}, which keeps no draw: raise "
                "n_sweeps or lower burn_in."
            )
        check_non_negative("tol", self.tol)
        check_choice("backend", self.backend, BACKENDS)
        check_choice("on_error", self.on_error, ("raise", "skip"))
        check_choice("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        _check_positive("kappa0", self.kappa0)
        if self.alpha is not None:
            _check_positive("alpha", self.alpha)
        if len(self.alpha_prior) != 2:
            raise ValueError(f"alpha_prior is {self.alpha_prior!r}, but it must be a shape and a rate.")
        for value in self.alpha_prior:
            _check_positive("alpha_prior", value)
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype is {self.dtype}, but it must be torch.float32, torch.float64 or None.")

    def _place(self, values: Tensor, models: Tensor) -> Tensor:
        """Values of the fitted models [A, ...] among those of all [M, ...], NaN (or 0, or False) elsewhere."""
        if len(models) == len(self.failed_):
            return values
        missing = float("nan") if values.is_floating_point() else 0
        out = torch.full((len(self.failed_), *values.shape[1:]), missing, dtype=values.dtype, device=values.device)
        out[models] = values
        return out

    def _place_rows(self, values: Tensor, n_rows: int, missing: float) -> Tensor:
        """Values of the fitted models' sorted rows [..., A] in the caller's order of all rows [..., N]."""
        out = values.new_full((*values.shape[:-1], n_rows), missing)
        out[..., self._order] = values
        return out

    def _initial_labels(self, given: RaggedBatch) -> Tensor | None:
        """``labels_init`` [N] or [C, N] of the fitted models' sorted rows, checked."""
        if self.labels_init is None:
            return None
        labels = torch.as_tensor(self.labels_init, device=given.points.device)
        n_points, n_chains = len(given.points), self.n_chains
        shapes = [(n_points,)] if self.method == "vb" else [(n_points,), (n_chains, n_points)]
        if tuple(labels.shape) not in shapes or labels.is_floating_point():
            raise ValueError(
                f"labels_init is {labels.dtype} of shape {tuple(labels.shape)}, but it must be integers of shape "
                f"{' or '.join(map(str, shapes))}."
            )
        if bool((labels < 0).any()):
            raise ValueError("labels_init holds negative numbers, but clusters count from 0.")
        return labels[..., self._order].long()

    def _fit_gibbs(
        self,
        given: RaggedBatch,
        fitted: RaggedBatch,
        prior: NormalInverseWishart,
        checkpoint: str | os.PathLike[str] | None,
        checkpoint_every: int,
        resume: bool,
    ) -> None:
        ranges = fitted.ranges
        keys = stream_keys(fitted.points, ranges, self.n_chains, self.random_state)
        shape, rate = map(float, self.alpha_prior)
        labels = self._initial_labels(given)
        if labels is None:
            labels = random_labels(keys, ranges, self.init_components)
        elif labels.ndim == 1:
            labels = labels.expand(self.n_chains, -1)
        start = shape / rate if self.alpha is None else float(self.alpha)
        alpha = torch.full(keys.shape, start, dtype=torch.float64, device=keys.device)
        state = ChainState(0, labels.int().contiguous(), alpha, torch.full_like(alpha, float("nan")), ())
        problem = ChainProblem(
            fitted.points,
            ranges,
            prior,
            keys,
            (shape, rate) if self.alpha is None else None,
            self.burn_in,
            self.thin,
            self.backend,
        )
        # What must be the same for a state to go on from.
        facts = {name: plain(getattr(self, name)) for name in RESUMABLE}
        facts["data"] = fingerprint([fitted.points, fitted.offsets, state.labels])
        place = None if checkpoint is None else Path(checkpoint)
        if resume:
            if not hasattr(self, "_state") or self._state_facts != facts:
                raise ValueError(
                    "resume is True, but this estimator has no state of the same parameters and data: fit it first, or "
                    "pass checkpoint=."
                )
            state = self._state
        elif place is not None and place.exists():
            state = read_checkpoint(place, facts, state)
        self._state, self._state_facts = state, facts
        self._run_chains(problem, state, place, checkpoint_every)
        draws = join_draws(self._state.parts)
        # An earlier fit of more sweeps may have kept more.
        n_draws = (self.n_sweeps - self.burn_in) // self.thin
        self._draws = Draws(draws.labels[:n_draws], *(trace[..., :n_draws] for trace in draws[1:]))
        self._set_gibbs_attributes(len(given.points))
        self._warn_unconverged_chains(given)

    def _run_chains(
        self, problem: ChainProblem, state: ChainState, checkpoint: Path | None, checkpoint_every: int
    ) -> None:
        saved = state.sweep
        n_models = len(problem.ranges)
        with progress_bar("Gibbs sweeps", self.n_sweeps, shown=self.progress) as advance:
            advance(min(state.sweep, self.n_sweeps), f"{n_models} models")
            try:
                for after in sample(problem, state, self.n_sweeps):
                    note = f"{n_models} models, mean log-joint {float(after.log_joint.mean()):.2f}"
                    advance(after.sweep - self._state.sweep, note)
                    self._state = after
                    if checkpoint is not None and after.sweep - saved >= checkpoint_every:
                        write_checkpoint(checkpoint, self._state_facts, after)
                        saved = after.sweep
            finally:
                # Also when interrupted: the state is that after the last whole launch.
                if checkpoint is not None and self._state.sweep > saved:
                    write_checkpoint(checkpoint, self._state_facts, self._state)

    def _set_gibbs_attributes(self, n_rows: int) -> None:
        draws = self._draws
        self.n_components_ = self._place(draws.n_components, self._models)
        self.alpha_ = self._place(draws.alpha, self._models)
        self.log_joint_ = self._place(draws.log_joint, self._models)
        self.sampled_labels_ = self._place_rows(draws.labels, n_rows, -1)
        self.labels_ = self.sampled_labels_[-1].long()
        self.rhat_ = self._place(split_rhat(draws.log_joint), self._models)
        self.effective_sample_size_ = self._place(effective_sample_size(draws.log_joint), self._models)

    def _warn_unconverged_chains(self, given: RaggedBatch) -> None:
        limit = rhat_threshold(*self.log_joint_.shape[1:])
        self._warn(
            given,
            self.rhat_ > limit,
            f"have not converged (split R-hat of the log-joint over {limit:.2f})",
            "raise n_sweeps and burn_in, or n_chains",
        )

    def _warn(self, given: RaggedBatch, models: Tensor, what: str, remedy: str) -> None:
        named = torch.nonzero(models)[:, 0].tolist()
        if named:
            names = ", ".join(given.describe(m) for m in named[:5]) + (", ..." if len(named) > 5 else "")
            warnings.warn(
                f"{len(named)} of {given.n_models} models {what}: {names}; {remedy}.", ConvergenceWarning, stacklevel=5
            )

    def _fit_variational(self, given: RaggedBatch, fitted: RaggedBatch, prior: NormalInverseWishart) -> None:
        # About the prior mean, data far from the origin lose nothing to the rounding of means.
        points = (fitted.points.double() - prior.mean[fitted.model_of_row]).to(self.dtype or fitted.points.dtype)
        resp = self._initial_responsibilities(given, fitted, points)
        centred = prior._replace(mean=torch.zeros_like(prior.mean))
        result = variational_inference(
            points,
            fitted.ranges,
            resp,
            centred,
            alpha=None if self.alpha is None else float(self.alpha),
            alpha_prior=self.alpha_prior,
            tol=self.tol,
            max_iter=self.max_iter,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        )
        bad = {
            int(self._models[a]): "lost a positive definite covariance: compute in dtype=torch.float64"
            for a in torch.nonzero(result.bad)[:, 0].tolist()
        }
        if self.on_error == "raise":
            raise_failed(given, bad, "on_error='skip' keeps all others")
        self.failures_ = dict(sorted({**self.failures_, **bad}.items()))
        self.failed_[list(bad)] = True
        self._variational = result
        self._set_variational_attributes(len(given.points), points, result)
        self._warn(
            given,
            ~self.converged_ & ~self.failed_,
            f"did not converge in {self.max_iter} iterations",
            "raise max_iter or tol",
        )

    def _initial_responsibilities(self, given: RaggedBatch, fitted: RaggedBatch, points: Tensor) -> Tensor:
        n_points, n_components = len(points), self.truncation
        if self.resp_init is not None:
            resp = torch.as_tensor(self.resp_init, dtype=points.dtype, device=points.device)
            if self.labels_init is not None:
                raise ValueError("labels_init and resp_init are both given: pass one of them.")
            if tuple(resp.shape) != (len(given.points), n_components):
                raise ValueError(
                    f"resp_init has shape {tuple(resp.shape)}, but it must be {(len(given.points), n_components)}."
                )
            if not bool((resp >= 0).all()) or not torch.allclose(resp.sum(1), resp.new_ones(()), atol=1e-4):
                raise ValueError("resp_init must not be negative and every row must sum to 1.")
            return resp[self._order].contiguous()
        labels = self._initial_labels(given)
        if labels is None:
            # Each point goes to the nearest of the rows that k-means++ chooses.
            n_seeds = min(n_components, int(fitted.sizes.min()))
            centres = points[
                kernels.kmeans_plusplus(points, fitted.ranges, n_seeds, self.random_state, backend=self.backend)
            ]
            flat = torch.full_like(centres[..., 0], 1 / n_seeds)
            nearest = kernels.responsibilities(
                points,
                fitted.ranges,
                flat,
                centres,
                torch.ones_like(flat),
                covariance_type="spherical",
                backend=self.backend,
            )
            labels = nearest.resp.argmax(1)
        elif int(labels.max()) >= n_components:
            raise ValueError(f"labels_init goes to {int(labels.max())}, but truncation is {n_components}: raise it.")
        resp = points.new_zeros(n_points, n_components)
        return resp.scatter_(1, labels[:, None], 1.0)

    def _set_variational_attributes(self, n_rows: int, points: Tensor, result: VariationalResult) -> None:
        mean = self.prior_.mean[self._models]

        def place(values: Tensor) -> Tensor:
            placed = self._place(values, self._models)
            if placed.is_floating_point() and bool(self.failed_.any()):
                placed = placed.clone()
                placed[self.failed_] = float("nan")
            return placed

        self.weights_ = place(result.weights)
        self.means_ = place((result.means.double() + mean[:, None]).to(result.means.dtype))
        self.covariances_ = place(result.covariances)
        self.mean_precision_ = place(result.mean_precision)
        self.degrees_of_freedom_ = place(result.degrees_of_freedom)
        a, b = result.weight_concentration
        self.weight_concentration_ = (place(a), place(b))
        self.lower_bound_ = place(result.lower_bound)
        self.n_iter_ = place(result.n_iter)
        self.converged_ = place(result.converged)
        self.alpha_ = place(result.alpha)[:, None, None]
        labels = self._variational_labels(points, result)
        self.labels_ = self._place_rows(labels[None], n_rows, -1)
        used = torch.zeros(len(self._models), self.truncation, dtype=torch.bool, device=points.device)
        used[self._fitted.model_of_row, labels] = True
        self.n_components_ = self._place(used.sum(1).int(), self._models)[:, None, None]

    def _variational_labels(self, points: Tensor, result: VariationalResult) -> Tensor:
        resp = kernels.responsibilities(
            points,
            self._fitted.ranges,
            expected_log_weights(result),
            result.means,
            result.precisions_cholesky,
            log_weights=True,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        ).resp
        return resp.argmax(1)

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_components_"):
            raise AttributeError("this DirichletProcessMixtures is not fitted: call fit(batch) first.")

    def _predictive_blocks(self) -> list[tuple[int, int]]:
        """Runs of fitted models whose matrices stay within a bound on memory."""
        d = self._fitted.n_features
        if self.method == "vb":
            counts = [self.truncation + 1] * len(self._models)
        else:
            counts = (self._draws.n_components.sum((1, 2)) + 1).tolist()
        return bounded_runs(counts, _MAX_PREDICTIVE_ELEMENTS // (d * d))

    def _predictive_of(self, begin: int, end: int, weights: str) -> StudentTMixtureDensity:
        """The density of some of the fitted models."""
        if self.method == "vb":
            part = self._variational.select(slice(begin, end))
            own = self.prior_.select(self._models[begin:end])
            parts = predictive(part, own._replace(mean=torch.zeros_like(own.mean)))
            n_models, n_components = parts.log_weights.shape
            offsets = torch.arange(n_models + 1, device=parts.log_weights.device) * n_components
            locations = (parts.locations.double() + own.mean[:, None]).to(parts.locations.dtype)
            return StudentTMixtureDensity(
                offsets,
                parts.log_weights.flatten(),
                locations.flatten(0, 1),
                parts.scale_precisions_cholesky.flatten(0, 1),
                parts.degrees_of_freedom.flatten(),
                self.backend,
                self.matmul_precision,
            )
        fitted, draws = self._fitted, self._draws
        start, stop = int(fitted.offsets[begin]), int(fitted.offsets[end])
        part_draws = Draws(draws.labels[..., start:stop], *(trace[begin:end] for trace in draws[1:]))
        points = fitted.points[start:stop].to(self.dtype or fitted.points.dtype)
        return posterior_predictive(
            points,
            fitted.ranges[begin:end] - start,
            part_draws,
            self.prior_.select(self._models[begin:end]),
            weights=weights,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        )

    def density(self, weights: str = "exact") -> StudentTMixtureDensity:
        """The posterior predictive density of every model, averaged over kept draws; no components for failed models.

        Parameters
        ----------
        weights : {"exact", "published"}
            Of a draw, n_k / (alpha + n) for the Student-t of cluster k and alpha / (alpha + n) for the prior's. The
            published code has them in proportion to alpha + n_k and leaves the prior's out; for comparison only, and
            of Gibbs draws only.

        Returns
        -------
        StudentTMixtureDensity
        """
        self._check_weights(weights)
        if weights not in self._density:
            parts = [self._predictive_of(begin, end, weights) for begin, end in self._predictive_blocks()]
            density = self._all_models(parts)
            if len(parts) > 1:
                return density
            # Small enough to be kept for the next call.
            self._density[weights] = density
        return self._density[weights]

    def _check_weights(self, weights: str) -> None:
        self._check_fitted()
        check_choice("weights", weights, WEIGHTS)
        if weights == "published" and self.method == "vb":
            raise ValueError("weights is 'published', which is for Gibbs draws: method is 'vb'.")

    def _all_models(self, parts: list[StudentTMixtureDensity]) -> StudentTMixtureDensity:
        """One density of all models from those of successive fitted ones."""
        counts = torch.zeros_like(self.failed_, dtype=torch.int64)
        counts[self._models] = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        columns = zip(
            *((p.log_weights, p.locations, p.scale_precisions_cholesky, p.degrees_of_freedom) for p in parts),
            strict=True,
        )
        log_weights, locations, factors, df = (
            column[0] if len(column) == 1 else torch.cat(column) for column in columns
        )
        return StudentTMixtureDensity(offsets, log_weights, locations, factors, df, self.backend, self.matmul_precision)

    def _densities(self, weights: str) -> Iterator[tuple[Tensor, StudentTMixtureDensity]]:
        """Some of the fitted models after others, and their density; a density that was kept is used again."""
        blocks = self._predictive_blocks()
        if len(blocks) == 1:
            density = self.density(weights)
            yield torch.arange(len(self.failed_), device=self.failed_.device), density
            return
        for begin, end in blocks:
            yield self._models[begin:end], self._predictive_of(begin, end, weights)

    def log_prob(self, x: ArrayLike | Tensor, weights: str = "exact") -> Tensor:
        """Log-density of each point of ``x`` [N, D] under every model, [N, M]; NaN under failed models.

        Differentiable in ``x``. Models whose matrices take too much memory together are worked out in turn.
        """
        self._check_weights(weights)
        points = x if isinstance(x, Tensor) else as_points(x)
        columns = [(models, density.log_prob(points)) for models, density in self._densities(weights)]
        if len(columns) == 1:
            return columns[0][1]
        values = torch.cat([value for _, value in columns], 1)
        out = values.new_full((len(values), len(self.failed_)), float("nan"))
        return out.index_copy(1, torch.cat([models for models, _ in columns]), values)

    def score_samples(self, batch: RaggedBatch, weights: str = "exact") -> Tensor:
        """Log-density of each point under its own model, [N], in the caller's row order; NaN for failed models.

        Points of the training data count as any others: they are not left out of what they are scored by, and a few
        odd points that have a cluster of their own are dense there. See :meth:`leave_one_out`.
        """
        self._check_weights(weights)
        checked = check_batch(batch)
        if checked.n_models != len(self.failed_) or checked.n_features != self._fitted.n_features:
            raise ValueError(
                f"the batch has {checked.n_models} models with D = {checked.n_features}, but {len(self.failed_)} models"
                f" with D = {self._fitted.n_features} were fitted: pass a batch of the same models (from_labels takes "
                "n_classes)."
            )
        if self.on_error == "raise":
            raise_failed(checked, bad_models(checked, 0), "on_error='skip' gives NaN for such rows")
        values = checked.points.new_full((len(checked.points),), float("nan"), dtype=self._dtype)
        for models, density in self._densities(weights):
            rows = torch.isin(checked.model_of_row, models)
            part = _select(checked, models, rows)
            # In sorted order: the part knows its rows by their places among them.
            values[rows] = density.score_samples(part)
        return checked.in_caller_order(values)

    def leave_one_out(self) -> Tensor:
        """Log predictive density of each training point, left out of its own cluster in every kept draw (gibbs).

        Returns
        -------
        Tensor
            float64 [N], in the order of the rows that were fitted; NaN for failed models.
        """
        self._check_fitted()
        if self.method == "vb":
            raise ValueError("method is 'vb', which has no draws to leave a point out of: use score_samples(batch).")
        fitted = self._fitted
        prior = self.prior_.select(self._models)
        scores = leave_one_out(
            fitted.points, fitted.ranges, self._draws, prior, backend=self.backend, matmul_precision=self.matmul_precision
        )
        return self._place_rows(scores, self.labels_.shape[-1], float("nan"))

    @property
    def _dtype(self) -> torch.dtype:
        return self.dtype or self._fitted.points.dtype

    def to_arviz(self) -> Any:
        """The kept draws of log-joint, number of components and alpha, as ArviZ reads them.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            Dimensions chain, draw, model; failed models are left out.

        Raises
        ------
        ImportError
            If arviz is missing.
        """
        self._check_fitted()
        if self.method == "vb":
            raise ValueError("method is 'vb', which draws no samples: there is nothing for ArviZ to look at.")
        draws = self._draws
        names = [self._fitted.describe(a) for a in range(len(self._models))]
        return to_arviz({"log_joint": draws.log_joint, "n_components": draws.n_components, "alpha": draws.alpha}, names)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fit to one safetensors file with a JSON header; :func:`fastdens.load` reads it.

        Raises
        ------
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        from fastdens.io.saved_fits import save

        self._check_fitted()
        save(self, path, overwrite=overwrite)


def plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return [float(v) for v in value] if isinstance(value, tuple | list) else value


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}, but it must be a positive number.")


def _failures(batch: RaggedBatch) -> dict[int, str]:
    """Models without points, with NaN or infinity, or with a feature that is constant, and why."""
    failures = bad_models(batch, 1)
    # A feature is constant where no row differs from the first of its model.
    first = batch.points[batch.offsets[:-1].clamp_max(max(len(batch.points) - 1, 0))]
    model = batch.model_of_row
    varies = torch.zeros(batch.n_models, batch.n_features, dtype=torch.int64, device=model.device)
    varies.index_add_(0, model, (batch.points != first[model]).long())
    for m in torch.nonzero((varies == 0).any(1))[:, 0].tolist():
        feature = int((varies[m] == 0).long().argmax())
        failures.setdefault(
            m,
            f"has no variance in feature {feature}, and so no prior: add points, or leave out the feature or the class",
        )
    return failures


def _select(batch: RaggedBatch, models: Tensor, rows: Tensor) -> RaggedBatch:
    """Some of the models of a batch, all their ``rows`` (a mask); rows are known by their places in that part."""
    offsets = torch.cat([batch.offsets.new_zeros(1), batch.sizes[models].cumsum(0)])
    index = torch.arange(int(rows.sum()), device=rows.device)
    labels = tuple(batch.labels[m] for m in models.tolist())
    return RaggedBatch(batch.points[rows], offsets, index, labels, batch.layer)
