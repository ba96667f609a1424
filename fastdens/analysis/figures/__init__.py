"""Figures of the analysis: each function draws on the axes that it is given, and returns them.

The figures are designed for print. Colours are those of Okabe & Ito, which remain distinct under every common colour
blindness, and series differ by more than colour. Text has at least 8 points. Legends stand above the data. A remark
above the axes, at the right, counts the values that could not be drawn. No function reads or changes global state or
uses pyplot: make the axes with ``matplotlib.figure.Figure(layout="constrained").subplots()``, and write the figure
with `save_figure`.
"""

from fastdens.analysis.figures._style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, YELLOW
from fastdens.analysis.figures.class_log_density import plot_class_log_density
from fastdens.analysis.figures.component_choice import plot_chosen_components, plot_component_criterion
from fastdens.analysis.figures.component_counts import plot_component_counts
from fastdens.analysis.figures.correlations import plot_correlations
from fastdens.analysis.figures.density_bins import plot_by_bin, plot_certified_accuracy
from fastdens.analysis.figures.distance_and_divergence import plot_distance_and_divergence
from fastdens.analysis.figures.divergence_by_layer import plot_divergence_by_layer
from fastdens.analysis.figures.flipped import plot_flipped, plot_two_histograms
from fastdens.analysis.figures.kl_matrix import plot_kl_matrix
from fastdens.analysis.figures.paired_classes import plot_paired_classes
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
    "plot_chosen_components",
    "plot_class_log_density",
    "plot_component_counts",
    "plot_component_criterion",
    "plot_correlations",
    "plot_distance_and_divergence",
    "plot_divergence_by_layer",
    "plot_flipped",
    "plot_kl_matrix",
    "plot_paired_classes",
    "plot_scores",
    "plot_split_agreement",
    "plot_subset_scores",
    "plot_trace",
    "plot_two_histograms",
    "save_figure",
]
