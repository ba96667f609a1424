"""Base class of the estimators of Dirichlet-process mixtures: prior, predictive densities, saved fits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_points, as_tensor
from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import NormalInverseWishart, constant_features, data_prior
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.errors import ConstantFeatureWarning, check_integer, check_non_negative, check_positive
from fastdens.inference.chain_predictive import WEIGHTINGS
from fastdens.inference.predictive import FittedModels, PredictiveOptions
from fastdens.io.expected import check_indices
from fastdens.kernels.options import check_choice
from fastdens.mixtures.base import BaseMixtures, Doubt, integer, optional
from fastdens.mixtures.failures import (
    Failures,
    non_finite,
    out_of_range,
    raise_failures,
    without_points,
    without_variance,
)
from fastdens.mixtures.partition import Partition


def _shape_and_rate(name: str, value: Any) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}, but it must be a shape and a rate.")
    for number in value:
        check_positive(name, number)


class BaseDirichletProcessMixtures(BaseMixtures):
    """Base of the samplers' and the variational estimator.

    A subclass keeps in ``_fitted`` the models from which predictive densities are made.
    """

    _parameter_constraints: ClassVar = {
        **BaseMixtures._parameter_constraints,
        "init_components": integer(1),
        "kappa0": check_positive,
        "variance_floor": check_non_negative,
        "alpha": optional(check_positive),
        "alpha_prior": _shape_and_rate,
        "truncation": integer(1),
        "max_iter": integer(1),
        "tol": check_non_negative,
    }
    _array_parameters = ("labels_init", "resp_init")
    _row_parameters: ClassVar = {"labels_init": -1, "resp_init": 0}

    method: str
    init_components: int
    kappa0: float
    nu0: float | None
    variance_floor: float
    alpha_prior: tuple[float, float]
    alpha: float | None
    labels_init: ArrayLike | Tensor | None

    n_components_: Tensor
    alpha_: Tensor
    labels_: Tensor
    prior_: NormalInverseWishart
    _fitted: FittedModels

    def __repr__(self) -> str:
        return f"DirichletProcessMixtures(method={self.method!r})"

    def _find_failures(self, batch: RaggedBatch) -> Failures:
        return {
            **out_of_range(batch, self._dtype_of_fit(batch)),
            **without_variance(batch, constant_features(batch.points, batch.layout), self.variance_floor),
            **non_finite(batch),
            **without_points(batch),
        }

    def _dtype_of_fit(self, batch: RaggedBatch) -> torch.dtype:
        """What the fit computes in."""
        return torch.float64

    def _checked_failures(self, batch: RaggedBatch, groups: Sequence[tuple[int, int]] | None = None) -> Failures:
        failures = super()._checked_failures(batch, groups)
        if len(failures) == batch.n_models:
            raise_failures(batch, failures, "there is no other model")
        return failures

    def _prior_of(self, batch: RaggedBatch) -> NormalInverseWishart:
        options = (self.kappa0, self.nu0, self.init_components, self.variance_floor)
        return data_prior(batch.points, batch.layout, *options, batch.weights)

    def _initial_labels(self, valid: Partition, shapes: list[tuple[int, ...]]) -> Tensor | None:
        """``labels_init``, checked, of the rows to fit; None if there are none."""
        if self.labels_init is None:
            return None
        labels = as_tensor(self.labels_init, "labels_init").detach().to(valid.models.device)
        if tuple(labels.shape) not in shapes or labels.is_floating_point():
            raise ValueError(
                f"labels_init is {labels.dtype} of shape {tuple(labels.shape)}, but it must be integers of shape "
                f"{' or '.join(map(str, shapes))}."
            )
        if bool((labels < 0).any()):
            raise ValueError("labels_init holds negative numbers, but clusters count from 0.")
        return labels[..., valid.batch.index].long()

    def _scatter_shared(self, valid: Partition, fitted: FittedModels) -> None:
        """Set the attributes that all estimators have."""
        self._set_failures(valid)
        self._fitted = fitted
        self.prior_ = fitted.prior._replace(
            mean=valid.scatter(fitted.prior.mean), scale_diagonal=valid.scatter(fitted.prior.scale_diagonal)
        )

    def _doubts(self) -> list[Doubt]:
        problem = "have features that do not vary and count as varying by variance_floor"
        remedy = "leave those features out, or pass another variance_floor"
        return [Doubt(self.constant_features_.any(1), problem, remedy, ConstantFeatureWarning)]

    @property
    def constant_features_(self) -> Tensor:
        """The features that do not vary within a model, bool [M, D]; False for models that failed."""
        self._check_fitted()
        batch, models = self._fitted.batch, self._fitted.models
        found = torch.zeros(self._fitted.n_models, batch.n_features, dtype=torch.bool, device=models.device)
        # The points, their differences, and whether these count.
        for begin, end in batch.groups(batch.sizes.double() * (32 * batch.n_features), "checking"):
            part = batch.part(begin, end).without_zero_weights()
            found[models[begin:end]] = constant_features(part.points, part.layout)
        return found

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        return self._fitted.batch.n_features, self._fitted.models.device

    def _check_unchanged(self, batch: RaggedBatch, models: Tensor) -> None:
        for begin, end in batch.groups(batch.sizes.double() * (16 * batch.n_features), "checking"):
            own = models[(models >= begin) & (models < end)]
            given = batch.part(begin, end).select(own - begin).without_zero_weights()
            fitted = self._fitted.batch.select(torch.searchsorted(self._fitted.models, own)).load()
            fitted = fitted.without_zero_weights()
            changed = given.sizes != fitted.sizes
            if not bool(changed.any()):
                differ = (given.points != fitted.points).any(1)
                # A saved fit has no weights.
                if given.weights is not None and fitted.weights is not None:
                    differ |= given.weights != fitted.weights
                changed[given.model_of_row[differ]] = True
            for m in changed.nonzero()[:, 0].tolist():
                raise ValueError(
                    f"{batch.describe(int(own[m]))} has other points than were fitted: name its class in classes, too."
                )

    def _predictive_options(self, weighting: str) -> PredictiveOptions:
        self._check_fitted()
        check_choice("weighting", weighting, WEIGHTINGS)
        return PredictiveOptions(weighting, self.backend, self.matmul_precision, self.dtype)

    def density(self, weighting: str = "exact") -> StudentTMixtureDensity:
        """The posterior predictive density of every model; a failed model has no components.

        Parameters
        ----------
        weighting : {"exact", "published"}
            "exact" is the predictive density, averaged over kept draws where there are draws: in each draw the
            Student-t of cluster k has weight n_k / (alpha + n), and that of the prior alpha / (alpha + n).
            "published" reproduces the published code, which weights clusters in proportion to alpha + n_k and leaves
            the prior out; it needs Gibbs draws.

        Returns
        -------
        StudentTMixtureDensity
            Of M models, in the dtype of the points or in ``dtype``.
        """
        options = self._predictive_options(weighting)
        return self._fitted.density(options)

    def log_prob(self, x: ArrayLike | Tensor, weighting: str = "exact") -> Tensor:
        """Log-density of each point under every model; differentiable in ``x``.

        Differentiable in ``x``. Models are worked out in turn if their matrices together take too much memory.

        Models are worked out in turn if their matrices together take too much memory.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the fit.
        weighting : {"exact", "published"}
            As for :meth:`density`.

        Returns
        -------
        Tensor
            [N, M], in nats; NaN under failed models.
        """
        options = self._predictive_options(weighting)
        return self._fitted.log_prob(x if isinstance(x, Tensor) else as_points(x), options)

    def score_samples(self, batch: RaggedBatch, weighting: str = "exact") -> Tensor:
        """Log-density of each point under its own model.

        Points of the training data are scored by densities that were fitted to them: a few odd points that share a
        cluster of their own have a high density there. See :meth:`DirichletProcessMixtures.leave_one_out`.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models.
        weighting : {"exact", "published"}
            As for :meth:`density`.

        Returns
        -------
        Tensor
            [N], in nats and in the caller's row order; NaN for failed models.
        """
        options = self._predictive_options(weighting)
        return self._fitted.score_samples(self._check_scored(batch), options)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from the posterior predictive density of every model.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the models. By default torch's own, which ``torch.manual_seed`` seeds.

        Returns
        -------
        points : Tensor
            [M, n, D]; NaN for failed models.
        components : Tensor
            int64 [M, n], the component of :meth:`density` within its model from which each point comes: one cluster of
            one kept draw, or the prior, which is the last one. -1 for failed models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If ``n`` is no integer of at least 1.
        """
        options = self._predictive_options("exact")
        return self._fitted.sample_components(check_integer("n", n, 1), options, generator)

    @abstractmethod
    def _kept_tensors(self) -> dict[str, Tensor]:
        """The tensors from which :meth:`_refitted` makes the fitted models and all other attributes."""

    @abstractmethod
    def _refitted(self, shared: dict[str, Any], tensors: Mapping[str, Tensor]) -> FittedModels:
        """Take back what :meth:`_kept_tensors` gave; ``shared`` are the fields of :class:`FittedModels`."""

    def _fitted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        batch = self._fitted.batch.load().without_zero_weights()
        tensors = {"points": batch.points, "offsets": batch.offsets, "order": batch.index}
        tensors |= {"models": self._fitted.models, **self._kept_tensors()}
        tensors |= {"labels_": self.labels_, "n_components_": self.n_components_, "alpha_": self.alpha_}
        tensors |= {"prior_mean": self.prior_.mean, "prior_scale": self.prior_.scale_diagonal}
        prior = [self.prior_.kappa, self.prior_.nu]
        return tensors, {"prior": prior, "layer": batch.layer}

    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        expected = {"points": "float N D", "offsets": "int A+1", "order": "int N", "models": "int A"}
        expected |= {"labels_": "int C R", "n_components_": "int M C S", "alpha_": "float M C S"}
        return {**expected, "prior_mean": "float M D", "prior_scale": "float M D"}

    def _check_state(self, where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
        lengths = super()._check_state(where, tensors, metadata)
        for name, n in (("order", lengths["R"]), ("models", lengths["M"]), ("offsets", lengths["N"] + 1)):
            check_indices(where, tensors, [name], n)
        match metadata:
            case {"prior": [float(), float()], "classes": [*_], "layer": str() | None}:
                sorted_ = bool((tensors["models"].diff() > 0).all()) and bool((tensors["offsets"].diff() >= 0).all())
            case _:
                sorted_ = False
        if not sorted_:
            raise ValueError(f"{where} has models out of order, or lacks their prior or classes: save the fit again.")
        return lengths

    def _set_fitted_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], batch: RaggedBatch | None = None
    ) -> None:
        for name in ("labels_", "n_components_", "alpha_"):
            setattr(self, name, tensors[name])
        self.prior_ = NormalInverseWishart(tensors["prior_mean"], tensors["prior_scale"], *metadata["prior"])
        if batch is None:
            batch = RaggedBatch(
                tensors["points"], tensors["offsets"], tensors["order"], tuple(metadata["classes"]), metadata["layer"]
            )
        models = tensors["models"]
        shared = {"batch": batch, "models": models, "n_models": len(self.failed_), "prior": self.prior_.select(models)}
        self._fitted = self._refitted(shared, tensors)
