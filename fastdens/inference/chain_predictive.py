"""The posterior predictive density of Dirichlet-process mixtures, from kept draws of their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import (
    NormalInverseWishart,
    log_predictive_left_out,
    predictive_student_t,
    prior_predictive,
)
from fastdens.distributions.student_t_mixture import StudentTComponents, StudentTMixtureDensity
from fastdens.inference.cluster_predictive import Membership
from fastdens.inference.gibbs import Draws
from fastdens.inference.predictive import FittedModels, PredictiveOptions, refuse_tracing
from fastdens.kernels.layout import Layout, offsets_of
from fastdens.kernels.surroundings import outside_transforms, undisturbed
from fastdens.partitions import PartitionEstimate, point_estimate

WEIGHTINGS = ("exact", "published")
# Of points in float64 while their density is made.
_COPIES = 5
AVERAGES = ("density", "log_density")


@dataclass(frozen=True)
class FittedChains(FittedModels):
    """Fitted models by the kept draws of their chains.

    Attributes
    ----------
    draws : Draws
        Of the A models, their rows in the order of ``batch``.
    """

    draws: Draws
    _estimates: dict[tuple[int, str], PartitionEstimate] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def component_counts(self) -> list[int]:
        """Clusters of all draws, and the component of the prior."""
        counts: list[int] = (self.draws.n_components.sum((1, 2)) + 1).tolist()
        return counts

    def density_of(self, begin: int, end: int, options: PredictiveOptions) -> StudentTMixtureDensity:
        """The predictive density of the fitted models ``begin:end``."""
        return self._density_of(begin, end, self.draws, options)

    def _density_of(self, begin: int, end: int, draws: Draws, options: PredictiveOptions) -> StudentTMixtureDensity:
        """The predictive density of some of the fitted models over some of the draws."""
        models = slice(begin, end)
        part = self.batch.part(begin, end).to(dtype=options.dtype)
        rows = slice(*self.batch.offsets[[begin, end]].tolist())
        return posterior_predictive(
            part.points, part.layout, draws.select(models, rows), self.prior.select(models), options
        )

    @property
    def n_draws(self) -> int:
        """Kept draws of all chains."""
        return self.draws.alpha[0].numel()

    def draw_densities(self, options: PredictiveOptions) -> Iterator[StudentTMixtureDensity]:
        """The predictive density of all M models in each kept draw alone, chain after chain."""
        refuse_tracing()
        n_chains, n_draws = self.draws.alpha.shape[1:]
        # The caller iterates, whose surroundings may not be those of the first call.
        density_of_draw = undisturbed(self._density_of_draw, lasting=True)
        for c in range(n_chains):
            for s in range(n_draws):
                yield density_of_draw(c, s, options)

    def _density_of_draw(self, chain: int, draw: int, options: PredictiveOptions) -> StudentTMixtureDensity:
        one = self.draws.one(chain, draw)
        with outside_transforms():
            return self.of_all_models(
                [self._density_of(begin, end, one, options) for begin, end in self._groups()], options
            )

    def _groups(self) -> list[tuple[int, int]]:
        """Runs of fitted models whose points are in memory together."""
        # In float64, centred, and a copy to spare.
        return self.batch.groups(_COPIES * 8 * self.batch.n_features * self.batch.sizes.double(), "the density of")

    def labels_of(self, own: int) -> Tensor:
        """Labels int32 [S * C, n], in all draws, of the points of one of the A models, in the caller's row order."""
        rows = slice(*self.batch.ranges[own].tolist())
        return self.draws.labels[..., rows][..., self.batch.index[rows].argsort()].flatten(0, 1)

    def partition(self, own: int, loss: str) -> PartitionEstimate:
        """The point estimate of the partition of one of the A models, in the caller's row order; found once."""
        if (own, loss) not in self._estimates:
            self._estimates[own, loss] = point_estimate(self.labels_of(own), loss)
        return self._estimates[own, loss]

    def membership(self, loss: str) -> Membership:
        """The shares of the clusters of all draws in those of the point estimates."""
        batch, model = self.batch, self.batch.model_of_row
        clusters = torch.empty_like(batch.index)
        for own, rows in enumerate(batch.ranges.tolist()):
            of_own = clusters[slice(*rows)]
            of_own[batch.index[slice(*rows)].argsort()] = self.partition(own, loss).labels
        # Components of a density count through the draws of a model, and then comes its prior.
        counts = self.draws.n_components.transpose(1, 2).flatten(1).long()
        offsets = offsets_of(counts.sum(1) + 1)
        first = offsets[:-1, None] + counts.cumsum(1) - counts
        components = (first[model, i] + draw for i, draw in enumerate(self.draws.labels.flatten(0, 1)))
        return Membership.of_rows(components, clusters, offsets[1:] - 1, int(clusters.max()) + 1)

    def mean_log_prob(self, x: Tensor, options: PredictiveOptions) -> Tensor:
        """Mean over the draws of the log-density of points [N, D] under every model, [N, M]; NaN where one failed."""
        total = reduce(torch.add, (density.log_prob(x).double() for density in self.draw_densities(options)))
        return (total / self.n_draws).to(options.dtype or self.batch.dtype)

    def mean_log_scores(self, batch: RaggedBatch, options: PredictiveOptions) -> Tensor:
        """Mean over the draws of the log-density of each point of M models under its own, [N] in the caller's order."""
        dtype = options.dtype or self.batch.dtype
        total = reduce(torch.add, (density.score_samples(batch).double() for density in self.draw_densities(options)))
        return (total / self.n_draws).to(dtype)

    def log_density_trace(self, batch: RaggedBatch, options: PredictiveOptions) -> Tensor:
        """Mean log-density, in each draw alone, of other points of the A models, at least one of each: [A, C, S]."""
        own = self.batch
        points = own.points.to(options.dtype or own.points.dtype)
        n_chains, n_draws = self.draws.alpha.shape[1:]
        trace = torch.empty(self.draws.alpha.shape, dtype=torch.float64, device=points.device)
        for c in range(n_chains):
            for s in range(n_draws):
                density = posterior_predictive(points, own.layout, self.draws.one(c, s), self.prior, options)
                log_prob = density.own_log_prob(batch.to(dtype=points.dtype)).double()
                trace[:, c, s] = torch.segment_reduce(log_prob, "mean", lengths=batch.sizes)
        return trace

    def leave_one_out(self, options: PredictiveOptions, average: str) -> Tensor:
        """:func:`leave_one_out` of the (sorted) rows of ``batch``."""
        scores = []
        for begin, end in self._groups():
            part = self.batch.part(begin, end)
            models, rows = slice(begin, end), slice(*self.batch.offsets[[begin, end]].tolist())
            own = self.draws.select(models, rows), self.prior.select(models)
            scores.append(leave_one_out(part.points, part.layout, *own, options, average))
        return torch.cat(scores)


