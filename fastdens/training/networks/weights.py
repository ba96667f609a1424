"""Weights from files: state dicts as torch.save and safetensors write them, alone or inside checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from fastdens.io.arrays import check_file
from fastdens.kernels.optional import require

MOST_TIMES_LONGER = 10
"""How many times its length a file of weights may unpack to; those that torch writes are not packed."""


def load_weights(model: nn.Module, name: str, file: Path, published: str = "") -> None:
    """Load the state dict of a file into a network.

    Parameters
    ----------
    model : nn.Module
    name : str
        The network's, for messages.
    file : Path
    published : str
        The file in which the network's library publishes its weights, an example for the message about a missing file.

    Raises
    ------
    FileNotFoundError
        If the file is missing; the message says which file to put where.
    ValueError
        If the file holds no state dict, that of another network, or numbers that are no weights.
    """
    if not file.is_file():
        example = f", e.g. {published}" if published else ""
        raise FileNotFoundError(
            f"the weights of {name} are missing: put a state dict of it (.pt, .pth or .safetensors{example}) at {file}."
        )
    found, own = read_weights(file), model.state_dict()
    for key, tensor in own.items():
        if key not in found and key.endswith("num_batches_tracked"):
            # Written by torch before 0.4.1.
            found[key] = tensor
        elif key not in found:
            raise ValueError(f"{file} does not fit {name}: it has no {key!r}; pass weights of that network.")
        elif found[key].shape != tensor.shape:
            raise ValueError(
                f"{file} does not fit {name}: {key!r} is {list(found[key].shape)} in the file and "
                f"{list(tensor.shape)} in the network; pass weights of that network for as many classes, channels and "
                "pixels."
            )
    for key, tensor in found.items():
        if key not in own:
            raise ValueError(f"{file} does not fit {name}: the network has no {key!r}; pass weights of that network.")
        if not tensor.isfinite().all():
            raise ValueError(
                f"{key!r} in {file} has NaN or infinity: pass weights of a network whose training converged."
            )
    model.load_state_dict(found)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, without the checkpoint and the wrappers around it.

    Raises
    ------
    OSError
        If it is missing or cannot be read.
    ValueError
        If the file is damaged, holds no state dict of dense real tensors, or unpacks to more than
        :data:`MOST_TIMES_LONGER` times its length.
    ImportError
        If it is a ``.safetensors`` file and safetensors is not installed.
    """
    check_file(file, "a state dict")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no state dict, names and tensors: save that of the network alone.")
    for key, tensor in content.items():
        if not isinstance(key, str) or not _is_plain(tensor):
            raise ValueError(
                f"{key!r} in {file} is a {tensor.dtype} tensor in {tensor.layout} on {tensor.device}, but weights are "
                "dense real numbers under names: save the state dict of the network alone."
            )
    state = dict(content)
    # DataParallel puts the one before all names, torch.compile the other, in any order.
    while state and (wrapper := next(iter(state)).partition(".")[0]) in ("module", "_orig_mod"):
        if not all(key.startswith(f"{wrapper}.") for key in state):
            break
        state = {key.removeprefix(f"{wrapper}."): value for key, value in state.items()}
    return state


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has numbers of its own that a network can take over."""
    special = tensor.is_nested or tensor.is_quantized or tensor.is_complex()
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not special


def _read_safetensors(file: Path) -> Any:
    safetensors = require("safetensors", f"reading {file}", "cpu")
    try:
        return require("safetensors.torch", f"reading {file}", "cpu").load_file(file)
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{file} is not a whole safetensors file ({error}): copy it again.") from None


def _read_pickle(file: Path) -> Any:
    try:
        # torch would unpack an archive of another's making to any length.
        if is_zipfile(file):
            with ZipFile(file) as archive:
                n_bytes = sum(member.file_size for member in archive.infolist())
            if n_bytes > MOST_TIMES_LONGER * file.stat().st_size:
                raise ValueError(f"it unpacks to {n_bytes:,} bytes")
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise type(error)(f"{file} cannot be read ({error.strerror}): check that you may read it.") from None
    # A damaged pickle makes torch raise errors of every kind.
    except Exception as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(
            f"{file} is damaged or holds more than weights ({reason}): save the state dict of the network alone."
        ) from None
