"""Scores of several layers made one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.kernels.optional import require

COMBINATIONS = ("mean", "max", "logistic")


class Standard(NamedTuple):
    """The mean and standard deviation of each layer's scores in distribution, float64 [L] each."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores [N, L] in standard deviations from the mean, float64."""
        return (scores.double() - self.mean) / self.deviation


def standard_of(scores: Tensor) -> Standard:
    """The standard of scores [N, L] of examples in distribution; those with a score that is NaN do not count."""
    exact = scores[~scores.isnan().any(1)].double()
    return Standard(exact.mean(0), exact.std(0, correction=0))


class LogOdds(NamedTuple):
    """Log-odds as a linear function of standardised scores: coefficients float64 [L], intercept float64 []."""

    coefficients: Tensor
    intercept: Tensor

    def __call__(self, standardised: Tensor) -> Tensor:
        """Log-odds [N] that an example of standardised scores [N, L] is out of distribution."""
        return standardised @ self.coefficients + self.intercept


def fit_log_odds(inside: Tensor, outside: Tensor) -> LogOdds:
    """Logistic regression of being out of distribution on standardised scores, [N, L] and [N', L].

    With scikit-learn's default penalty, ``|coefficients|^2 / 2``.

    Raises
    ------
    ImportError
        If scikit-learn is missing.
    """
    linear_model = require("sklearn.linear_model", "combine='logistic'", "analysis")
    features = torch.cat([inside, outside]).cpu().numpy()
    regression = linear_model.LogisticRegression(max_iter=1000, tol=1e-8)
    regression.fit(features, [0] * len(inside) + [1] * len(outside))
    coefficients, intercept = (
        torch.as_tensor(value, dtype=torch.float64, device=inside.device)
        for value in (regression.coef_[0], regression.intercept_[0])
    )
    return LogOdds(coefficients, intercept)
