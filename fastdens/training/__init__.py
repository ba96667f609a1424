"""Training of classifiers: networks, data sets, the recipe, and folders of many trained networks.

``fastdens.training.datasets`` loads images; ``fastdens.training.runs`` trains many networks in parallel processes.
"""

from fastdens.training.labels import FlippedLabels, flip_labels
from fastdens.training.loop import predict, train
from fastdens.training.networks import build_network, default_layers
from fastdens.training.recipe import Recipe

__all__ = [
    "FlippedLabels",
    "Recipe",
    "build_network",
    "default_layers",
    "flip_labels",
    "predict",
    "train",
]
