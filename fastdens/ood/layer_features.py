"""Features of several layers as they come: what ``extract`` returns, or a mapping from layer to array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.activations import Activations
from fastdens.arrays import as_points

# Features by layer, [N, D] each.
Features = Activations | Mapping[str, ArrayLike | Tensor]


def matrices_of(features: Features, name: str, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The features of some layers, by default of all, [N, D] each.

    Raises
    ------
    TypeError
        If they are no features by layer.
    ValueError
        If a layer is missing, or the layers disagree in their examples.
    """
    given = features.features if isinstance(features, Activations) else features
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name} is {type(features).__name__}: pass what fd.activations.extract returns, or a dict from the "
            "name of each layer to its features [N, D]."
        )
    chosen = list(given) if layers is None else list(layers)
    if not chosen:
        raise ValueError(f"{name} has no layer: pass the features of at least one.")
    for layer in chosen:
        if layer not in given:
            raise ValueError(f"{name} has no layer {layer!r}: it has {', '.join(map(repr, given))}.")
    matrices = {layer: as_points(given[layer], f"layer {layer!r} of {name}") for layer in chosen}
    first = chosen[0]
    for layer, matrix in matrices.items():
        if len(matrix) != len(matrices[first]):
            raise ValueError(
                f"{name} has {len(matrix)} examples in layer {layer!r} and {len(matrices[first])} in layer {first!r}: "
                "pass the same examples in every layer."
            )
    return matrices
