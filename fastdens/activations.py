"""Activations of any network at named layers, pooled to one vector per example, in memory or streamed to disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from fastdens.io.activation_files import LABELS as _LABELS
from fastdens.io.activation_files import read_activations
from fastdens.io.arrays import NpyStream, join_safetensors
from fastdens.io.atomic import atomic_write
from fastdens.kernels.options import suggest
from fastdens.labels import Labels
from fastdens.progress import progress_bar

Pool = str | Callable[[Tensor], Tensor]
Pooled = Iterator[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Activations:
    """Pooled activations of the same examples at several layers.

    Attributes
    ----------
    features : dict of str to Tensor
        [N, D] for each layer, float32; mapped into memory if they are on disk.
    labels : Tensor, ndarray or None
        int64 [N], as the loader gave them, or None if it gave none; names read from a file are an array of strings.
    """

    features: dict[str, Tensor]
    labels: Labels | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order asked for."""
        return tuple(self.features)


def extract(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str],
    pool: Pool = "avg",
    *,
    path: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Activations:
    """Run the model over a loader and keep the pooled outputs of some of its layers.

    The model runs in evaluation mode without gradients and is left in the mode it was in.

    Parameters
    ----------
    model : nn.Module
    loader : iterable
        Yields batches: a tensor of inputs, or a tuple of inputs and integer labels (anything after is ignored).
    layers : sequence of str
        Names of modules as in ``model.named_modules()``: ``"layer4"`` of a ResNet,
        ``"encoder.layers.encoder_layer_11"`` of a torchvision ViT, ``"blocks.3"`` of a timm ViT or MLP-Mixer.
    pool : {"avg", "max", "flatten"} or callable
        From a layer's output to [batch, D]. "avg" and "max" go over positions: those after the channel axis of
        [batch, channels, height, width], the tokens of [batch, tokens, channels]; an output [batch, D] stays as it
        is. A callable gets the output, e.g. ``lambda t: t[:, 0]`` for the class token, ``lambda t: t.mean((1, 2))``
        for channels that come last. Of an output that is a tuple the first element counts.
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
        If a layer does not exist, does not run, runs several times in one pass, or its output cannot be pooled to one
        vector an example; if the loader is empty or gives labels for some batches only.
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    """
    modules = _named_layers(model, layers)
    pooling = _pooling(pool)
    if device is None:
        first = next(model.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
    batches = _pooled_batches(model, loader, modules, pooling, device)
    total = len(loader) if isinstance(loader, Sized) else None
    with progress_bar("Activations", total, shown=progress) as advance:
        if path is None:
            return _collect(batches, advance)
        path = Path(path)
        with atomic_write(path, overwrite=overwrite) as partial:
            if path.suffix == ".safetensors":
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".partial") as folder:
                    join_safetensors(partial, _stream(batches, Path(folder), advance))
            else:
                partial.mkdir()
                _stream(batches, partial, advance)
                (partial / "layers.json").write_text(json.dumps(list(modules), indent=1))
    return load(path)


def load(path: str | os.PathLike[str]) -> Activations:
    """Activations on disk, mapped into memory.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file, or a folder with one ``.npy`` [N, D] a layer, named after it, and ``labels.npy`` [N]
        if there are labels. ``layers.json`` in it, a list of the names, gives their order; without it they come in
        the order of their names, numbers in them counting as numbers. Numbers may be of any dtype and byte order, the
        labels of any kind that :meth:`fastdens.RaggedBatch.from_labels` takes. Hidden files are passed over.

    Raises
    ------
    OSError
        If there is nothing of the kind, or a file cannot be read.
    ValueError
        If a file is damaged or does not hold numbers, or the arrays do not have one row per example.
    """
    return Activations(*read_activations(Path(path)))


