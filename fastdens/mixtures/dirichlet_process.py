"""Dirichlet-process Gaussian mixtures for a batch of models: collapsed Gibbs sampling, and the choice of the method."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.convergence import effective_sample_size, rhat_threshold, split_rhat
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.draws_for_arviz import to_arviz
from fastdens.errors import check_batch, check_integer
from fastdens.inference.chain_predictive import FittedChains
from fastdens.inference.chain_run import ChainRun
from fastdens.inference.gibbs import ChainProblem, Draws, init, stream_keys
from fastdens.inference.predictive import FittedModels
from fastdens.inference.starts import random_labels
from fastdens.io.state_file import StateFile, fingerprint
from fastdens.kernels.options import check_choice
from fastdens.mixtures.base import integer, to_jsonable
from fastdens.mixtures.base_dirichlet_process import BaseDirichletProcessMixtures
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures
from fastdens.progress import progress_bar

METHODS = ("gibbs", "vb")

# Parameters that two fits share if one continues the chains of the other.
CHAIN_PARAMETERS = (
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
_TRACES = ("log_joint_", "sampled_labels_", "rhat_", "effective_sample_size_")


class DirichletProcessMixtures(BaseDirichletProcessMixtures):
    """Infinite mixtures of Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`, by Gibbs sampling.

    A Dirichlet process with concentration alpha and a normal-inverse-Wishart base measure: m0 is the sample mean, S0
    the diagonal of the sample variances (divisor n) over ``init_components ** (2 / D)``, and alpha has a gamma prior.
    Collapsed Gibbs sampling updates one point at a time, in an order drawn anew for each sweep.

    ``DirichletProcessMixtures("vb", ...)`` makes a :class:`~fastdens.VariationalDirichletProcessMixtures`, for fits
    that need no samples or are too large for sampling.

    Parameters
    ----------
    method : {"gibbs", "vb"}
        This estimator, or the variational one.
    n_sweeps, burn_in, thin : int
        Sweeps of each chain; after the first ``burn_in`` every ``thin``-th is kept:
        S = (n_sweeps - burn_in) // thin.
    n_chains : int
        Chains C of each model.
    init_components : int
        K0, clusters to which points are assigned at random at the start, and the divisor of the prior's scale.
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
        Show sweeps, models and mean log-joint while sampling (needs rich).
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN, their labels -1.
    labels_init : array or Tensor, optional
        Integers [N] or [C, N], in the caller's row order: the cluster of each point at the start.
    dtype : torch.dtype, optional
        Of densities: float32 or float64, by default that of the points. Sampling computes in float64.
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the matrix products of the Triton kernels in float32.
    resp_init, truncation, max_iter, tol
        For the variational estimator only.

    Attributes
    ----------
    n_components_ : Tensor
        int32 [M, C, S], clusters that hold points; 0 for a failed model.
    alpha_ : Tensor
        float64 [M, C, S].
    log_joint_ : Tensor
        float64 [M, C, S], log p(points, labels, alpha), or given alpha if that is fixed.
    labels_ : Tensor
        int64 [C, N], the cluster of each point in the last kept draw, in the caller's row order.
    sampled_labels_ : Tensor
        int32 [S, C, N], the clusters in every kept draw.
    rhat_, effective_sample_size_ : Tensor
        float64 [M], split R-hat and effective sample size of the log-joint.
    prior_ : NormalInverseWishart
        Of each model, NaN for a failed one.
    failed_, failures_ : Tensor, dict of int to str
        Which models failed, bool [M], and why.

    References
    ----------
    Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. Escobar & West, Bayesian
    density estimation and inference using mixtures, JASA 90, 1995. Jamroz, Kurdziel & Opala, A Bayesian nonparametrics
    view into deep representations, NeurIPS 2020.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 8), torch.arange(1000) % 10
    >>> batch = fd.RaggedBatch.from_labels(x, y)
    >>> dp = fd.DirichletProcessMixtures(n_sweeps=40, burn_in=20, progress=False).fit(batch)
    >>> dp.n_components_.shape
    torch.Size([10, 1, 5])
    """

    method: str = "gibbs"
    _parameter_constraints: ClassVar = {
        "n_sweeps": integer(1),
        "burn_in": integer(0),
        "thin": integer(1),
        "n_chains": integer(1),
        **BaseDirichletProcessMixtures._parameter_constraints,
    }

    n_sweeps: int
    burn_in: int
    thin: int
    n_chains: int
    progress: bool

    log_joint_: Tensor
    sampled_labels_: Tensor
    rhat_: Tensor
    effective_sample_size_: Tensor
    _fitted: FittedChains
    _run: ChainRun
    _run_identity: dict[str, Any]

    def __new__(cls, method: str = "gibbs", **parameters: Any) -> Any:
        """An estimator of the method."""
        if check_choice("method", method, METHODS) == cls.method:
            return super().__new__(cls)
        every = cls.__signature__.bind(method, **parameters)
        every.apply_defaults()
        own = inspect.signature(VariationalDirichletProcessMixtures).parameters
        made = VariationalDirichletProcessMixtures(**{name: every.arguments[name] for name in own})
        # What is for sampling alone has no effect, but can be read.
        vars(made).update({name: value for name, value in every.arguments.items() if name not in (*own, "method")})
        return made

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
        self._keep(locals())

    # Of the constructor, which __new__ would hide.
    __signature__: ClassVar = inspect.Signature(list(inspect.signature(__init__).parameters.values())[1:])

    def fit(
        self,
        batch: RaggedBatch,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 50,
        resume: bool = False,
    ) -> DirichletProcessMixtures:
        """Fit every model of the batch.

        Ctrl-C during sampling raises KeyboardInterrupt as ever, but first writes the state of the chains to the
        checkpoint, if there is one; ``fit(batch, resume=True)`` also continues from there in the same process.

        Parameters
        ----------
        batch : RaggedBatch
        checkpoint : path-like, optional
            File to which the state of the chains is written while sampling, and at the end. If it exists, the same fit
            continues from it, and gives bit for bit what it would have given without the interruption.
        checkpoint_every : int
            Sweeps between two writes, rounded up to the end of a launch of some 16 sweeps.
        resume : bool
            Continue from the state in which this estimator was interrupted, or from its last fit if ``n_sweeps`` is
            larger now.

        Returns
        -------
        DirichletProcessMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model has no points, NaN, infinity, or a feature that is constant, and ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is invalid, or the checkpoint is damaged or of another fit.

        Warns
        -----
        ConvergenceWarning
            If chains have not converged by split R-hat.
        """
        self._check_parameters()
        check_integer("checkpoint_every", checkpoint_every, 1)
        valid = self._partition(check_batch(batch))
        fitted = self._fit_models(valid, None if checkpoint is None else Path(checkpoint), checkpoint_every, resume)
        self._scatter(valid, fitted)
        limit = rhat_threshold(*self.log_joint_.shape[1:])
        self._warn(
            valid.whole,
            self.rhat_ > limit,
            f"have not converged, with a split R-hat of the log-joint over {limit:.2f}",
            "raise n_sweeps and burn_in, or n_chains",
        )
        return self

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.n_sweeps - self.burn_in < self.thin:
            raise ValueError(
                f"n_sweeps is {self.n_sweeps}, burn_in {self.burn_in} and thin {self.thin}, which keeps no draw: raise "
                "n_sweeps or lower burn_in."
            )

    def _fit_models(
        self, valid: Partition, checkpoint: Path | None, checkpoint_every: int, resume: bool
    ) -> FittedChains:
        """Sample from the start, or from where an interrupted fit stopped."""
        batch, prior = valid.batch, self._prior_of(valid.batch)
        problem = self._chain_problem(batch, prior)
        run = ChainRun(init(problem, self._start_labels(valid, problem), self._start_alpha()))
        identity = {name: to_jsonable(getattr(self, name)) for name in CHAIN_PARAMETERS}
        identity["data"] = fingerprint([batch.points, batch.offsets, run.state.labels])
        file = None
        if checkpoint is not None:
            file = StateFile(checkpoint, "checkpoint", identity, {"data": "other data or labels_init"})
        if resume:
            if not hasattr(self, "_run") or self._run_identity != identity:
                raise ValueError(
                    "resume is True, but this estimator has no state of the same parameters and data: fit it first, or "
                    "pass checkpoint=."
                )
            run = self._run
        elif file is not None and file.path.exists():
            run = ChainRun.read(file, batch.points.device)
        self._run, self._run_identity = run, identity
        self._sample(problem, file, checkpoint_every)
        # An earlier fit of more sweeps may have kept more draws.
        draws = self._run.draws.first((self.n_sweeps - self.burn_in) // self.thin)
        return FittedChains(batch, valid.models, valid.whole.n_models, prior, draws)

    def _chain_problem(self, batch: RaggedBatch, prior: NormalInverseWishart) -> ChainProblem:
        shape, rate = map(float, self.alpha_prior)
        return ChainProblem(
            batch.points,
            batch.layout,
            prior,
            stream_keys(batch.points, batch.layout, self.n_chains, self.random_state),
            (shape, rate) if self.alpha is None else None,
            self.burn_in,
            self.thin,
            self.backend,
        )

    def _start_labels(self, valid: Partition, problem: ChainProblem) -> Tensor:
        n_points = len(valid.whole.points)
        labels = self._initial_labels(valid, [(n_points,), (self.n_chains, n_points)])
        return random_labels(problem.keys, problem.layout, self.init_components) if labels is None else labels

    def _start_alpha(self) -> float:
        shape, rate = map(float, self.alpha_prior)
        return shape / rate if self.alpha is None else float(self.alpha)

    def _sample(self, problem: ChainProblem, file: StateFile | None, checkpoint_every: int) -> None:
        """Continue the run until ``n_sweeps``; whatever happens, it is left after its last whole launch."""
        written = self._run.sweep
        models = f"{problem.layout.n_models} models"
        with progress_bar("Gibbs sweeps", self.n_sweeps, shown=self.progress) as advance:
            advance(min(self._run.sweep, self.n_sweeps), models)
            try:
                for run, log_joint in self._run.continued(problem, self.n_sweeps):
                    advance(run.sweep - self._run.sweep, f"{models}, mean log-joint {float(log_joint.mean()):.2f}")
                    self._run = run
                    if file is not None and run.sweep - written >= checkpoint_every:
                        run.write(file)
                        written = run.sweep
            finally:
                if file is not None and self._run.sweep > written:
                    self._run.write(file)

    def _scatter(self, valid: Partition, fitted: FittedChains) -> None:
        self._scatter_shared(valid, fitted)
        draws = fitted.draws
        self.n_components_ = valid.scatter(draws.n_components)
        self.alpha_ = valid.scatter(draws.alpha)
        self.log_joint_ = valid.scatter(draws.log_joint)
        self.sampled_labels_ = valid.scatter_rows(draws.labels)
        self.labels_ = self.sampled_labels_[-1].long()
        self.rhat_ = valid.scatter(split_rhat(draws.log_joint))
        self.effective_sample_size_ = valid.scatter(effective_sample_size(draws.log_joint))

    def leave_one_out(self) -> Tensor:
        """Log predictive density of each training point, left out of its own cluster in every kept draw.

        Returns
        -------
        Tensor
            float64 [N], in the order of the rows that were fitted; NaN for failed models.
        """
        options = self._predictive_options("exact")
        scores = self._fitted.leave_one_out(options)
        out = scores.new_full((self.labels_.shape[-1],), float("nan"))
        out[self._fitted.batch.index] = scores
        return out

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
        draws, batch = self._fitted.draws, self._fitted.batch
        names = [batch.describe(m) for m in range(batch.n_models)]
        return to_arviz({"log_joint": draws.log_joint, "n_components": draws.n_components, "alpha": draws.alpha}, names)

    def _kept_tensors(self) -> dict[str, Tensor]:
        draws = {f"draws_{name}": value for name, value in self._fitted.draws._asdict().items()}
        return draws | {name: getattr(self, name) for name in _TRACES}

    def _refitted(self, shared: dict[str, Any], tensors: Mapping[str, Tensor]) -> FittedModels:
        for name in _TRACES:
            setattr(self, name, tensors[name])
        return FittedChains(**shared, draws=Draws(**{name: tensors[f"draws_{name}"] for name in Draws._fields}))


# The door returns one in place of the other.
DirichletProcessMixtures.register(VariationalDirichletProcessMixtures)
