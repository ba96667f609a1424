"""Dirichlet-process Gaussian mixtures for a batch of models: collapsed Gibbs sampling, and the choice of the method."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.convergence import effective_sample_size, split_rhat
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.errors import (
    check_integer,
    check_non_negative,
    check_positive,
)
from fastdens.inference.chain_predictive import FittedChains
from fastdens.inference.chain_run import ChainRun
from fastdens.inference.gibbs import ChainProblem, init, stream_keys
from fastdens.inference.schedule import Schedule, most_sweeps, moves_by_default
from fastdens.inference.starts import COARSE_CLUSTERS, INITS, contrasting_labels, start_labels
from fastdens.io.state_file import StateFile, fingerprint
from fastdens.kernels.options import check_choice
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import AUTO, Doubt, auto_or_non_negative, integer, one_of, optional, share, to_jsonable
from fastdens.mixtures.limited_memory import fit_within
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.refits import RefittedMixtures
from fastdens.mixtures.sampled import HELD_OUT, SampledMixtures
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures
from fastdens.progress import progress_bar

METHODS = ("gibbs", "vb")
STOPS = ("sweeps", "converged")

# R-hat makes no sense for fewer draws.
_FEWEST_DRAWS = 4

# Parameters that two fits share if one continues the chains of the other.
CHAIN_PARAMETERS = (
    "kappa0",
    "nu0",
    "variance_floor",
    "alpha_prior",
    "alpha",
    "n_chains",
    "burn_in",
    "thin",
    "init",
    "init_components",
    "split_merge",
    "search",
    "stop",
    "random_state",
)
_DIFFERENCES = {"data": "other data or labels_init", "held_out": "other held-out points"}


class DirichletProcessMixtures(RefittedMixtures, SampledMixtures):
    """Infinite mixtures of Gaussians, one for each model of a :class:`~fastdens.RaggedBatch`, by Gibbs sampling.

    A Dirichlet process with concentration alpha and a normal-inverse-Wishart base measure: m0 is the sample mean, S0
    the diagonal of the sample variances (divisor n) over ``init_components ** (2 / D)``, and alpha has a gamma prior.
    Collapsed Gibbs sampling updates one point at a time, in an order drawn anew for each sweep; split-merge moves
    change many labels at once. The burn-in opens with searches for a good state.

    ``DirichletProcessMixtures("vb", ...)`` makes a :class:`~fastdens.VariationalDirichletProcessMixtures`, for fits
    that need no samples or are too large for sampling.

    Parameters
    ----------
    method : {"gibbs", "vb"}
        This estimator, or the variational one.
    n_sweeps, burn_in, thin : int
        Sweeps of each chain; after ``burn_in`` every ``thin``-th is kept: S = (n_sweeps - burn_in) // thin.
    n_chains : int
        Chains C of each model.
    init : {"overdispersed", "kmeans", "random"}
        Labels that chains start from. "overdispersed": every chain from another number of k-means clusters, from one in
        the first to ten in the last (without searches, to one for six points); a single chain starts from one cluster.
        "kmeans": ``init_components`` clusters. "random": as many labels at random, the paper's.
    init_components : int
        K0, the divisor of the prior's scale, and the clusters of the starts "kmeans" and "random".
    split_merge : "auto" or float
        Split-merge moves a sweep, on average; "auto" makes 4 in up to four dimensions, else 8 / D, and in
        models of n < 500 points 500 / n times as many, but at most 4.
    search : float
        Share of the burn-in in which each chain looks for a good state from several starts, and then goes on from the
        best: a seventh each from the start labels, from ten k-means clusters and from one cluster, and, where a model
        has at most ten points for each dimension, the rest from a fine random partition by annealing. Zero leaves the
        searches out.
    stop : {"sweeps", "converged"}
        "converged" goes on with the models whose chains do not agree after ``n_sweeps``: in rounds of twice as many
        sweeps, with as many draws twice as far apart in place of those before, up to ``max_sweeps``.
    max_sweeps : int, optional
        Ten times ``n_sweeps`` by default.
    max_rhat, min_ess : float, optional
        Chains of a model agree if the rank-normalised R-hat is at most ``max_rhat``, by default
        :func:`~fastdens.convergence.rhat_threshold`, and there are ``min_ess`` effective draws, by default ten a chain
        or half of the draws.
    kappa0 : float
        How many points the prior mean is worth.
    nu0 : float, optional
        Degrees of freedom of the prior, greater than D - 1; D + 2 by default.
    variance_floor : float
        A feature that does not vary in a model, such as a channel that is dead for a class, counts as one that has this
        share of the mean variance of the model's other features; a warning names such models. Zero refuses them.
    alpha_prior : (float, float)
        Shape and rate of the gamma prior of alpha.
    alpha : float, optional
        Keep alpha at this value.
    random_state : int
        Seed. The same seed gives the same result, bit for bit, whatever other models are in the batch.
    backend : {"auto", "triton", "cpu", "reference"}
        "auto" is triton on a GPU and cpu on a CPU.
    progress : bool
        Show sweeps, models and mean log-joint while sampling (in a terminal, needs rich).
    on_error : {"raise", "skip"}
        "raise" names models that cannot be fitted in a :class:`~fastdens.ModelError`. "skip" fits all others and notes
        those in ``failed_`` and ``failures_``; their floating-point attributes are NaN, their labels -1.
    labels_init : array or Tensor, optional
        Integers [N] or [C, N], in the caller's row order: the cluster of each point at the start, in place of ``init``.
    resp_init, truncation, max_iter, tol : optional
        For the variational estimator only.
    dtype : torch.dtype, optional
        Of densities: float32 or float64, by default that of the points. Sampling computes in float64.
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels in float32: "tf32x3" has the error of float32 and runs on tensor
        cores; "ieee" runs beside them; "tf32" has three digits.

    Attributes
    ----------
    n_components_ : Tensor
        int32 [M, C, S], clusters that hold points; 0 for a failed model.
    alpha_ : Tensor
        float64 [M, C, S], the concentration.
    log_joint_ : Tensor
        float64 [M, C, S], log p(points, labels, alpha), or given alpha if that is fixed.
    labels_ : Tensor
        int64 [C, N], the cluster of each point in the last kept draw, in the caller's row order.
    sampled_labels_ : Tensor
        int32 [S, C, N], the clusters in every kept draw.
    rhat_, effective_sample_size_ : Tensor
        float64 [M], split R-hat and effective sample size of the log-joint.
    n_sweeps_ : Tensor
        int64 [M], sweeps of each model; 0 for a failed one.
    split_merge_ : Tensor
        int64 [M, C, 4]: splits that were proposed, splits that were accepted, and merges likewise.
    held_out_log_density_ : Tensor
        float64 [M, C, S], if ``fit`` was given held-out points: mean log-density of those of each model in each draw.
    constant_features_ : Tensor
        bool [M, D], the features that do not vary within a model.
    prior_ : NormalInverseWishart
        Of each model, NaN for a failed one.
    classes_ : tuple
        The class of each model, as in the batch.
    failed_, failures_ : Tensor, dict of int to str
        Which models failed, bool [M], and why.

    References
    ----------
    Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. Escobar & West, Bayesian
    density estimation and inference using mixtures, JASA 90, 1995. Jamroz, Kurdziel & Opala, A Bayesian nonparametrics
    view into deep representations, NeurIPS 2020. Jain & Neal, A split-merge Markov chain Monte Carlo procedure for the
    Dirichlet process mixture model, JCGS 13, 2004. Vehtari et al., Rank-normalization, folding, and localization: an
    improved R-hat, Bayesian Analysis 16, 2021.

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
    has_chains: ClassVar = True
    _compiling_bytes: ClassVar = 384 << 20
    _parameter_constraints: ClassVar = {
        "n_sweeps": integer(1),
        "burn_in": integer(0),
        "thin": integer(1),
        "n_chains": integer(1),
        "init": one_of(INITS),
        "split_merge": auto_or_non_negative,
        "search": share,
        "stop": one_of(STOPS),
        "max_sweeps": optional(integer(1)),
        "max_rhat": optional(check_positive),
        "min_ess": optional(check_non_negative),
        **SampledMixtures._parameter_constraints,
    }

    n_sweeps: int
    burn_in: int
    thin: int
    n_chains: int
    init: str
    split_merge: float | str
    search: float
    stop: str
    max_sweeps: int | None
    progress: bool

    _run: ChainRun
    _run_identity: dict[str, Any]

    def __new__(cls, method: str = "gibbs", **parameters: Any) -> Self:
        """An estimator of the method; type checkers take each for one of this class."""
        if check_choice("method", method, METHODS) == cls.method:
            return super().__new__(cls)
        every = cls.__signature__.bind(method, **parameters)
        every.apply_defaults()
        own = inspect.signature(VariationalDirichletProcessMixtures).parameters
        made: Any = VariationalDirichletProcessMixtures(**{name: every.arguments[name] for name in own})
        # What is for sampling alone has no effect, but can be read.
        vars(made).update({name: value for name, value in every.arguments.items() if name not in (*own, "method")})
        return cast("Self", made)

    def __init__(
        self,
        method: str = "gibbs",
        *,
        n_sweeps: int = 400,
        burn_in: int = 320,
        thin: int = 4,
        n_chains: int = 1,
        init: str = "overdispersed",
        init_components: int = 6,
        split_merge: float | str = AUTO,
        search: float = 0.7,
        stop: str = "sweeps",
        max_sweeps: int | None = None,
        max_rhat: float | None = None,
        min_ess: float | None = None,
        kappa0: float = 0.01,
        nu0: float | None = None,
        variance_floor: float = 1e-6,
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
        matmul_precision: str = "tf32x3",
    ) -> None:
        self._keep(locals())

    # Of the constructor, which __new__ would hide.
    __signature__: ClassVar = inspect.Signature(list(inspect.signature(__init__).parameters.values())[1:])

    def fit(
        self,
        batch: RaggedBatch,
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
        held_out: RaggedBatch | None = None,
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
            Points of the models to fit.
        sample_weight : array or Tensor, optional
            For ``method="vb"`` only: a sampler has whole points in its clusters.
        max_memory : int or str, optional
            The most that the process may hold, in bytes or as "4GiB": the models are fitted in groups that fit into
            it, with the same result, bit for bit. A batch on disk has a limit of its own, by default.
        held_out : RaggedBatch, optional
            Other points of the same M models, at least one of each: chains must also agree in the density there.
        checkpoint : path-like, optional
            File to which the state of the chains is written while sampling, and at the end. If it exists, the same fit
            continues from it, and gives bit for bit what it would have given without the interruption. With
            ``max_memory``, a folder that receives a file for each group of models.
        checkpoint_every : int
            Sweeps between two writes, rounded up to the end of a launch of some 32 sweeps.
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
            If a model has no points, NaN, infinity, or no feature that varies, and ``on_error`` is "raise".
        TypeError, ValueError
            If a parameter is invalid, points have weights, or the checkpoint is damaged or of another fit.

        Warns
        -----
        ConvergenceWarning
            If the chains of some models do not agree: :attr:`convergence_` names them.
        ConstantFeatureWarning
            If features of some models do not vary: :attr:`constant_features_` has them.
        """
        check_integer("checkpoint_every", checkpoint_every, 1)
        path = None if checkpoint is None else Path(checkpoint)
        batch = self._without_weights(batch, sample_weight)
        limit = batch.max_memory if max_memory is None else max_memory
        if limit is None:
            self._fit_at_once(batch, held_out, path, checkpoint_every, resume)
        elif resume:
            raise ValueError("resume is True, which goes on with a fit of all models at once: leave max_memory out.")
        else:
            fit_within(self, batch, limit, folder=path, held_out=held_out, checkpoint_every=checkpoint_every)
        self._warn(batch)
        return self

    def _fit_at_once(
        self,
        batch: RaggedBatch,
        held_out: RaggedBatch | None,
        checkpoint: Path | None,
        checkpoint_every: int,
        resume: bool,
    ) -> None:
        self._check_parameters()
        valid = self._partition(batch)
        held_out = None if held_out is None else self._check_held_out(valid, held_out).load()
        fitted = self._fit_models(valid, held_out, checkpoint, checkpoint_every, resume)
        self._scatter(valid, fitted)
        vars(self).pop(HELD_OUT, None)
        trace = self._held_out_trace(fitted, held_out)
        if trace is not None:
            self.held_out_log_density_ = valid.scatter(trace)

    def _doubts(self) -> list[Doubt]:
        convergence = self.convergence_
        problem = f"have not converged, with a rank-normalised R-hat over {convergence.max_rhat:.2f}"
        remedy = "pass stop='converged', or raise n_sweeps and burn_in, or n_chains"
        return [Doubt(convergence.rhat > convergence.max_rhat, problem, remedy), *super()._doubts()]

    def _check_start(self, batch: RaggedBatch) -> None:
        self._initial_labels(Partition.of(batch, {}), self._shapes_of_labels(batch))

    def _fit_bytes(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """Ten copies of the points in float64, in searches and starts; labels of a launch; clusters; labels kept."""
        d, n_draws = batch.n_features, (self.n_sweeps - self.burn_in) // self.thin
        rows = batch.sizes.double()
        results = self.n_chains * (8 * (1 + n_draws) * rows + 32 * n_draws)
        clusters = 8 * COARSE_CLUSTERS * self.n_chains * d * d
        return (80 * d + 200 * self.n_chains) * rows + clusters + 4 * results, results

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.n_sweeps - self.burn_in < self.thin:
            raise ValueError(
                f"n_sweeps is {self.n_sweeps}, burn_in {self.burn_in} and thin {self.thin}, which keeps no draw: raise "
                "n_sweeps or lower burn_in."
            )
        if self.stop == "converged":
            if (n_draws := (self.n_sweeps - self.burn_in) // self.thin) < _FEWEST_DRAWS:
                raise ValueError(
                    f"stop is 'converged', but n_sweeps, burn_in and thin keep {n_draws} draws a chain, too few for an "
                    f"R-hat: keep at least {_FEWEST_DRAWS}."
                )
            if self.max_sweeps is not None and self.max_sweeps < self.n_sweeps:
                raise ValueError(f"max_sweeps is {self.max_sweeps}, but it must be at least n_sweeps, {self.n_sweeps}.")

    def _fit_models(
        self,
        valid: Partition,
        held_out: RaggedBatch | None,
        checkpoint: Path | None,
        checkpoint_every: int,
        resume: bool,
    ) -> FittedChains:
        """Sample from the start, or from where an interrupted fit stopped."""
        batch, prior = valid.batch, self._prior_of(valid.batch)
        problem = self._chain_problem(batch, prior)
        run = ChainRun.start(init(problem, self._start_labels(valid, problem), self._start_alpha()))
        identity = {name: to_jsonable(getattr(self, name)) for name in CHAIN_PARAMETERS}
        if self.stop == "converged":
            # The rounds after the first begin where that ends, with the models that do not agree then.
            identity |= {"n_sweeps": self.n_sweeps, "max_rhat": self.max_rhat, "min_ess": self.min_ess}
            identity["held_out"] = None if held_out is None else fingerprint([held_out.points, held_out.offsets])
        identity["data"] = fingerprint([batch.points, batch.offsets, run.state.labels])
        file = None
        if checkpoint is not None:
            file = StateFile(checkpoint, "checkpoint", identity, _DIFFERENCES)
        if resume:
            if not hasattr(self, "_run") or self._run_identity != identity:
                raise ValueError(
                    "resume is True, but this estimator has no state of the same parameters and data: fit it first, or "
                    "pass checkpoint=."
                )
            run = self._run
        elif file is not None and file.path.exists():
            run = ChainRun.read(file, problem)
        self._run, self._run_identity = run, identity
        while True:
            self._sample(problem, file, checkpoint_every)
            # An earlier fit of more sweeps may have kept more draws.
            draws = self._run.draws(problem, (self.n_sweeps - self.burn_in) // self.thin)
            fitted = FittedChains(batch, valid.models, valid.whole.n_models, prior, draws)
            going_on = self._going_on(fitted, held_out)
            if not bool(going_on.any()):
                return fitted
            self._run = self._run.next_round(problem, draws, going_on)

    def _going_on(self, fitted: FittedChains, held_out: RaggedBatch | None) -> Tensor:
        """Which models of the last round go on to another one, bool."""
        run = self._run
        most = most_sweeps(self.n_sweeps, self.max_sweeps)
        if self.stop == "sweeps" or run.target(self.n_sweeps, self.burn_in, run.round + 1) > most:
            return torch.zeros_like(run.models, dtype=torch.bool)
        convergence = self._convergence_of(fitted.draws.log_joint, self._held_out_trace(fitted, held_out))
        return ~convergence.converged[run.models]

    def _chain_problem(self, batch: RaggedBatch, prior: NormalInverseWishart) -> ChainProblem:
        points, layout = batch.points, batch.layout
        keys = stream_keys(points, layout, self.n_chains, self.random_state)
        shape, rate = map(float, self.alpha_prior)
        if self.split_merge == AUTO:
            moves = moves_by_default(layout.sizes, batch.n_features)
        else:
            moves = torch.full_like(layout.sizes, float(self.split_merge), dtype=torch.float64)
        schedule = Schedule.of(self.burn_in, self.thin, self.search)
        contrast = None
        if schedule.n_search > 0:
            contrast = contrasting_labels(points, layout, keys, self.random_state, backend=self.backend)
        alpha_prior = (shape, rate) if self.alpha is None else None
        return ChainProblem(points, layout, prior, keys, moves, alpha_prior, schedule, self.backend, contrast)

    def _shapes_of_labels(self, batch: RaggedBatch) -> list[tuple[int, ...]]:
        return [(batch.n_points,), (self.n_chains, batch.n_points)]

    def _start_labels(self, valid: Partition, problem: ChainProblem) -> Tensor:
        labels = self._initial_labels(valid, self._shapes_of_labels(valid.whole))
        if labels is not None:
            return labels
        data = problem.points, problem.layout, problem.keys
        most = COARSE_CLUSTERS if problem.schedule.n_search > 0 else None
        options: dict[str, Any] = {"most_clusters": most, "backend": self.backend}
        return start_labels(self.init, *data, self.init_components, self.random_state, **options)

    def _start_alpha(self) -> float:
        shape, rate = map(float, self.alpha_prior)
        return shape / rate if self.alpha is None else float(self.alpha)

    def _sample(self, problem: ChainProblem, file: StateFile | None, checkpoint_every: int) -> None:
        """Continue the run to the end of its round; whatever happens, it is left after its last whole launch."""
        written = self._run.sweep
        models = f"{len(self._run.models)} models"
        target = self._run.target(self.n_sweeps, self.burn_in, self._run.round)
        with progress_bar("Gibbs sweeps", target, shown=self.progress) as advance:
            advance(min(self._run.sweep, target), models)
            try:
                for run, info in self._run.continued(problem, self.n_sweeps):
                    log_joint = float(info.log_joint[..., -1].mean())
                    advance(run.sweep - self._run.sweep, f"{models}, mean log-joint {log_joint:.2f}")
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
        self.n_sweeps_ = valid.scatter(self._run.n_sweeps_of_models)
        self.split_merge_ = valid.scatter(self._run.split_merge)


# The door returns one in place of the other.
DirichletProcessMixtures.register(VariationalDirichletProcessMixtures)
