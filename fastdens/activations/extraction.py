"""Activations of a network: passes over a loader, recorded, in memory or on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdens.activations.batches import Batch, BatchReader, Inputs, Labels
from fastdens.activations.evaluation import Passes, evaluating, model_device
from fastdens.activations.identity import model_identity
from fastdens.activations.loaders import NumberedBatches
from fastdens.activations.outputs import Part, Pool
from fastdens.activations.recording import Calls, Recorder, make_recorders, recording
from fastdens.activations.storage import Activations, Pooled, collect, load, write
from fastdens.io.activation_files import LABELS
from fastdens.io.shared_work import SharedWork
from fastdens.io.state_file import fingerprint
from fastdens.progress import Advance, progress_bar

# Work that one process takes at a time.
_EXAMPLES_OF_A_BLOCK, _EXAMPLES_OF_A_BATCH = 1024, 256
_DIFFERENCES = {
    "weights": "another model, of other weights",
    "structure": "another model, of other modules",
    "inputs": "other inputs in the first batch (a loader must yield the same in every call, so it may not shuffle)",
    "sample": "other values of {!r} for the first batch (a model that computes something else, or that draws random "
    "numbers from another seed)",
}


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
        Any network, on the device to run on; compiled, wrapped or in half precision or not.
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
        appears when everything is written. Until then finished batches lie in a hidden folder beside it,
        ``.NAME.parts``, from which the same call goes on after an interruption. In the end they take as much room as
        the result, or twice as much beside a safetensors file, until it is written.
    overwrite : bool
        Replace whatever has the name ``path``.
    device : torch.device or str, optional
        Device to which inputs are moved; by default that of the model's parameters.
    progress : bool
        Show a progress bar, which needs rich in a terminal.

    Returns
    -------
    Activations
        The pooled outputs of each layer and the labels; mapped into memory where ``path`` is given.

    Raises
    ------
    ValueError
        If a layer does not exist, does not run, runs several times in one pass and ``calls`` does not say which counts,
        or if its output holds several tensors or cannot be pooled to one vector an example; if there is no class token
        and one asks for it; if the loader is empty or gives labels for some batches only; if the hidden folder beside
        ``path`` is damaged or of another call.
    TypeError
        If the model is no module, a layer is not given by its name, or it cannot be told what the model takes of a
        batch.
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    OSError
        If something cannot be written. What was finished before is kept.
    ImportError
        If safetensors or filelock is missing for ``path``, or rich for the progress bar.

    Notes
    -----
    Any number of processes may make the same call at the same time, also on several machines that share the folder.
    Each batch is computed by one of them; one that finds no batch left waits for the others, takes over from one that
    dies, and returns the same result; one that comes after the end finds the name taken. A killed process loses the
    batches of the last seconds.

    For that the loader must yield the same batches in every call. Of a ``DataLoader`` that reads a data set in its
    order, only the rows of missing batches are read; any other loader is walked through. Each call computes the first
    batch anew. Another model, other layers or other inputs in the first batch are an error that says which; inputs that
    differ in later batches alone are not noticed.

    Random numbers that the model draws in a batch follow from the state of torch's generator at the call and the number
    of the batch.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    >>> loader = [(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])) for _ in range(2)]
    >>> kept = fd.activations.extract(model, loader, layers=["1", "3"], progress=False)
    >>> kept.features["1"].shape, kept.features["3"].shape
    (torch.Size([8, 8]), torch.Size([8, 10]))
    >>> batch = fd.RaggedBatch.from_labels(kept.features["1"], kept.labels, layer="1")
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, but it must be a torch.nn.Module.")
    recorders = make_recorders(model, layers, pool, tokens, calls, output)
    reader = BatchReader(model, model_device(model) if device is None else device, inputs, labels)
    with (
        progress_bar("Activations", _length(loader), shown=progress) as advance,
        evaluating(model, eager=True) as run,
        recording(recorders),
    ):
        passes = _Passes(run, recorders, reader)
        if path is None:
            return collect(_in_memory(passes, loader, advance))
        choices = {"layers": list(recorders), "pool": pool, "tokens": tokens, "calls": calls, "output": output}
        identity = model_identity(model) | {name: _described(choice) for name, choice in choices.items()}
        return _on_disk(passes, loader, Path(path), identity, advance, overwrite=overwrite)


def _length(loader: Iterable[Any]) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        # A DataLoader of a data set without a length.
        return None


def _no_batch() -> ValueError:
    return ValueError("the loader yielded no batch: pass a loader of at least one.")


def _described(choice: Any) -> Any:
    """An option as a file keeps it: what a function does shows in the results."""
    if isinstance(choice, Mapping):
        return {name: _described(value) for name, value in choice.items()}
    if isinstance(choice, tuple | list):
        return [_described(value) for value in choice]
    return "a function" if callable(choice) else choice


class _Passes:
    """Passes over batches, which are alike in the widths of their layers and in whether they have labels."""

    def __init__(self, run: Passes, recorders: Mapping[str, tuple[nn.Module, Recorder]], reader: BatchReader) -> None:
        self.read = reader
        self._run, self._recorders = run, recorders
        self._has_labels: bool | None = None
        self._widths: dict[str, int] = {}

    def __call__(self, number: int, batch: Batch) -> Pooled:
        """Pooled outputs [B, D] by layer, and the labels beside them; the same whatever batches came before."""
        if self._has_labels is None:
            self._has_labels = batch.labels is not None
        elif self._has_labels != (batch.labels is not None):
            raise ValueError("the loader gives labels for some batches only: give them for all or for none.")
        for _, recorder in self._recorders.values():
            recorder.begin(batch.n_inputs)
        self._run.begin(number)
        try:
            self._run(*batch.args, **batch.kwargs)
        except Exception as error:
            error.add_note(f"The model ran on {batch.described()}; inputs= says which parts of a batch it is given.")
            raise
        pooled = {name: torch.from_numpy(recorder.rows()) for name, (_, recorder) in self._recorders.items()}
        for name, rows in pooled.items():
            if rows.shape[1] != self._widths.setdefault(name, rows.shape[1]):
                raise ValueError(
                    f"layer {name!r} gives {self._widths[name]} features in one batch and {rows.shape[1]} in another: "
                    "pass inputs of one size, or a pool that makes one."
                )
        return pooled if batch.labels is None else {**pooled, LABELS: torch.from_numpy(batch.labels)}


def _in_memory(passes: _Passes, loader: Iterable[Any], advance: Advance) -> Iterator[Pooled]:
    number = -1
    for number, given in enumerate(loader):
        yield passes(number, passes.read(given))
        advance()
    if number < 0:
        raise _no_batch()


def _on_disk(
    passes: _Passes,
    loader: Iterable[Any],
    path: Path,
    identity: Mapping[str, Any],
    advance: Advance,
    *,
    overwrite: bool,
) -> Activations:
    """Compute the batches together with other processes of the same call, each of them once, and map the result."""
    source = NumberedBatches(loader)
    block = max(1, _EXAMPLES_OF_A_BLOCK // (source.batch_size or _EXAMPLES_OF_A_BATCH))
    work = SharedWork(path, "extraction", _DIFFERENCES, block, source.n_batches)
    written = work.folder / "written"
    if path.exists() and not overwrite:
        if written.exists() or not work.is_unfinished:
            # A process may have been killed after it gave the name.
            work.remove()
        raise FileExistsError(f"{path} exists already: choose another path or pass overwrite=True.")

    def compute(numbers: Iterator[int]) -> Iterator[tuple[int, Pooled]]:
        first = None
        if not work.is_entered:
            # Every call computes the first batch, whoever keeps it: does this one compute the same as those before?
            first = next(numbers, None)
            numbers = chain([0], () if first in (None, 0) else (first,), numbers)
        for number, given in source.take(numbers):
            batch = passes.read(given)
            if work.is_entered:
                yield number, passes(number, batch)
                continue
            inputs = fingerprint(batch.tensors())
            rows = passes(number, batch)
            work.enter({**identity, "batches": _length(loader), "inputs": inputs}, rows)
            if first == 0:
                yield 0, rows
        if not work.is_entered:
            raise _no_batch()
        work.n_pieces = source.n_batches

    with work.opened():
        work.complete(compute, advance)
        work.finish(lambda pieces: write(pieces, path, list(identity["layers"]), overwrite=overwrite, written=written))
    return load(path)
