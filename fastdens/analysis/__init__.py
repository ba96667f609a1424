"""Analysis of fitted densities: functions of plain arrays, on top of the core."""

from fastdens.analysis.class_log_density import ClassLogDensity, class_log_density
from fastdens.analysis.generative_classification import GenerativeClassification, generative_classification
from fastdens.analysis.modes import Modes, find_modes

__all__ = [
    "ClassLogDensity",
    "GenerativeClassification",
    "Modes",
    "class_log_density",
    "find_modes",
    "generative_classification",
]