def _named_layers(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    if isinstance(layers, str):
        layers = [layers]
    known = {name: module for name, module in model.named_modules() if name}
    if not layers:
        raise ValueError(f"layers is empty: pass names of modules, e.g. {suggest('layer', known)}.")
    for name in layers:
        if name not in known:
            raise ValueError(f"the model has no layer {name!r}: the nearest names are {suggest(name, known)}.")
    if _LABELS in layers:
        raise ValueError(f"a layer named {_LABELS!r} cannot be told from the labels: rename the module.")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers names a layer twice: {', '.join(map(repr, layers))}; pass each once.")
    return {name: known[name] for name in layers}


def _pooling(pool: Pool) -> Callable[[Tensor], Tensor]:
    if callable(pool):
        return pool
    if pool == "flatten":
        return lambda output: output.flatten(1)
    if pool not in ("avg", "max"):
        raise ValueError(f"pool is {pool!r}, but it must be 'avg', 'max', 'flatten' or a function of a layer's output.")

    def over_positions(output: Tensor) -> Tensor:
        if output.ndim <= 2:
            return output
        positions = 1 if output.ndim == 3 else tuple(range(2, output.ndim))
        # Half precision is summed in float32.
        return output.float().mean(positions) if pool == "avg" else output.float().amax(positions)

    return over_positions


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; each module is then given back the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """Outputs of the modules in the order of their calls; clear the lists before each pass."""
    outputs: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs[name].append(output))
        for name, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _pooled_batches(
    model: nn.Module,
    loader: Iterable[Any],
    modules: dict[str, nn.Module],
    pool: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> Pooled:
    """For each batch the pooled outputs by layer, and the labels beside them."""
    has_labels: bool | None = None
    widths: dict[str, int] = {}
    with evaluating(model), _recorded(modules) as outputs:
        for batch in loader:
            inputs, labels = _split(batch)
            if has_labels is None:
                has_labels = labels is not None
            elif has_labels != (labels is not None):
                raise ValueError("the loader gives labels for some batches only: give them for all or for none.")
            for calls in outputs.values():
                calls.clear()
            with torch.inference_mode():
                model(inputs.to(device))
                pooled = {name: _one_vector(name, calls, pool, len(inputs)) for name, calls in outputs.items()}
            for name, rows in pooled.items():
                if rows.shape[1] != widths.setdefault(name, rows.shape[1]):
                    raise ValueError(
                        f"layer {name!r} gives {widths[name]} features in one batch and {rows.shape[1]} in another: "
                        "pass inputs of one size, or a pool that makes one."
                    )
            yield pooled if labels is None else {**pooled, _LABELS: labels}
    if has_labels is None:
        raise ValueError("the loader yielded no batch: pass a loader of at least one.")


def _split(batch: Any) -> tuple[Tensor, np.ndarray | None]:
    inputs, labels = (batch, None) if isinstance(batch, Tensor) else (None, None)
    if isinstance(batch, tuple | list) and batch:
        inputs, labels = batch[0], batch[1] if len(batch) > 1 else None
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"the loader yielded {type(batch).__name__}, but a batch is a tensor of inputs or a tuple (inputs, labels)."
        )
    if labels is None:
        return inputs, None
    labels = torch.as_tensor(labels)
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"the loader yielded labels of shape {tuple(labels.shape)} and dtype {labels.dtype} for "
            f"{len(inputs)} inputs: labels are one integer per input."
        )
    return inputs, labels.cpu().long().numpy()


def _one_vector(name: str, calls: list[Any], pool: Callable[[Tensor], Tensor], n_inputs: int) -> np.ndarray:
    if len(calls) != 1:
        happened = "did not run" if not calls else f"ran {len(calls)} times"
        raise ValueError(f"layer {name!r} {happened} in one pass of the model: choose a module that runs once.")
    output = calls[0]
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"layer {name!r} gives {type(output).__name__}, not a tensor: choose another module.")
    pooled = pool(output)
    if pooled.ndim != 2 or len(pooled) != n_inputs:
        raise ValueError(
            f"layer {name!r} gives {tuple(output.shape)} for {n_inputs} inputs, pooled to {tuple(pooled.shape)}: pass "
            f"a function as pool that makes [{n_inputs}, D] of it."
        )
    return pooled.float().cpu().numpy()


def _collect(batches: Pooled, advance: Callable[..., None]) -> Activations:
    """All batches in memory, joined one array at a time."""
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, rows in batch.items():
            parts.setdefault(name, []).append(torch.from_numpy(rows))
        advance()
    arrays = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    labels = arrays.pop(_LABELS, None)
    return Activations(arrays, labels)


def _stream(batches: Pooled, folder: Path, advance: Callable[..., None]) -> dict[str, Path]:
    """Append every batch to one ``.npy`` file per array; the files."""
    streams: dict[str, NpyStream] = {}
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        for batch in batches:
            for name, rows in batch.items():
                if name not in streams:
                    # A name becomes a file name whatever characters are in it.
                    files[name] = folder / f"{quote(name, safe=' ')}.npy"
                    streams[name] = NpyStream(files[name], rows.shape[1:], rows.dtype)
                    stack.callback(streams[name].close)
                streams[name].append(rows)
            advance()
    return files
