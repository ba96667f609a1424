"""Activations of any network at named layers, pooled to one vector per example, in memory or streamed to disk."""

from fastdens.activations.evaluation import Passes, evaluating, model_device, model_dtype, unwrapped
from fastdens.activations.extraction import extract
from fastdens.activations.identity import model_identity
from fastdens.activations.outputs import only_tensor
from fastdens.activations.storage import Activations, load

__all__ = [
    "Activations",
    "Passes",
    "evaluating",
    "extract",
    "load",
    "model_device",
    "model_dtype",
    "model_identity",
    "only_tensor",
    "unwrapped",
]
