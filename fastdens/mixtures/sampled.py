"""What the chains of fitted Dirichlet-process mixtures tell: convergence, partitions, saved fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_points
from fastdens.batch import RaggedBatch
from fastdens.convergence import ChainConvergence, chain_convergence, rhat_threshold
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.draws_for_arviz import to_arviz
from fastdens.errors import check_batch_of, check_integer
from fastdens.inference.chain_predictive import AVERAGES, FittedChains
from fastdens.inference.cluster_predictive import most_probable
from fastdens.inference.gibbs import Draws
from fastdens.inference.predictive import FittedModels, PredictiveOptions
from fastdens.io.expected import check_indices
from fastdens.kernels.options import check_choice
from fastdens.mixtures.base_dirichlet_process import BaseDirichletProcessMixtures
from fastdens.mixtures.failures import failures_of, non_finite, raise_failures, without_points
from fastdens.mixtures.partition import Partition
from fastdens.partitions import LOSSES, ClusterNumbers, PartitionEstimate, co_clustering, number_of_clusters

HELD_OUT = "held_out_log_density_"

# Chains that agree have at least this many effective draws each, unless they are asked for others.
_EFFECTIVE_DRAWS = 10
_TRACES = ("log_joint_", "sampled_labels_", "rhat_", "effective_sample_size_", "n_sweeps_", "split_merge_")
# Of fits that were saved before there were other starts, moves and features that do not vary.
_EARLIER_PARAMETERS = {"init": "random", "split_merge": 0.0, "search": 0.0, "variance_floor": 0.0}


class SampledMixtures(BaseDirichletProcessMixtures):
    """Base of the samplers' estimator: everything that is asked of chains once they have been run."""

    n_sweeps: int
    max_rhat: float | None
    min_ess: float | None

    log_joint_: Tensor
    sampled_labels_: Tensor
    rhat_: Tensor
    effective_sample_size_: Tensor
    n_sweeps_: Tensor
    split_merge_: Tensor
    held_out_log_density_: Tensor
    _fitted: FittedChains

    @property
    def convergence_(self) -> ChainConvergence:
        """Whether the chains of each model agree in the log-joint and, if there are any, at held-out points."""
        self._check_fitted()
        return self._convergence_of(self.log_joint_, getattr(self, HELD_OUT, None))

    def _convergence_of(self, log_joint: Tensor, held_out: Tensor | None) -> ChainConvergence:
        """The verdict on traces [M, C, S]."""
        traces = {"log-joint": log_joint} | ({} if held_out is None else {"held-out log-density": held_out})
        n_chains, n_draws = log_joint.shape[1:]
        max_rhat = rhat_threshold(n_chains, n_draws) if self.max_rhat is None else float(self.max_rhat)
        if math.isnan(max_rhat):
            # Too few draws for an R-hat: no limit is met.
            max_rhat = 0.0
        min_ess = n_chains * min(_EFFECTIVE_DRAWS, n_draws / 2) if self.min_ess is None else float(self.min_ess)
        return chain_convergence(traces, max_rhat, min_ess)

    def _without_weights(self, batch: object, sample_weight: ArrayLike | Tensor | None) -> RaggedBatch:
        """``batch`` if it is one and its points have no weights."""
        checked = self._weighted(batch, sample_weight)
        if checked.weights is not None:
            raise ValueError(
                "points have weights, which a sampler cannot use as it has whole points in its clusters: repeat rows, "
                "or fit with method='vb'."
            )
        return checked

    def _check_held_out(self, valid: Partition, held_out: RaggedBatch) -> RaggedBatch:
        """The held-out points of the models to fit."""
        checked = check_batch_of(held_out, valid.whole.n_models, valid.whole.n_features, valid.whole.device)
        self._without_weights(checked, None)
        failures = {**without_points(checked), **failures_of(checked, non_finite)}
        needed = {m: reason for m, reason in failures.items() if m not in valid.failures}
        raise_failures(checked, needed, "held_out needs points of each model")
        return checked.select(valid.models)

    def _held_out_trace(self, fitted: FittedChains, held_out: RaggedBatch | None) -> Tensor | None:
        if held_out is None:
            return None
        options = PredictiveOptions("exact", self.backend, self.matmul_precision, torch.float64)
        return fitted.log_density_trace(held_out, options)

    def draw_densities(self, weighting: str = "exact") -> Iterator[StudentTMixtureDensity]:
        """The predictive density of every model in each kept draw alone; a failed model has no components.

        Each is made when it is asked for: the components of all draws together may not fit into memory.

        Parameters
        ----------
        weighting : {"exact", "published"}
            As for :meth:`density`.

        Returns
        -------
        iterator of StudentTMixtureDensity
            C times S of them, chain after chain.

        Raises
        ------
        ValueError
            If ``weighting`` is neither of these.
        """
        options = self._predictive_options(weighting)
        return self._fitted.draw_densities(options)

    def log_prob(self, x: ArrayLike | Tensor, weighting: str = "exact", average: str = "density") -> Tensor:
        """Log-density of each point under every model; differentiable in ``x``.

        Differentiable in ``x``. Models are worked out in turn if their matrices together take too much memory.

        Models are worked out in turn if their matrices together take too much memory.

        Parameters
        ----------
        x : array or Tensor
            [N, D].
        weighting : {"exact", "published"}
            As for :meth:`density`.
        average : {"density", "log_density"}
            The log of the density averaged over kept draws, or the average of its logs, which is never larger and is
            what the published code reports.

        Returns
        -------
        Tensor
            [N, M], in nats; NaN under failed models.
        """
        options = self._predictive_options(weighting)
        if check_choice("average", average, AVERAGES) == "density":
            return super().log_prob(x, weighting)
        return self._fitted.mean_log_prob(x if isinstance(x, Tensor) else as_points(x), options)

    def score_samples(self, batch: RaggedBatch, weighting: str = "exact", average: str = "density") -> Tensor:
        """Log-density of each point under its own model.

        Points of the training data are scored by densities that were fitted to them: a few odd points that share a
        cluster of their own have a high density there. See :meth:`leave_one_out`.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models.
        weighting, average : str
            As for :meth:`log_prob`.

        Returns
        -------
        Tensor
            [N], in nats and in the caller's row order; NaN for failed models.
        """
        options = self._predictive_options(weighting)
        if check_choice("average", average, AVERAGES) == "density":
            return super().score_samples(batch, weighting)
        return self._fitted.mean_log_scores(self._check_scored(batch), options)

    def leave_one_out(self, weighting: str = "exact", average: str = "density") -> Tensor:
        """Log predictive density of each training point, left out of its own cluster in every kept draw.

        Parameters
        ----------
        weighting, average : str
            As for :meth:`log_prob`.

        Returns
        -------
        Tensor
            float64 [N], in the order of the rows that were fitted; NaN for failed models.
        """
        options = self._predictive_options(weighting)
        scores = self._fitted.leave_one_out(options, check_choice("average", average, AVERAGES))
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

    def partition(self, model: int, loss: str = "vi") -> PartitionEstimate:
        """The partition of a model's points that is closest to its kept draws; see :mod:`fastdens.partitions`.

        Parameters
        ----------
        model : int
            From 0 to M - 1.
        loss : {"vi", "binder"}
            Variation of information, or Binder's loss.

        Returns
        -------
        PartitionEstimate
            Labels of the model's points, in the caller's row order, and their expected loss in nats, or as a share.

        References
        ----------
        Wade & Ghahramani, Bayesian cluster analysis: point estimation and credible balls, Bayesian Analysis 13, 2018.
        """
        own = self._own_number(model)
        return self._fitted.partition(own, loss)

    def co_clustering(self, model: int) -> Tensor:
        """Share of the kept draws in which two points of a model are in the same cluster.

        Parameters
        ----------
        model : int
            From 0 to M - 1.

        Returns
        -------
        Tensor
            float64 [n, n], in the caller's row order.
        """
        own = self._own_number(model)
        return co_clustering(self._fitted.labels_of(own))

    def number_of_clusters(self, model: int) -> ClusterNumbers:
        """Numbers of clusters of a model and their probabilities: the shares of the kept draws of all chains.

        Parameters
        ----------
        model : int
            From 0 to M - 1.

        Returns
        -------
        ClusterNumbers
            The numbers that occur, ascending, and their probabilities.
        """
        self._own_number(model)
        return number_of_clusters(self.n_components_[model].flatten())

    def _own_number(self, model: int) -> int:
        """The number of a model among those that were fitted."""
        self._check_fitted()
        if check_integer("model", model, 0) >= len(self.failed_):
            raise ValueError(f"model is {model}, but there are models 0 to {len(self.failed_) - 1}.")
        if bool(self.failed_[model]):
            raise ValueError(f"model {model} failed, and has no partition: {self.failures_[model]}.")
        return int((self._fitted.models == model).nonzero()[0, 0])

    def predict_proba(self, batch: RaggedBatch, loss: str = "vi") -> Tensor:
        """Probability of each cluster of a point estimate for each point.

        The clusters are those of :meth:`partition`, numbered as there. In each kept draw a point joins the clusters in
        proportion to their responsibilities under :meth:`density`; the fitted points in these clusters carry it to the
        clusters of the estimate (``docs/mathematics/partitions.md`` has the formula). The first call finds the point
        estimates of all models, which takes long where models have many points.

        Parameters
        ----------
        batch : RaggedBatch
            Points of the fitted models, fitted or not.
        loss : {"vi", "binder"}
            Of the point estimate, as for :meth:`partition`.

        Returns
        -------
        Tensor
            [N, C + 1] in the caller's row order, rows that sum to one, with the C clusters of the model that has most;
            0 for clusters that a point's own model lacks. The last column is the probability that the point belongs to
            none of them. NaN for failed models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ModelError, TypeError, ValueError
            If the batch is not one of the fitted models, or ``loss`` is unknown.

        References
        ----------
        Wade & Ghahramani, Bayesian cluster analysis: point estimation and credible balls, Bayesian Analysis 13, 2018.
        Fritsch & Ickstadt, Improved criteria for clustering based on the posterior similarity matrix, Bayesian
        Analysis 4, 2009. Blei & Frazier, Distance dependent Chinese restaurant processes, JMLR 12, 2011.

        Examples
        --------
        >>> import torch, fastdens as fd
        >>> x = torch.cat([torch.randn(50, 2), torch.randn(50, 2) + 20])
        >>> batch = fd.RaggedBatch.from_list([x])
        >>> dp = fd.DirichletProcessMixtures(n_sweeps=60, burn_in=40, progress=False).fit(batch)
        >>> dp.predict(fd.RaggedBatch.from_list([[[20.0, 20.0], [0.0, 0.0]]])).tolist()
        [1, 0]
        """
        checked = self._check_scored(batch)
        membership = self._fitted.membership(check_choice("loss", loss, LOSSES))
        return self._fitted.cluster_probabilities(checked, self._predictive_options("exact"), membership)

    def predict(self, batch: RaggedBatch, loss: str = "vi") -> Tensor:
        """Most probable cluster of each point.

        The number is that of the cluster in :meth:`partition`. It is -1 where "none of them" is more probable than any
        cluster, and for failed models.

        Parameters
        ----------
        batch, loss : RaggedBatch, str
            As for :meth:`predict_proba`, with the same errors.

        Returns
        -------
        Tensor
            int64 [N], in the caller's row order; -1 for none.
        """
        return most_probable(self.predict_proba(batch, loss))

    def _kept_tensors(self) -> dict[str, Tensor]:
        draws = {f"draws_{name}": value for name, value in self._fitted.draws._asdict().items()}
        names = (*_TRACES, HELD_OUT) if hasattr(self, HELD_OUT) else _TRACES
        return draws | {name: getattr(self, name) for name in names}

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        expected = {"draws_labels": "int S C N", "draws_n_components": "int A C S", "draws_alpha": "float A C S"}
        expected |= {"draws_log_joint": "float A C S", "log_joint_": "float M C S", "sampled_labels_": "int S C R"}
        expected |= {"rhat_": "float M", "effective_sample_size_": "float M"}
        later = {"n_sweeps_": "int M", "split_merge_": "int M C 4", HELD_OUT: "float M C S"}
        expected |= {name: later[name] for name in later if name in names}
        return {**super()._expected_tensors(names), **expected}

    def _check_state(self, where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
        lengths = super()._check_state(where, tensors, metadata)
        # A draw has no more clusters than there are points, and numbers them from 0.
        check_indices(where, tensors, ["draws_n_components"], lengths["N"] + 1)
        n_components = tensors["draws_n_components"]
        check_indices(where, tensors, ["draws_labels"], int(n_components.max()) if n_components.numel() else 0)
        return lengths

    def _refitted(self, shared: dict[str, Any], tensors: Mapping[str, Tensor]) -> FittedModels:
        # Fits that were saved before there were split-merge moves lack what concerns them.
        n_models, n_chains = tensors["log_joint_"].shape[:2]
        self.n_sweeps_ = torch.where(self.failed_, 0, self.n_sweeps)
        self.split_merge_ = torch.zeros(n_models, n_chains, 4, dtype=torch.int64, device=self.failed_.device)
        for name in (*_TRACES, HELD_OUT):
            if name in tensors:
                setattr(self, name, tensors[name])
        return FittedChains(**shared, draws=Draws(**{name: tensors[f"draws_{name}"] for name in Draws._fields}))

    @classmethod
    def _with_parameters(cls, saved: Mapping[str, Any]) -> Self:
        return super()._with_parameters({**_EARLIER_PARAMETERS, **saved})
