"""A batch parted into the models to fit and those that failed, and the way back to all models and rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.mixtures.failures import Failures


@dataclass(frozen=True)
class Partition:
    """The models of a batch that can be fitted, A of M, with n of its N rows.

    Attributes
    ----------
    whole : RaggedBatch
        All M models.
    batch : RaggedBatch
        The A models to fit, without points of weight zero; ``whole`` itself if that is all. Its index counts the
        caller's rows of all models.
    models : Tensor
        int64 [A], their numbers among all models.
    failures : dict of int to str
        Why, for each of the other models.
    """

    whole: RaggedBatch
    batch: RaggedBatch
    models: Tensor
    failures: Failures

    @classmethod
    def of(cls, whole: RaggedBatch, failures: Failures) -> Partition:
        """Leave the failed models out."""
        device = whole.device
        if not failures:
            return cls(whole, whole.without_zero_weights(), torch.arange(whole.n_models, device=device), {})
        valid = [m for m in range(whole.n_models) if m not in failures]
        models = torch.tensor(valid, dtype=torch.int64, device=device)
        batch = whole.select(models).without_zero_weights()
        return cls(whole, batch, models, dict(sorted(failures.items())))

    @property
    def failed(self) -> Tensor:
        """True for models that failed, bool [M]."""
        failed = torch.zeros(self.whole.n_models, dtype=torch.bool, device=self.models.device)
        if self.failures:
            failed[list(self.failures)] = True
        return failed

    def scatter(self, values: Tensor) -> Tensor:
        """Values of the fitted models [A, ...] among those of all [M, ...]: NaN, 0 or False for failed models."""
        if not self.failures:
            return values
        missing = float("nan") if values.is_floating_point() else 0
        out = values.new_full((self.whole.n_models, *values.shape[1:]), missing)
        out[self.models] = values
        return out

    def scatter_rows(self, values: Tensor) -> Tensor:
        """Values of rows of ``batch`` [..., n] among the caller's [..., N]: NaN or -1 in all other rows."""
        missing = float("nan") if values.is_floating_point() else -1
        out = values.new_full((*values.shape[:-1], self.whole.n_points), missing)
        out[..., self.batch.index] = values
        return out
