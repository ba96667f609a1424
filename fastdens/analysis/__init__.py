"""Analysis of fitted densities: functions of plain arrays, on top of the core.

Arrays may be tensors on any device; half precision is taken as float32.
"""

from fastdens.analysis.adversarial import PGDAccuracy, pgd_accuracy
from fastdens.analysis.class_log_density import ClassLogDensity, class_log_density
from fastdens.analysis.correlation import (
    Coefficient,
    Correlations,
    Interval,
    PredictorComparison,
    compare_predictors,
    correlate,
)
from fastdens.analysis.density_bins import density_bins
from fastdens.analysis.generative_classification import GenerativeClassification, generative_classification
from fastdens.analysis.memorization import MemorizationScores, memorization_scores
from fastdens.analysis.memorization_subsets import Subsets, memorization_subsets
from fastdens.analysis.modes import ModeIntervals, Modes, find_modes, mode_intervals
from fastdens.analysis.multiple_testing import holm
from fastdens.analysis.neighbour_distance import neighbour_distance
from fastdens.analysis.paired import (
    RankAgreement,
    SplitComparison,
    accuracy_difference,
    compare_splits,
    rank_agreement,
)
from fastdens.analysis.pairwise_distance import mean_pairwise_distance
from fastdens.analysis.roc_auc import roc_auc, roc_auc_standard_error
from fastdens.analysis.score_files import ScoreFile, read_memorization_scores
from fastdens.analysis.smoothing import Certificates, certify
from fastdens.analysis.split_agreement import split_agreement
from fastdens.distributions.divergences import MonteCarloEstimate, entropy, kl_matrix, relative_entropy

__all__ = [
    "Certificates",
    "ClassLogDensity",
    "Coefficient",
    "Correlations",
    "GenerativeClassification",
    "Interval",
    "MemorizationScores",
    "ModeIntervals",
    "Modes",
    "MonteCarloEstimate",
    "PGDAccuracy",
    "PredictorComparison",
    "RankAgreement",
    "ScoreFile",
    "SplitComparison",
    "Subsets",
    "accuracy_difference",
    "certify",
    "class_log_density",
    "compare_predictors",
    "compare_splits",
    "correlate",
    "density_bins",
    "entropy",
    "find_modes",
    "generative_classification",
    "holm",
    "kl_matrix",
    "mean_pairwise_distance",
    "memorization_scores",
    "memorization_subsets",
    "mode_intervals",
    "neighbour_distance",
    "pgd_accuracy",
    "rank_agreement",
    "read_memorization_scores",
    "relative_entropy",
    "roc_auc",
    "roc_auc_standard_error",
    "split_agreement",
]
