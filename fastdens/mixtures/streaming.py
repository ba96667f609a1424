"""Gaussian mixtures of streams: a batch of points at a time, by stepwise EM."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.inference.coordinate_ascent import Ascent, select
from fastdens.inference.em import EMInfo, EMProblem, EMState, weights_for_em
from fastdens.inference.kept_points import KeptPoints
from fastdens.inference.stepwise_em import (
    Averages,
    Schedule,
    averages_of_batch,
    averages_of_parameters,
    maximization,
    step,
)
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.covariances import TIED_ACROSS_MODELS, check_can_stream
from fastdens.mixtures.failures import Failures, failures_of, non_finite, out_of_range, raise_failures
from fastdens.mixtures.partition import Partition

# A start from fewer points for each component is one that later points do not mend; where covariances are full, they
# have to be more than the dimensions, too.
_POINTS_OF_COMPONENT, _POINTS_OF_DIMENSION = 128, 4
_LOST = "lost a positive definite covariance in the stream: raise reg_covar, or compute in dtype=torch.float64"


# What a saved fit calls the averages of a stream, and the points that it keeps.
_SAVED_AVERAGES = ("stream_nk", "stream_means", "stream_scatter", "stream_total")
_SAVED_KEPT = ("kept_points", "kept_weights", "kept_sizes")


def step_power(name: str, value: object) -> None:
    """A power for which steps shrink neither too fast nor too slowly to converge."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 < value <= 1:
        raise ValueError(f"{name} is {value!r}, but it must be a number over 0.5 and at most 1.")


class Stream(NamedTuple):
    """Where M models stand.

    Attributes
    ----------
    averages : Averages
        float64; of models that have not started, any.
    weights, covariances, precisions_cholesky : Tensor
        The parameters that follow from them; NaN for models that have not started. The means are those of the averages.
    n_points, n_steps : Tensor
        float64 and int64 [M], the sum of the weights of each model's points, and its steps.
    kept : KeptPoints
        The points of models that have few.
    """

    averages: Averages
    weights: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    n_points: Tensor
    n_steps: Tensor
    kept: KeptPoints

    @classmethod
    def begin(
        cls, batch: RaggedBatch, n_components: int, covariance_shape: tuple[int, ...], dtype: torch.dtype
    ) -> Self:
        """The beginning, where no model has a point."""
        shape, d = (batch.n_models, n_components), batch.n_features

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=batch.device)

        matrices = zeros(*covariance_shape)
        averages = Averages(zeros(*shape), zeros(*shape, d), matrices, zeros(batch.n_models))
        unknown = torch.full_like(matrices, float("nan"), dtype=dtype)
        weights = unknown.new_full(shape, float("nan"))
        kept = KeptPoints.none(batch.n_models, unknown.new_empty(0, d))
        return cls(averages, weights, unknown, unknown, averages.total, torch.zeros_like(kept.sizes), kept)

    @property
    def is_started(self) -> Tensor:
        """Which models have parameters, bool [M]."""
        return ~self.weights.isnan().any(1)

    @property
    def is_young(self) -> Tensor:
        """Which models keep their points, bool [M]."""
        return (self.n_points == 0) | (self.kept.sizes > 0)

    def put(self, models: Tensor, **values: Any) -> Stream:
        """With fields of some models, int64 [A] in ascending order, replaced."""
        return self._replace(**{name: _replaced(getattr(self, name), models, new) for name, new in values.items()})


def _replaced(old: Any, models: Tensor, new: Any) -> Any:
    if isinstance(old, KeptPoints):
        return old.replaced(models, new)
    if isinstance(old, Tensor):
        return new if len(new) == len(old) else old.index_copy(0, models, new)
    return type(old)(*(_replaced(a, models, b) for a, b in zip(old, new, strict=True)))


