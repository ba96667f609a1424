"""Networks by name, their weights from files, and the layers to analyse by default."""

from fastdens.training.networks.build import build_network, stem_of
from fastdens.training.networks.layers import STAGES, default_layers

__all__ = ["STAGES", "build_network", "default_layers", "stem_of"]
