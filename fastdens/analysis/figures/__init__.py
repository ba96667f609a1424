"""Figures of the analysis, one function each; every function draws on the axes it is given and returns them.

They are made for paper: colours of Okabe & Ito, which stay apart under every common colour blindness, and never colour
alone; text of at least 8 points; legends in room made for them above the data; a remark above the axes, at the right,
where values could not be drawn. Nothing global is read or changed, pyplot is not used: make the axes with
``matplotlib.figure.Figure(layout="constrained").subplots()``, and write the figure with `save_figure`.
"""

from fastdens.analysis.figures._style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, YELLOW
from fastdens.analysis.figures.class_log_density import plot_class_log_density
from fastdens.analysis.figures.component_counts import plot_component_counts
from fastdens.analysis.figures.correlations import plot_correlations
from fastdens.analysis.figures.density_bins import plot_by_bin, plot_certified_accuracy
from fastdens.analysis.figures.distance_and_divergence import plot_distance_and_divergence
from fastdens.analysis.figures.divergence_by_layer import plot_divergence_by_layer
from fastdens.analysis.figures.flipped import plot_flipped
from fastdens.analysis.figures.kl_matrix import plot_kl_matrix
from fastdens.analysis.figures.saving import save_figure
from fastdens.analysis.figures.scores import plot_scores, plot_subset_scores
from fastdens.analysis.figures.split_agreement import plot_split_agreement
from fastdens.analysis.figures.trace import plot_trace

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY_BLUE",
    "YELLOW",
    "plot_by_bin",
    "plot_certified_accuracy",
    "plot_class_log_density",
    "plot_component_counts",
    "plot_correlations",
    "plot_distance_and_divergence",
    "plot_divergence_by_layer",
    "plot_flipped",
    "plot_kl_matrix",
    "plot_scores",
    "plot_split_agreement",
    "plot_subset_scores",
    "plot_trace",
    "save_figure",
]
