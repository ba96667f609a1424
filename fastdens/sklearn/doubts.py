"""The estimators of batches, with scikit-learn's warnings and errors in place of their own."""

from __future__ import annotations

from typing import Any

from sklearn import exceptions
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import ConvergenceWarning
from fastdens.mixtures.base import BaseMixtures, Doubt
from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)


class WarnsLater(BaseMixtures):
    """Estimators of batches that warn when their holder calls :meth:`warn`, in scikit-learn's categories."""

    def _warn(self, batch: RaggedBatch, stacklevel: int = 4) -> None:
        """Not here: the caller of ``fit`` is no user."""

    def _doubts(self) -> list[Doubt]:
        doubts: list[Doubt] = super()._doubts()  # type: ignore[safe-super]
        of_convergence = exceptions.ConvergenceWarning
        return [d._replace(category=of_convergence) if d.category is ConvergenceWarning else d for d in doubts]

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state of the estimator without these manners, which :func:`fastdens.load` makes of it."""
        tensors, metadata = super().get_state()
        plain = next(base for base in type(self).__mro__ if not issubclass(base, WarnsLater))
        return tensors, {**metadata, "estimator": plain.__name__}

    def warn(self, batch: RaggedBatch) -> None:
        """Warn who called the method that calls this."""
        # Past the method of the base class, this one and what keeps it undisturbed, and that method.
        super()._warn(batch, stacklevel=5)


class QuietGaussianMixtures(WarnsLater, GaussianMixtures):
    """Gaussian mixtures of scikit-learn's manners."""

    def _leave_out(self, valid: Partition, bad: Tensor, reason: str) -> Partition:
        if valid.whole.n_models == 1:
            raise ValueError(ILL_DEFINED)
        return super()._leave_out(valid, bad, reason)


class QuietSampledMixtures(WarnsLater, DirichletProcessMixtures):
    """Dirichlet-process mixtures of scikit-learn's manners, by Gibbs sampling."""


class QuietVariationalMixtures(WarnsLater, VariationalDirichletProcessMixtures):
    """Dirichlet-process mixtures of scikit-learn's manners, by variational inference."""
