"""One pass over images in their files: what standardizes them, and a digest of each, by which a change is noticed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdens.io.state_file import StateFile, fingerprint
from fastdens.progress import progress_bar
from fastdens.training.datasets.encoded import EncodedImages, digest_of
from fastdens.training.datasets.streaming import decoding_errors, read_batches

_IMAGES_AT_ONCE = 64
_SECONDS_BETWEEN_WRITES = 30.0


class PixelDigests(NamedTuple):
    """What decides standardized images, whether or not they are in memory.

    Attributes
    ----------
    train, test : Tensor
        int64 [N, 2], a digest of the pixels of each image.
    mean, std : Tensor
        float32 [1, channels, 1, 1].
    """

    train: Tensor
    test: Tensor
    mean: Tensor
    std: Tensor

    def fingerprint(self, labels: Tensor) -> str:
        """A digest of the images and of labels of the training images."""
        return fingerprint([self.train, labels, *self[1:]])


def survey(
    train: EncodedImages, test: EncodedImages, folder: Path | None, workers: int | None, *, progress: bool
) -> PixelDigests:
    """Decode all images once, and tell what standardizes them.

    Parameters
    ----------
    train, test : EncodedImages
    folder : Path or None
        Where what was found is kept, in a file that belongs to these files at their present sizes and times; the same
        images are then not read again, and a pass that was interrupted goes on.
    workers : int or None
        As of :class:`fastdens.training.datasets.streaming.StreamedImages`.
    progress : bool
        Show a progress bar (in a terminal, needs rich).

    Returns
    -------
    PixelDigests
    """
    found = _Found(train.size[0], _state_file(train, test, folder))
    with (
        progress_bar("Images", len(train) + len(test), done=found.n_done, shown=progress) as advance,
        decoding_errors(train.name),
    ):
        try:
            for part, images in (("train", train), ("test", test)):
                n, n_done = len(images), len(found.digests[part])
                starts = range(n_done, n, _IMAGES_AT_ONCE)
                blocks = (np.arange(start, min(start + _IMAGES_AT_ONCE, n)) for start in starts)
                for counts, digests in read_batches(_Surveyed(images), blocks, workers):
                    found.add(part, counts, digests)
                    advance(len(digests))
        finally:
            found.save()
    of_train, of_test = (torch.from_numpy(found.digests[part]) for part in ("train", "test"))
    return PixelDigests(of_train, of_test, *moments(found.counts))


def counts_of(pixels: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel of images [B, channels, height, width]: int64 [channels, 256]."""
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    # bincount makes a copy of eight bytes a value.
    for start in range(0, len(pixels), _IMAGES_AT_ONCE):
        for own, channel in zip(counts, pixels[start : start + _IMAGES_AT_ONCE].swapaxes(0, 1), strict=True):
            own += np.bincount(channel.reshape(-1), minlength=256)
    return counts


def moments(counts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the values of each channel divided by 255, float32 [1, channels, 1, 1].

    They are exact up to one rounding, and so the same in whatever order, and by how many processes, values are counted.
    """
    means, deviations = [], []
    for channel in counts.tolist():
        n = sum(channel)
        total = sum(value * count for value, count in enumerate(channel))
        squares = sum(value**2 * count for value, count in enumerate(channel))
        means.append(total / (255 * n))
        deviations.append(((n * squares - total**2) / (n * max(n - 1, 1))) ** 0.5 / 255)
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device="cpu")[None, :, None, None] for values in (means, deviations)
    )
    return mean, std.clamp_min(1e-6)


class _Surveyed(EncodedImages):
    """Images of which the counts of their values and their digests are asked for."""

    def __init__(self, images: EncodedImages) -> None:
        super().__init__(images.name, images.dataset, images.image_size, images.size, images.rows)

    def __getitems__(self, items: Sequence[int]) -> Any:
        pixels = super().__getitems__(items).numpy()
        return counts_of(pixels), np.stack([digest_of(image) for image in pixels])


class _Found:
    """Counts of the values of the training images, and the digests of the images read so far, kept in a file."""

    def __init__(self, n_channels: int, file: StateFile | None) -> None:
        self.counts = np.zeros((n_channels, 256), np.int64)
        self.digests = {part: np.zeros((0, 2), np.int64) for part in ("train", "test")}
        self._new: dict[str, list[np.ndarray]] = {part: [] for part in self.digests}
        self._file = file
        self._last_write = time.monotonic()
        if file is not None and file.path.exists():
            tensors = file.read().tensors
            self.counts = tensors["counts"].numpy()
            self.digests = {part: tensors[part].numpy() for part in self.digests}

    @property
    def n_done(self) -> int:
        """Images read so far."""
        return sum(map(len, self.digests.values()))

    def add(self, part: str, counts: np.ndarray, digests: np.ndarray) -> None:
        """Add the next images of a part."""
        if part == "train":
            self.counts += counts
        self._new[part].append(digests)
        if time.monotonic() - self._last_write > _SECONDS_BETWEEN_WRITES:
            self.save()

    def save(self) -> None:
        """Write what was found to the file, if there is one that lacks some of it."""
        if not any(self._new.values()):
            return
        self.digests = {part: np.concatenate([known, *self._new[part]]) for part, known in self.digests.items()}
        self._new = {part: [] for part in self.digests}
        if self._file is not None:
            found = {"counts": self.counts, **self.digests}
            self._file.write({name: torch.from_numpy(values) for name, values in found.items()})
        self._last_write = time.monotonic()


def _state_file(train: EncodedImages, test: EncodedImages, folder: Path | None) -> StateFile | None:
    """The file of a survey, named after its identity: other images have another file."""
    if folder is None:
        return None
    identity = {"train": train.identity(), "test": test.identity()}
    name = hashlib.blake2b(json.dumps(identity).encode(), digest_size=6).hexdigest()
    return StateFile(folder / f"images-{name}.safetensors", "survey of images", identity)
