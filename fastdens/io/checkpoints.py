"""The state of chains in a file, from which the same fit goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastdens.inference.gibbs import ChainState, Draws, join_draws
from fastdens.io.state_file import read_state, write_state


def write_checkpoint(path: Path, facts: dict[str, Any], state: ChainState) -> None:
    """Write the state, and the facts by which :func:`read_checkpoint` knows the fit, over an earlier one."""
    tensors = {"labels": state.labels, "alpha": state.alpha, "log_joint": state.log_joint}
    if state.parts:
        tensors |= {f"draws_{name}": value for name, value in join_draws(state.parts)._asdict().items()}
    write_state(path, "checkpoint", tensors, {**facts, "sweep": state.sweep}, overwrite=True)


def read_checkpoint(path: Path, facts: dict[str, Any], start: ChainState) -> ChainState:
    """The state in a checkpoint of the same fit.

    Raises
    ------
    ValueError
        If the file is damaged, no checkpoint, or one of a fit of other parameters or data.
    """
    tensors, found = read_state(path, "checkpoint")
    for name, value in facts.items():
        if found.get(name) != value:
            what = "other data or labels_init" if name == "data" else f"{name} = {found.get(name)!r}, not {value!r}"
            raise ValueError(f"{path} is the checkpoint of a fit of {what}: delete it or pass another path.")
    device = start.labels.device
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    parts: tuple[Draws, ...] = ()
    if "draws_labels" in tensors:
        parts = (Draws(**{name: tensors[f"draws_{name}"] for name in Draws._fields}),)
    return ChainState(int(found["sweep"]), tensors["labels"], tensors["alpha"], tensors["log_joint"], parts)
