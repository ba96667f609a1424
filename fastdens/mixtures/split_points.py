"""Fits of single models whose points are divided over ranks: the estimators, with other sums in the same iterations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference.coordinate_ascent import Ascent, join_ascents
from fastdens.inference.em import EMProblem, better_of, weights_for_em
from fastdens.inference.point_blocks import PointBlocks
from fastdens.inference.split_em import SplitProblem, expectation_maximization, layout_of_block
from fastdens.inference.split_seeding import kmeans_plusplus
from fastdens.inference.split_variational import SplitVariational, labels_of, nearest_labels, variational_inference
from fastdens.inference.variational import VariationalInfo, VariationalState
from fastdens.kernels.centre import central_points
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.gaussian import Fit, GaussianMixtures
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures
from fastdens.process_group import Group


def fit_points(estimator: BaseMixtures, batch: RaggedBatch, group: Group) -> BaseMixtures:
    """An estimator of the same parameters, fitted by all ranks; every rank has it.

    Each rank checks the whole batch and sums over its own rows of each model.

    Raises
    ------
    TypeError
        If the estimator samples: a sweep goes from point to point.
    ModelError
        As of ``estimator.fit``, on every rank.
    """
    if type(estimator) not in _SPLIT:
        raise TypeError(f"split is 'points', which {type(estimator).__name__} cannot do: use split='models'.")
    split = _SPLIT[type(estimator)](**{name: getattr(estimator, name) for name in estimator._parameter_names()})
    vars(split).update(estimator._start_of_models(batch, torch.arange(batch.n_models, device=batch.device)))
    # Ranks take the same steps, and groups of models that are fitted in view depend on the time.
    split.progress = False
    split.group = group
    with warnings.catch_warnings():
        # The caller warns, on one rank.
        warnings.simplefilter("ignore")
        split.fit(batch)
    del split.group
    split.progress = estimator.progress
    return split


class _SplitGaussianMixtures(GaussianMixtures):
    """Gaussian mixtures, a model at a time."""

    group: Group

    def _fit_models(self, valid: Partition, initial: dict[str, Tensor]) -> Fit:
        if not len(valid.models):
            return self._fit_of_no_models(valid.batch.points)
        return _joined([self._fit_model(valid, m, initial) for m in range(len(valid.models))])

    def _fit_model(self, valid: Partition, model: int, initial: dict[str, Tensor]) -> Fit:
        points, layout = valid.batch.points, valid.batch.layout
        start, stop = layout.ranges[model].tolist()
        origin = central_points(points, layout.select([model]))
        blocks = PointBlocks(stop - start, self.group)
        options = (self.covariance_type, self.reg_covar, self.backend, self.matmul_precision)
        weights, total = valid.batch.weights, float(stop - start)
        if weights is not None:
            weights = weights_for_em(weights[start:stop], layout_of_block(points[start:stop]), points.dtype)
            total = float(weights.sum(dtype=torch.float64))

        def of_rows(rows: slice) -> EMProblem:
            own = points[start:stop][rows] - origin
            return EMProblem(own, layout_of_block(own), *options, None if weights is None else weights[rows])

        problem = SplitProblem(
            blocks,
            total,
            of_rows(blocks.rows),
            lambda rows: points[start + rows] - origin,
            lambda: of_rows(slice(None)),
        )
        given = {name: value[valid.models[model]][None] for name, value in initial.items()}
        if "means" in given:
            given["means"] = given["means"] - origin[:, None]
        best = self._best_ascent(
            given,
            lambda start: expectation_maximization(problem, start, tol=self.tol, max_iter=self.max_iter),
            better_of,
        )
        return best._replace(state=best.state._replace(means=best.state.means + origin[:, None]))


class _SplitVariational(VariationalDirichletProcessMixtures):
    """Variational Dirichlet-process mixtures, a model at a time."""

    group: Group

    def _fit_models(
        self, valid: Partition, prior: NormalInverseWishart
    ) -> tuple[Ascent[VariationalState, VariationalInfo], Tensor]:
        given = self._given_start(valid)
        results, labels = zip(
            *(self._fit_model(valid, m, prior.select(slice(m, m + 1)), given) for m in range(len(valid.models))),
            strict=True,
        )
        return _joined(results), torch.cat(labels)

    def _fit_model(
        self, valid: Partition, model: int, prior: NormalInverseWishart, given: Tensor | None
    ) -> tuple[Ascent[VariationalState, VariationalInfo], Tensor]:
        points, layout = valid.batch.points, valid.batch.layout
        start, stop = layout.ranges[model].tolist()
        origin = central_points(points, layout.select([model])).double()
        blocks = PointBlocks(stop - start, self.group)

        def centred(rows: Tensor | slice) -> Tensor:
            return (points[start:stop][rows].double() - origin).to(self._dtype_of_fit(valid.batch))

        own = centred(blocks.rows)
        weights = self._weights_of_fit(valid.batch)
        weights = None if weights is None else weights[start:stop]
        of_prior = prior._replace(mean=prior.mean - origin)
        of_rank = None if weights is None else weights[blocks.rows]
        problem = SplitVariational(blocks, self._problem(own, layout.select([model]), of_prior, of_rank))
        if given is None:
            if weights is None:
                count = min(self.truncation, stop - start)
                chosen = kmeans_plusplus(blocks, own, centred, count, self.random_state)
            else:
                # Every rank chooses among all rows.
                whole = centred(slice(None))
                chosen = self._start_rows(whole, layout_of_block(whole), weights)[1][0]
            resp = self._one_component_each(nearest_labels(problem, centred(chosen)), own.dtype)
        else:
            resp = given[start:stop][blocks.rows]
        result = variational_inference(problem, resp, tol=self.tol, max_iter=self.max_iter)
        labels = labels_of(problem, result.state)
        means = result.state.means.double() + (origin - prior.mean)[:, None]
        return result._replace(state=result.state._replace(means=means)), labels


_SPLIT: dict[type[BaseMixtures], type[_SplitGaussianMixtures] | type[_SplitVariational]] = {
    GaussianMixtures: _SplitGaussianMixtures,
    VariationalDirichletProcessMixtures: _SplitVariational,
}


def _joined(ascents: Sequence[Ascent[Any, Any]]) -> Ascent[Any, Any]:
    return join_ascents([(torch.tensor([m], device=a.n_iter.device), a) for m, a in enumerate(ascents)])
