"""The activations of a network for images, in memory or kept in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdens.activations import extract, load, model_identity
from fastdens.pipeline.activation_sources import Features
from fastdens.pipeline.experiment_options import Pooling, Tokens
from fastdens.process_group import current_group

if TYPE_CHECKING:
    from fastdens.training.datasets import StreamedImages

_BATCH_SIZE = 256


def extract_features(
    model: nn.Module,
    images: Tensor | StreamedImages,
    layers: Sequence[str],
    pooling: Pooling = "average",
    tokens: Tokens = "all",
    *,
    progress: bool,
    path: Path | None = None,
) -> Features:
    """Pooled outputs [N, D] of some layers of a network, for images [N, channels, height, width].

    Parameters
    ----------
    model : nn.Module
    images : Tensor or StreamedImages
        As the network takes them.
    layers : sequence of str
    pooling : {"average", "max"}
    tokens : {"all", "class", "patches"}
    progress : bool
        Show a progress bar (in a terminal, needs rich).
    path : Path, optional
        Folder for the outputs, which are mapped into memory. Processes that extract them at the same time share the
        work, and a later call goes on with it.
    """
    from fastdens.training.datasets import reading

    pool = "max" if pooling == "max" else "avg"
    if isinstance(images, Tensor):
        # A generator of its own: a loader draws a number from torch's global one otherwise.
        loader = DataLoader(TensorDataset(images), batch_size=_BATCH_SIZE, generator=torch.Generator())
        return extract(model, loader, layers, pool, tokens=tokens, path=path, progress=progress).features
    with reading(images):
        return extract(
            model,
            images.loader(_BATCH_SIZE),
            layers,
            pool,
            tokens=tokens,
            inputs=images.standardized,
            labels=False,
            path=path,
            progress=progress,
        ).features


def keep_features(
    folder: Path | None,
    data: str,
    model: nn.Module,
    images: Tensor | StreamedImages,
    layers: Sequence[str],
    pooling: Pooling = "average",
    tokens: Tokens = "all",
    *,
    progress: bool,
) -> Features:
    """What :func:`extract_features` returns, kept in a folder; all ranks of a job call it and share the work.

    Parameters
    ----------
    folder : Path or None
        Every network, choice of images and of layers has a folder of its own in it. Without one nothing is kept, and
        every rank extracts.
    data : str
        What tells these images from others.
    model, images, layers, pooling, tokens, progress
        As of :func:`extract_features`.
    """
    path = None
    if folder is not None:
        choices = json.dumps([data, model_identity(model), list(layers), pooling, tokens])
        path = folder / hashlib.blake2b(choices.encode(), digest_size=8).hexdigest()
    with current_group().together():
        # Found, or finished by another rank in this moment.
        with suppress(FileExistsError):
            if path is None or not path.exists():
                return extract_features(model, images, layers, pooling, tokens, progress=progress, path=path)
        assert path is not None
        return load(path).features
