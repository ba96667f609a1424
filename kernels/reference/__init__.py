"""The formulas in float64 and plain torch, written to be read.

Every fast path of the library is tested against this package. Nothing here is fast: each function loops over models
and says what the operation means.
"""

from fastdens.kernels.reference.expectation_maximization import em_steps
from fastdens.kernels.reference.factor_analysers import (
    factor_log_prob,
    factor_mixture_log_prob,
    factor_responsibilities,
    factor_statistics,
    factor_update,
    whitened_loadings,
)
from fastdens.kernels.reference.gibbs import gibbs_sweep, log_joint, resample_concentration
from fastdens.kernels.reference.mixtures import (
    gaussian_log_prob,
    mixture_log_prob,
    precision_cholesky,
    responsibilities,
    student_t_log_prob,
    sufficient_statistics,
)

__all__ = [
    "em_steps",
    "factor_log_prob",
    "factor_mixture_log_prob",
    "factor_responsibilities",
    "factor_statistics",
    "factor_update",
    "gaussian_log_prob",
    "gibbs_sweep",
    "log_joint",
    "mixture_log_prob",
    "precision_cholesky",
    "resample_concentration",
    "responsibilities",
    "student_t_log_prob",
    "sufficient_statistics",
    "whitened_loadings",
]
