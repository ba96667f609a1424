"""Images that are never in memory as a whole: batches of them, decoded by processes while the last one is computed on.

Whatever takes images takes a tensor of them or :class:`StreamedImages`, and gives the same bits for both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from fastdens.training.datasets.encoded import EncodedImages

Rows = Tensor | NDArray[np.int64]

# Processes that decode, unless the caller says how many: more would hold more batches in memory.
_MOST_WORKERS = 8
_IMAGES_AT_ONCE = 256


class StreamedImages:
    """Standardized images in their files, decoded when they are asked for.

    Parameters
    ----------
    encoded : EncodedImages
        N images.
    mean, std : Tensor
        float32 [1, channels, 1, 1]; an image is ``(pixels / 255 - mean) / std``.
    workers : int, optional
        Processes that decode; 0 decodes in the process that computes. By default as many as torch has threads where
        the images are asked for, and at most 8.
    """

    ndim = 4

    def __init__(self, encoded: EncodedImages, mean: Tensor, std: Tensor, workers: int | None = None) -> None:
        self.encoded = encoded
        self.mean = mean
        self.std = std
        self.workers = workers

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows: ArrayLike | Tensor | slice) -> Tensor:
        """The images of some rows, in memory: float32 [n, channels, height, width]."""
        chosen = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        found = torch.empty((chosen.size, *self.shape[1:]), dtype=torch.float32, device="cpu")
        starts = range(0, chosen.size, _IMAGES_AT_ONCE)
        blocks = (chosen.reshape(-1)[start : start + _IMAGES_AT_ONCE] for start in starts)
        with reading(self) as batches:
            for start, batch in zip(starts, batches(blocks), strict=True):
                found[start : start + len(batch)] = batch
        return found.view(*chosen.shape, *self.shape[1:])

    @property
    def shape(self) -> torch.Size:
        """[N, channels, height, width]."""
        return self.encoded.shape

    def select(self, rows: Tensor | NDArray[Any]) -> StreamedImages:
        """Some of the images, still in their files.

        Parameters
        ----------
        rows : Tensor or ndarray
            Row numbers, or a flag for each image.

        Returns
        -------
        StreamedImages
            Standardized as before.
        """
        return StreamedImages(self.encoded.select(rows), self.mean, self.std, self.workers)

    def standardized(self, pixels: Tensor) -> Tensor:
        """Standardize pixels, as ``(pixels / 255 - mean) / std``.

        Parameters
        ----------
        pixels : Tensor
            uint8 [B, channels, height, width], in main memory.

        Returns
        -------
        Tensor
            float32, of the same shape.
        """
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)

    def batches(self, rows: Iterable[Rows]) -> Iterator[Tensor]:
        """Standardized images of each of the lists of rows, in their order; :func:`reading` calls it.

        Parameters
        ----------
        rows : iterable of Tensor or ndarray
            Row numbers of each batch.

        Returns
        -------
        iterator of Tensor
            The images of each batch, float32 [B, channels, height, width].
        """
        return map(self.standardized, read_batches(self.encoded, rows, self.workers))

    def loader(self, batch_size: int) -> DataLoader[Tensor]:
        """A loader of the pixels of all images in their order, uint8, that :meth:`standardized` is to be applied to.

        Its errors are those of torch, except in the block of :func:`reading`.

        Parameters
        ----------
        batch_size : int
            Images of a batch.

        Returns
        -------
        DataLoader
            Of tensors uint8 [B, channels, height, width].
        """
        return _loader(self.encoded, self.workers, batch_size=batch_size)


def select(images: Any, rows: Tensor | NDArray[Any]) -> Any:
    """Some images, by row numbers or flags; those in their files stay there."""
    if isinstance(images, Tensor):
        return images[torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows]
    return images.select(rows)


@contextmanager
def reading(images: Tensor | StreamedImages) -> Iterator[Callable[[Iterable[Rows]], Iterator[Tensor]]]:
    """Read images in a block; errors of processes that decode become one sentence each.

    Parameters
    ----------
    images : Tensor or StreamedImages
        What to read.

    Yields
    ------
    callable
        Takes an iterable of lists of rows, and returns an iterator over the images of each.

    Raises
    ------
    ValueError, OSError
        If a file is missing or damaged; the message names it.
    ChildProcessError
        If a process that decodes was killed.
    """
    if isinstance(images, Tensor):
        yield lambda rows: (images[chosen] for chosen in rows)
    else:
        with decoding_errors(images.encoded.name):
            yield images.batches


def read_batches(source: EncodedImages, rows: Iterable[Rows], workers: int | None) -> Iterator[Any]:
    """What ``source.__getitems__`` returns for each of the lists of rows, in the block of :func:`decoding_errors`."""
    # By value: a tensor would be sent as a file descriptor.
    return iter(_loader(source, workers, batch_sampler=(np.asarray(chosen) for chosen in rows)))


@contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """A block in which errors of processes that decode are one sentence each; torch adds their tracebacks.

    It is the block in which what they decode is used: torch raises an error wherever the program is when a process of
    its is killed.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if not str(error).startswith("Caught "):
            raise
        sentence = str(error).rstrip().rpartition("\n")[2].partition(": ")[2]
        _release_processes(error)
        raise type(error)(sentence) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).split(". ")[0].rstrip(".")
        _release_processes(error)
        raise ChildProcessError(
            f"a process that decodes images of {name} ended ({reason}): call again, with fewer --workers if memory or "
            "shared memory ran out."
        ) from None


def _release_processes(error: Exception) -> None:
    """Let the processes end that decode: a traceback holds them, and processes that start later would inherit it."""
    error.__traceback__ = None


def _loader(source: Any, workers: int | None, **batching: Any) -> DataLoader[Any]:
    n_workers = min(torch.get_num_threads(), _MOST_WORKERS) if workers is None else workers
    return DataLoader(
        source,
        num_workers=n_workers,
        # Of its own: a loader draws a seed for its processes, from torch's global generator unless it has one.
        generator=torch.Generator(),
        # Processes that are not forked import torch, in every epoch.
        multiprocessing_context="fork" if n_workers and sys.platform.startswith("linux") else None,
        collate_fn=_as_it_is,
        **batching,
    )


def _as_it_is(batch: Sequence[Any]) -> Sequence[Any]:
    return batch