def posterior_predictive(
    points: Tensor, layout: Layout, draws: Draws, prior: NormalInverseWishart, options: PredictiveOptions
) -> StudentTMixtureDensity:
    """The predictive density of a new point, averaged over all kept draws.

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    layout : Layout
    draws : Draws
    prior : NormalInverseWishart
    options : PredictiveOptions
        The weighting "exact" gives the Student-t of cluster k the weight n_k / (alpha + n) and that of the prior
        alpha / (alpha + n); "published" weights clusters in proportion to alpha + n_k and leaves the prior out, as the
        published code does. The dtype is that of the points.

    Returns
    -------
    StudentTMixtureDensity
        The last component of a model is the predictive of its prior, which is the same in every draw.

    References
    ----------
    Neal 2000, section 2. Jamroz, Kurdziel & Opala, A Bayesian nonparametrics view into deep representations, 2020.
    """
    n_models, n_chains, n_draws = draws.alpha.shape
    n_slots = int(draws.n_components.max())
    sizes = layout.sizes.double()[:, None]
    log_share = -torch.tensor(n_chains * n_draws, dtype=torch.float64, device=points.device).log()
    models: list[Tensor] = []
    parts: list[StudentTComponents] = []
    for s in range(n_draws):
        for c in range(n_chains):
            own = kernels.niw_posterior(
                points,
                layout,
                draws.labels[s, c],
                n_slots,
                prior.mean,
                prior.scale_diagonal,
                prior.kappa,
                backend=options.backend,
            )
            used, n, alpha = own.counts > 0, own.counts.double(), draws.alpha[:, c, s, None]
            if options.weighting == "exact":
                log_weights = (n / (alpha + sizes)).log()
            else:
                n_clusters = used.sum(1, keepdim=True)
                log_weights = ((alpha + n) / (n_clusters * alpha + sizes)).log()
            models.append(torch.nonzero(used)[:, 0])
            parts.append(
                predictive_student_t(
                    log_weights[used] + log_share,
                    prior.kappa + n[used],
                    prior.nu + n[used],
                    own.mean[used],
                    own.precisions_cholesky[used],
                    dtype=points.dtype,
                )
            )
    if options.weighting == "exact":
        mass = (draws.alpha / (draws.alpha + sizes[:, None])).mean((1, 2))
        models.append(torch.arange(n_models, device=points.device))
        parts.append(prior_predictive(prior, mass.log(), dtype=points.dtype))
    model = torch.cat(models)
    order = torch.argsort(model, stable=True)
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    # Both copies of the matrices do not fit beside a third.
    del parts
    components = StudentTComponents(*(column[order] for column in columns))
    return StudentTMixtureDensity.from_components(
        torch.bincount(model, minlength=n_models), [components], **options.kernel_options
    )


