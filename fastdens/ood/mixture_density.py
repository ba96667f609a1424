"""Density of features under mixtures of the classes: Gaussian or Dirichlet-process ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.mixtures.base import BaseMixtures, one_of
from fastdens.mixtures.failures import raise_failures
from fastdens.ood.base import Detector
from fastdens.ood.caller import warnings_of_caller
from fastdens.saved_fits import fit_of_state

_PREFIX = "estimator."


class MixtureDensity(Detector):
    """Negative log-density of features under the mixtures of their classes.

    With p(x | c) the density of class c and pi_c its prior probability,

    - ``over_classes="sum"``: ``-log sum_c pi_c p(x | c)``, the density of the features of all classes;
    - ``over_classes="max"``: ``-max_c log(pi_c p(x | c))``, under the class that explains them best.

    Parameters
    ----------
    estimator : GaussianMixtures, DirichletProcessMixtures or VariationalDirichletProcessMixtures
        Its parameters; ``fit`` fits a copy. Its ``on_error`` is that of the detector: with "skip", classes that cannot
        be fitted are left out, and features with NaN or infinity are scored NaN.
    over_classes : {"sum", "max"}
    priors : {"frequencies", "uniform"}
        Of the classes: their shares of the training examples, or equal. Classes that failed have none.

    Attributes
    ----------
    estimator_
        The fitted copy.
    log_priors_ : Tensor
        float64 [C]; minus infinity for a failed class.
    classes_ : tuple
        The classes of its models.
    failures_ : dict of int to str
        Why, for each class that failed.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 8), torch.arange(1000) % 10
    >>> detector = fd.ood.MixtureDensity(fd.GaussianMixtures(2, covariance_type="diag", tol=0.1))
    >>> detector.fit(x, y).score(torch.randn(5, 8)).shape
    torch.Size([5])
    """

    _parameter_constraints: ClassVar = {
        "over_classes": one_of(("sum", "max")),
        "priors": one_of(("frequencies", "uniform")),
    }

    estimator_: Any
    log_priors_: Tensor

    def __init__(self, estimator: Any, *, over_classes: str = "sum", priors: str = "frequencies") -> None:
        if not isinstance(estimator, BaseMixtures):
            raise TypeError(
                f"estimator is {type(estimator).__name__}, but it must be an estimator of mixtures: pass "
                "fd.GaussianMixtures(...) or fd.DirichletProcessMixtures(...)."
            )
        self.estimator = estimator
        self.over_classes = over_classes
        self.priors = priors

    @property
    def on_error(self) -> str:  # type: ignore[override]
        """That of the estimator."""
        return self.estimator.on_error

    def _fit(self, batch: RaggedBatch) -> None:
        with warnings_of_caller():
            self.estimator_ = copy.deepcopy(self.estimator).fit(batch)
        self.failures_ = self.estimator_.failures_
        failed = self.estimator_.failed_
        if bool(failed.all()):
            raise_failures(batch, self.failures_, "at least one class must be fitted")
        sizes = batch.sizes if self.priors == "frequencies" else torch.ones_like(batch.sizes)
        weights = sizes.double().masked_fill(failed, 0.0)
        self.log_priors_ = (weights / weights.sum()).log()

    def _score(self, points: Tensor) -> Tensor:
        log_prob: Tensor = self.estimator_.log_prob(points)
        log_joint = (log_prob.double() + self.log_priors_).masked_fill(self.log_priors_.isneginf(), -torch.inf)
        return -(log_joint.logsumexp(1) if self.over_classes == "sum" else log_joint.amax(1))

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        density = self.estimator_.density()
        return density.n_features, density.device

    @property
    def _row_elements(self) -> int:
        return len(self.log_priors_)

    def _saved_parameters(self) -> dict[str, Any]:
        return {"over_classes": self.over_classes, "priors": self.priors}

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:  # noqa: D102
        tensors, metadata = super().get_state()
        return tensors, {**metadata, "estimator": self.estimator_.get_state()[1]}

    def _fitted_tensors(self) -> dict[str, Tensor]:
        fit, _ = self.estimator_.get_state()
        return {"log_priors_": self.log_priors_, **{_PREFIX + name: tensor for name, tensor in fit.items()}}

    def _expected_tensors(self) -> dict[str, str]:
        return {"log_priors_": "float C"}

    def _set_fitted_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.log_priors_ = tensors["log_priors_"]

    @classmethod
    def from_state(  # noqa: D102
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state"
    ) -> Self:
        fit = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
        estimator = fit_of_state(fit, metadata.get("estimator", {}), where)
        parameters = {**metadata.get("parameters", {}), "estimator": estimator}
        detector = super().from_state(tensors, {**metadata, "parameters": parameters}, where)
        detector.estimator_ = estimator
        return detector
