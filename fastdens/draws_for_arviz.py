"""Posterior draws as ArviZ reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fastdens.kernels.optional import require


def to_arviz(draws: Mapping[str, Tensor], model_names: Sequence[str]) -> Any:
    """The draws as ArviZ reads them: a posterior group of dimensions chain, draw and model.

    Parameters
    ----------
    draws : mapping of str to Tensor
        [M, C, S] each.
    model_names : sequence of str
        M names, the coordinate ``model``.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The first from ArviZ 0.x, the second from ArviZ 1.x.

    Raises
    ------
    ImportError
        If arviz is missing.
    ValueError
        If ``draws`` is empty or its tensors are not [M, C, S] of one shape.
    """
    arviz = require("arviz", "to_arviz", "diagnostics")
    names = list(model_names)
    shapes = {name: tuple(values.shape) for name, values in draws.items()}
    if not shapes:
        raise ValueError("draws is empty: pass at least one quantity, [M, C, S].")
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if len(shape) != 3 or shape[0] != len(names) or shape != shapes[first]:
            raise ValueError(
                f"the draws of {name!r} have shape {shape}, those of {first!r} {shapes[first]}, and there are "
                f"{len(names)} model names: pass [{len(names)}, C, S] for each quantity."
            )
    posterior = {name: values.detach().cpu().permute(1, 2, 0).numpy() for name, values in draws.items()}
    groups = {"posterior": posterior}
    axes: dict[str, Any] = {"dims": {name: ["model"] for name in posterior}, "coords": {"model": names}}
    # ArviZ 1 takes a mapping of groups, ArviZ 0 each group by its keyword.
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups, **axes)
    return arviz.from_dict(**groups, **axes)