def leave_one_out(
    points: Tensor,
    layout: Layout,
    draws: Draws,
    prior: NormalInverseWishart,
    options: PredictiveOptions,
    average: str = "density",
) -> Tensor:
    """Log predictive density of each point, left out of its own cluster in every kept draw.

    ``(sum_k n_k t_k(x_i) + alpha t_0(x_i)) / (alpha + n - 1)``, with n_k and t_k without point i: the weights that a
    single-site update of the point would draw from, summed. The published weights are instead
    ``(sum_k (alpha + n_k) t_k(x_i)) / (K alpha + n - 1)`` over the K clusters that hold other points.

    Parameters
    ----------
    points, layout, draws, prior, options
        As for :func:`posterior_predictive`.
    average : {"density", "log_density"}
        The log of the mean over draws of the density, or the mean of its log.

    Returns
    -------
    Tensor
        float64 [N]. With the published weights, a point that is alone in its model has a density of zero.

    References
    ----------
    Gelfand & Dey, Bayesian model choice: asymptotics and exact calculations, JRSS B 56, 1994 (predictive of a point
    given the others). Neal 2000, algorithm 3.
    """
    n_models, n_chains, n_draws = draws.alpha.shape
    model = layout.rows.model
    n_slots, dtype, d = int(draws.n_components.max()), torch.float64, points.shape[1]
    x = points.double() - prior.mean[model]
    centred = prior.centred()
    offsets = torch.arange(n_models + 1, device=points.device)
    rows = torch.arange(len(points), device=points.device)
    others = layout.sizes[model] - 1

    def log_t(components: StudentTComponents) -> Tensor:
        return kernels.student_t_log_prob(x, offsets, *components, layout=layout, **options.kernel_options)

    flat = x.new_zeros(n_models)
    of_prior = log_t(prior_predictive(centred, flat, dtype=dtype))
    # Of densities or of their logs.
    add, nothing = (torch.logaddexp, -torch.inf) if average == "density" else (torch.add, 0.0)
    sum_of_draws = torch.full_like(of_prior, nothing)
    for s in range(n_draws):
        for c in range(n_chains):
            label = draws.labels[s, c].long()
            own = kernels.niw_posterior(
                x, layout, label, n_slots, centred.mean, prior.scale_diagonal, prior.kappa, backend=options.backend
            )
            n = own.counts.double()
            kappa, nu = prior.kappa + n, prior.nu + n
            clusters = [
                predictive_student_t(
                    flat, kappa[:, k], nu[:, k], own.mean[:, k], own.precisions_cholesky[:, k].contiguous(), dtype=dtype
                )
                for k in range(n_slots)
            ]
            log_density = torch.stack([log_t(cluster) for cluster in clusters], 1)
            kappa, nu, n = kappa[model, label], nu[model, label], n[model]
            log_density[rows, label] = log_predictive_left_out(
                log_density[rows, label], kappa, nu, own.log_det[model, label], d
            )
            n[rows, label] -= 1
            alpha = draws.alpha[:, c, s][model]
            if options.weighting == "exact":
                mass, total = torch.cat([n, alpha[:, None]], 1), alpha + others
                log_density = torch.cat([log_density, of_prior[:, None]], 1)
            else:
                mass = torch.where(n > 0, alpha[:, None] + n, 0.0)
                total = (n > 0).sum(1) * alpha + others
            # A cluster without other points has no density.
            log_density = torch.where(mass > 0, log_density, 0.0)
            sum_of_draws = add(sum_of_draws, torch.logsumexp(mass.log() + log_density, 1) - total.log())
    if average == "density":
        return sum_of_draws - torch.tensor(n_chains * n_draws, dtype=dtype, device=points.device).log()
    return sum_of_draws / (n_chains * n_draws)