class StreamedMixtures(BaseMixtures):
    """Base of the estimator of Gaussian mixtures: what it does with a stream."""

    n_components: int
    covariance_type: str
    shrinkage: str | float | None
    reg_covar: float
    step_power: float
    start_points: int | None

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor
    converged_: Tensor
    n_iter_: Tensor
    lower_bound_: Tensor
    n_points_seen_: Tensor
    skipped_: Failures
    _stream: Stream | None = None

    @abstractmethod
    def _covariance_shape(self, n_models: int, n_features: int) -> tuple[int, ...]:
        """The shape of ``covariances_``."""

    @abstractmethod
    def _initial_parameters(self, batch: RaggedBatch) -> dict[str, Tensor]:
        """Initial weights, means and precisions of all models, checked; those that are None are left out."""

    @abstractmethod
    def _fit_models(self, valid: Partition, initial: dict[str, Tensor]) -> Ascent[EMState, EMInfo]:
        """The best ascent for each of the models to fit."""

    def partial_fit(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Self:
        """Learn from one batch of a stream, by a step of stepwise EM in each model that has points in it.

        The first call fixes the models: pass all classes to ``RaggedBatch.from_labels(x, y, classes=...)``. Models
        without points in a batch stay as they are. After ``fit``, the stream goes on from the fit, whose points count
        as seen.

        A step moves averages over all points that a model has seen by
        ``gamma = (b / u) * (u / n) ** step_power`` towards those of the batch, where b of the n points seen by now are
        the batch's and ``u`` is the larger of b and ``start_points``. Until n is more than that, and always with
        ``step_power=1``, all points count alike.

        A model starts with an ordinary fit, once it has as many points as components. It keeps its first
        ``start_points`` points, and starts anew from all of them whenever their number has doubled.

        Parameters
        ----------
        batch : RaggedBatch
            Points [N, D] of the same models in every call, in memory or on disk.
        sample_weight : array or Tensor, optional
            [N], in the caller's row order, as for ``batch.weighted(sample_weight)``.

        Returns
        -------
        GaussianMixtures
            Itself. Models that have too few points so far have NaN as parameters, and so as scores; ``failed_`` and
            ``failures_`` name them.

        Raises
        ------
        ModelError
            If a model has NaN or infinity in the batch, or loses a positive definite covariance, and ``on_error`` is
            "raise": all models stay as they were. With "skip" those alone do, and ``skipped_`` names them.
        TypeError, ValueError
            If a parameter is invalid, or the batch is one of other models.

        References
        ----------
        Cappe & Moulines, On-line expectation-maximization algorithm for latent data models, JRSS B 71, 2009.
        Liang & Klein, Online EM for unsupervised models, NAACL 2009.

        Examples
        --------
        >>> import torch, fastdens as fd
        >>> gm = fd.GaussianMixtures(n_components=2)
        >>> for _ in range(10):
        ...     x, y = torch.randn(200, 8), torch.randint(5, (200,))
        ...     gm = gm.partial_fit(fd.RaggedBatch.from_labels(x, y, classes=range(5)))
        >>> gm.n_points_seen_.sum()
        tensor(2000., dtype=torch.float64)
        """
        self._check_parameters()
        check_can_stream(self.shrinkage, self.covariance_type)
        checked = self._weighted(batch, sample_weight)
        stream, initial = self._begun(checked), self._initial_parameters(checked)
        skipped = failures_of(checked, lambda part: self._bad_rows(part, stream.weights.dtype))
        remedy = "on_error='skip' leaves the batch's points of such models out"
        if self.on_error == "raise":
            raise_failures(checked, skipped, remedy)
        takes = stream.is_young | stream.is_started
        takes[list(skipped)] = False
        for begin, end in checked.groups(self._fit_bytes(checked)[0], "fitting"):
            part = checked.part(begin, end).without_zero_weights()
            own = ((part.sizes > 0) & takes[begin:end]).nonzero()[:, 0]
            if len(own):
                points = part.select(own).to(dtype=stream.weights.dtype)
                stream, is_lost = self._with_points(stream, begin + own, points, initial)
                skipped.update(dict.fromkeys((begin + own[is_lost]).tolist(), _LOST))
        if self.on_error == "raise":
            raise_failures(checked, skipped, remedy)
        self._set_stream(stream, checked)
        self.skipped_ = dict(sorted(skipped.items()))
        return self

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.start_points is not None and self.start_points < self.n_components:
            raise ValueError(
                f"start_points is {self.start_points}, but a start of {self.n_components} components takes at least as "
                "many."
            )

    def _check_unchanged(self, batch: RaggedBatch, models: Tensor) -> None:
        if self.covariance_type == TIED_ACROSS_MODELS:
            raise ValueError(
                f"covariance_type is {TIED_ACROSS_MODELS!r}, so that no model stays as it is while another changes: "
                "call fit(batch)."
            )
        if self._stream is not None:
            raise ValueError("a refit keeps models of a fit, but these have learned from a stream: call fit(batch).")

    def _bad_rows(self, batch: RaggedBatch, dtype: torch.dtype) -> Failures:
        return {**out_of_range(batch, dtype), **non_finite(batch)}

    def _begun(self, batch: RaggedBatch) -> Stream:
        """Where the stream stands before the batch: where the last one left it, or a fit, or at its beginning."""
        covariance_shape = self._covariance_shape(batch.n_models, batch.n_features)
        if not hasattr(self, "failed_"):
            return Stream.begin(batch, self.n_components, covariance_shape, self.dtype or batch.dtype)
        self._check_models(batch)
        if self.covariances_.shape != covariance_shape or self.weights_.shape[1] != self.n_components:
            raise ValueError(
                "n_components or covariance_type has changed since this estimator was fitted: change it back, or make "
                "another estimator for the stream."
            )
        if self._stream is not None:
            return self._stream
        if not hasattr(self, "n_points_seen_"):
            raise ValueError("this fit was saved without the number of its points, to go on from: fit it again.")
        state = EMState(self.weights_, self.means_, self.precisions_cholesky_)
        averages = averages_of_parameters(state, self.covariances_, self.lower_bound_, **self._kind)
        return Stream(
            # Of models that failed, they must not be NaN.
            Averages(*(value.nan_to_num() for value in averages)),
            self.weights_,
            self.covariances_,
            self.precisions_cholesky_,
            self.n_points_seen_,
            self.n_iter_,
            KeptPoints.none(batch.n_models, self.means_[:0, 0]),
        )

    @property
    def _kind(self) -> dict[str, Any]:
        return {"covariance_type": self.covariance_type, "reg_covar": self.reg_covar}

    def _points_of_start(self, n_features: int) -> int:
        """``start_points``, or as many as a start takes that is as good as any."""
        if self.start_points is not None:
            return self.start_points
        of_dimensions = _POINTS_OF_DIMENSION * n_features if self.covariance_type == "full" else 0
        return self.n_components * max(_POINTS_OF_COMPONENT, of_dimensions)

    def _most_kept(self, n_features: int) -> int:
        """Points that a model keeps at most."""
        if self.n_components > 1:
            return self._points_of_start(n_features)
        # One component needs no start, but for a covariance with an inverse.
        return 1 if self.reg_covar > 0 else 2 * (n_features + 1)

    def _with_points(
        self, stream: Stream, models: Tensor, batch: RaggedBatch, initial: dict[str, Tensor]
    ) -> tuple[Stream, Tensor]:
        """Where the stream stands after points of some models, at least one of each; and which are lost, bool [A]."""
        young = stream.is_young[models]
        is_lost = torch.zeros_like(young)
        few, many = young.nonzero()[:, 0], (~young).nonzero()[:, 0]
        if len(few):
            stream, is_lost[few] = self._with_first_points(stream, models[few], batch.select(few), initial)
        if len(many):
            points = batch.select(many)
            whole = torch.zeros_like(many, dtype=torch.bool)
            stream, is_lost[many] = self._with_step(stream, models[many], points, points.total_weights, whole)
        return stream, is_lost

    def _with_first_points(
        self, stream: Stream, models: Tensor, batch: RaggedBatch, initial: dict[str, Tensor]
    ) -> tuple[Stream, Tensor]:
        """The same for models that keep their points."""
        weights = torch.ones_like(batch.index, dtype=torch.float64) if batch.weights is None else batch.weights
        arrived, before = KeptPoints(batch.points, weights, batch.sizes), stream.kept.select(models)
        pool = before.joined(arrived)
        counts, k = pool.counts, self.n_components
        is_full = counts >= self._most_kept(batch.n_features)
        doubled = _times_doubled(counts, k) > _times_doubled(before.counts, k)
        anew = (is_full | doubled).nonzero()[:, 0]
        stream, has_start = self._with_starts(stream, models[anew], _batch_of(pool.select(anew), batch), initial)

        # A model that starts takes a step over all that it has kept, any other over what has arrived.
        fresh = anew[has_start]
        work = _batch_of(arrived.replaced(fresh, pool.select(fresh)), batch)
        going = stream.is_started[models].nonzero()[:, 0]
        added, n_points = arrived.total_weights, stream.n_points[models]
        if len(going):
            is_fresh = torch.isin(going, fresh)
            stream, _ = self._with_step(stream, models[going], work.select(going), added[going], is_fresh)
        waits = (~is_full).nonzero()[:, 0]
        kept = KeptPoints.none(len(models), batch.points).replaced(waits, pool.select(waits))
        stream = stream.put(models, kept=kept, n_points=n_points + added)
        return stream, is_full & ~stream.is_started[models]

    def _with_starts(
        self, stream: Stream, models: Tensor, batch: RaggedBatch, initial: dict[str, Tensor]
    ) -> tuple[Stream, Tensor]:
        """With ordinary fits of some models in place of what there was; and which of them have one, bool [A]."""
        if not len(models):
            return stream, torch.zeros_like(models, dtype=torch.bool)
        own = {name: value[models] for name, value in initial.items()}
        fit = self._fit_models(Partition.of(batch, {}), own)
        good = ~fit.info.bad
        state, info, *_ = fit.select(good)
        averages = averages_of_parameters(state, info.covariances, info.lower_bound, **self._kind)
        matrices = {"covariances": info.covariances, "precisions_cholesky": state.precisions_cholesky}
        return stream.put(models[good], averages=averages, weights=state.weights, **matrices), good

    def _with_step(
        self, stream: Stream, models: Tensor, batch: RaggedBatch, added: Tensor, is_fresh: Tensor
    ) -> tuple[Stream, Tensor]:
        """With a step of some models, a whole one where they are fresh; and which of them have none, bool [A]."""
        before = select(stream.averages, models)
        # Differences from a component's mean lose nothing to rounding, wherever the points lie.
        heaviest = before.nk.argmax(1)
        origin = before.means[torch.arange(len(models), device=models.device), heaviest].to(batch.dtype)
        points = torch.repeat_interleave(origin, batch.sizes, 0)
        torch.sub(batch.points, points, out=points)
        weights = None if batch.weights is None else weights_for_em(batch.weights, batch.layout, points.dtype)
        options = self.covariance_type, self.reg_covar, self.backend, self.matmul_precision
        problem = EMProblem(points, batch.layout, *options, weights)
        means = (before.means - origin[:, None]).to(points.dtype)
        state = EMState(stream.weights[models], means, stream.precisions_cholesky[models])
        of_batch = averages_of_batch(problem, origin, state)

        schedule = Schedule(float(self._points_of_start(batch.n_features)), self.step_power)
        n_points = stream.n_points[models]
        sizes = torch.where(is_fresh, 1.0, schedule.step_sizes(n_points, added))
        averages = step(before, of_batch, sizes, self.covariance_type)
        new = maximization(averages, n_points + added, points.dtype, backend=self.backend, **self._kind)
        good = ~new.bad
        stream = stream.put(
            models[good],
            averages=select(averages, good),
            weights=new.weights[good],
            covariances=new.covariances[good],
            precisions_cholesky=new.precisions_cholesky[good],
            n_points=(n_points + added)[good],
            n_steps=stream.n_steps[models[good]] + 1,
        )
        return stream, new.bad

    def _set_stream(self, stream: Stream, batch: RaggedBatch) -> None:
        """Set the attributes of a fit, and what the stream goes on from."""
        known, failed = stream.is_started, ~stream.is_started
        failures, counts = {}, stream.kept.counts.tolist()
        for m in (failed & ~stream.is_young).nonzero()[:, 0].tolist():
            failures[m] = _LOST
        for m in (failed & stream.is_young).nonzero()[:, 0].tolist():
            failures[m] = self._reason_to_wait(counts[m])
        self.failed_, self.failures_ = failed, dict(sorted(failures.items()))
        if not hasattr(self, "classes_"):
            self.classes_ = batch.classes
        averages = stream.averages
        unknown = torch.full_like(averages.means, float("nan"))
        self.means_ = torch.where(known[:, None, None], averages.means, unknown).to(stream.weights.dtype)
        self.weights_, self.covariances_ = stream.weights, stream.covariances
        self.precisions_cholesky_ = stream.precisions_cholesky
        self.lower_bound_ = torch.where(known, averages.total, unknown[:, 0, 0])
        self.n_iter_, self.converged_ = stream.n_steps, torch.zeros_like(known)
        self.n_points_seen_ = stream.n_points
        self._stream = stream

    def _end_stream(self) -> None:
        """Forget a stream: the attributes are those of a fit."""
        self._stream = None
        vars(self).pop("skipped_", None)

    def _stream_tensors(self) -> dict[str, Tensor]:
        """What a saved fit has for :meth:`partial_fit` to go on from."""
        tensors = {"n_points_seen_": self.n_points_seen_} if hasattr(self, "n_points_seen_") else {}
        if self._stream is not None:
            tensors |= dict(zip(_SAVED_AVERAGES, self._stream.averages, strict=True))
            tensors |= dict(zip(_SAVED_KEPT, self._stream.kept, strict=True))
        return tensors

    def _expected_stream(self, names: Collection[str], matrices: str) -> dict[str, str]:
        """Kinds and shapes of those of :meth:`_stream_tensors` that are among ``names``; none of an earlier version."""
        expected = {"n_points_seen_": "float M"} if "n_points_seen_" in names else {}
        if any(name in names for name in (*_SAVED_AVERAGES, *_SAVED_KEPT)):
            expected |= dict(
                zip(_SAVED_AVERAGES, ("float M K", "float M K D", f"float {matrices}", "float M"), strict=True)
            )
            expected |= dict(zip(_SAVED_KEPT, ("float N D", "float N", "int M"), strict=True))
        return expected

    def _set_stream_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`_stream_tensors` gave."""
        self._end_stream()
        if "n_points_seen_" in tensors:
            # Joined from parts of a fit, it is NaN where a model failed.
            self.n_points_seen_ = tensors["n_points_seen_"].nan_to_num()
        if _SAVED_KEPT[0] in tensors:
            averages = Averages(*(tensors[name] for name in _SAVED_AVERAGES))
            matrices = self.covariances_, self.precisions_cholesky_
            kept = KeptPoints(*(tensors[name] for name in _SAVED_KEPT))
            self._stream = Stream(averages, self.weights_, *matrices, self.n_points_seen_, self.n_iter_, kept)
            self.skipped_ = {}

    def _reason_to_wait(self, n_points: int) -> str:
        has, k = f"has {n_points} point{'s' * (n_points != 1)} so far", self.n_components
        if n_points >= k:
            return f"{has}, whose covariances are not positive definite: pass more of them, or raise reg_covar"
        need = "1 component needs" if k == 1 else f"{k} components need"
        return f"{has}, but {need} at least {k}: pass more of them"


def _batch_of(points: KeptPoints, like: RaggedBatch) -> RaggedBatch:
    """Points as a batch; models are not told by the classes of ``like``."""
    index = torch.arange(len(points.points), device=points.points.device)
    weights = None if bool((points.weights == 1).all()) else points.weights
    classes = tuple(range(len(points.sizes)))
    return RaggedBatch(points.points, points.offsets, index, classes, like.layer, weights)


def _times_doubled(n_points: Tensor, n_components: int) -> Tensor:
    """How often numbers of points int64 [A] have doubled since they were as many as components, and once for that."""
    return torch.frexp((n_points // n_components).double()).exponent
