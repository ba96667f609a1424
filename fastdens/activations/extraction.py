"""Activations of a network: passes over a loader, recorded, in memory or on disk."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence, Sized
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastdens.activations.batches import BatchReader, Inputs, Labels
from fastdens.activations.evaluation import evaluating, model_device
from fastdens.activations.outputs import Part, Pool
from fastdens.activations.recording import Calls, Recorder, make_recorders, recording
from fastdens.activations.storage import Activations, collect, write
from fastdens.io.activation_files import LABELS
from fastdens.progress import progress_bar


def extract(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str],
    pool: Pool = "avg",
    *,
    tokens: str = "all",
    calls: Calls | Mapping[str, Calls] = None,
    output: Part | Mapping[str, Part] = None,
    inputs: Inputs = None,
    labels: Labels = None,
    path: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Activations:
    """Run the model over a loader and keep the pooled outputs of some of its layers.

    An output is pooled while its layer runs, so that it is kept as it was put out even if later layers change it in
    place. The model runs in evaluation mode without gradients; as it was written if it is compiled, on one device if it
    is a ``DataParallel``, and with autocast if the caller has switched it on. It is given back with the modes, buffers
    and hooks that it had; torch's random generators stay where they were.

    Parameters
    ----------
    model : nn.Module
    loader : iterable
        Yields batches: a tensor of inputs; a tuple of inputs, integer labels and anything more, of which text (paths,
        say) is passed over; or a dict, of which the model is given what its ``forward`` takes by name, or else the only
        tensor that there is, and whose labels are called "labels", "label", "targets", "target" or "y". A model whose
        ``forward`` requires several arguments takes as many elements of a tuple. Inputs are copied to the device;
        floating-point inputs get the floating-point type of the model.
    layers : sequence of str
        Names of modules as in ``model.named_modules()``: ``"layer4"`` of a ResNet,
        ``"encoder.layers.encoder_layer_11"`` of a torchvision ViT, ``"blocks.3"`` of a timm ViT or MLP-Mixer. Names
        inside a compiled, ``DataParallel`` or ``DistributedDataParallel`` model are valid with and without the
        wrapper's prefix.
    pool : {"avg", "max", "flatten"} or callable
        From a layer's output to [batch, D]. "avg" and "max" go over positions: those after the channel axis of
        [batch, channels, height, width], the tokens of [batch, tokens, channels] (or of [tokens, batch, channels] in
        networks with ``batch_first=False``); an output [batch, D] stays as it is. A callable gets the output, e.g.
        ``lambda t: t.mean((1, 2))`` for channels that come last.
    tokens : {"all", "class", "patches"}
        Which tokens of an output [batch, tokens, channels] to pool: all of them; the class token alone, which is the
        first; or those of the patches, which follow it.
    calls : {"first", "last", "all"}, int, or mapping from layer to one of them, optional
        Which call to keep of a layer that runs several times in a pass; "all" puts them side by side, [batch,
        calls * D]. By default a layer must run once.
    output : str, int, tuple of them, callable, or mapping from layer to one of them, optional
        Which part to keep of an output that is no tensor: the key, attribute or index, several of them for parts of
        parts, e.g. ``(1, 0)`` for the last hidden states of an LSTM; or a function from the output to a tensor. By
        default the first element of a tuple or list; the only tensor of a dict, a dataclass or another object, losses
        left aside; or ``last_hidden_state``. Outputs that are tensors are kept as they are.
    inputs : str, int, sequence of them, or callable, optional
        Which part of a batch, by key, attribute or index, is given to the model, or which parts; or a function from a
        batch to its argument, to a tuple of arguments, or to a dict of arguments by name.
    labels : str, int, callable or False, optional
        Which part of a batch holds the labels, or a function from a batch to them; False if none does.
    path : path-like, optional
        Stream to disk, so that memory stays bounded by a batch: to one safetensors file if it ends in
        ``.safetensors``, else to a folder with one ``.npy`` per layer, ``labels.npy`` and ``layers.json``. The name
        appears when everything is written.
    overwrite : bool
        Replace whatever has the name ``path``.
    device : torch.device or str, optional
        Device to which inputs are moved; by default that of the model's parameters.
    progress : bool
        Show a progress bar, which needs rich.

    Returns
    -------
    Activations

    Raises
    ------
    ValueError
        If a layer does not exist, does not run, runs several times in one pass and ``calls`` does not say which counts,
        or if its output holds several tensors or cannot be pooled to one vector an example; if there is no class
        token and one asks for it; if the loader is empty or
        gives labels for some batches only.
    TypeError
        If the model is no module, a layer is not given by its name, or it cannot be told what the model takes of a
        batch.
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, but it must be a torch.nn.Module.")
    recorders = make_recorders(model, layers, pool, tokens, calls, output)
    reader = BatchReader(model, model_device(model) if device is None else device, inputs, labels)
    with (
        progress_bar("Activations", _length(loader), shown=progress) as advance,
        # Closed at once, or the model would stay as it is for as long as somebody holds an exception.
        closing(_pooled_batches(model, loader, recorders, reader)) as batches,
    ):
        if path is None:
            return collect(batches, advance)
        return write(batches, Path(path), list(recorders), advance, overwrite=overwrite)


def _length(loader: Iterable[Any]) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        # A DataLoader of a data set without a length.
        return None


def _pooled_batches(
    model: nn.Module,
    loader: Iterable[Any],
    recorders: Mapping[str, tuple[nn.Module, Recorder]],
    reader: BatchReader,
) -> Generator[dict[str, np.ndarray]]:
    """For each batch the pooled outputs by layer, and the labels beside them."""
    has_labels: bool | None = None
    widths: dict[str, int] = {}
    with evaluating(model, eager=True) as run, recording(recorders):
        for given in loader:
            batch = reader(given)
            if has_labels is None:
                has_labels = batch.labels is not None
            elif has_labels != (batch.labels is not None):
                raise ValueError("the loader gives labels for some batches only: give them for all or for none.")
            for _, recorder in recorders.values():
                recorder.begin(batch.n_inputs)
            try:
                run(*batch.args, **batch.kwargs)
            except Exception as error:
                error.add_note(
                    f"The model ran on {batch.described()}; inputs= says which parts of a batch it is given."
                )
                raise
            pooled = {name: recorder.rows() for name, (_, recorder) in recorders.items()}
            for name, rows in pooled.items():
                if rows.shape[1] != widths.setdefault(name, rows.shape[1]):
                    raise ValueError(
                        f"layer {name!r} gives {widths[name]} features in one batch and {rows.shape[1]} in another: "
                        "pass inputs of one size, or a pool that makes one."
                    )
            yield pooled if batch.labels is None else {**pooled, LABELS: batch.labels}
    if has_labels is None:
        raise ValueError("the loader yielded no batch: pass a loader of at least one.")
