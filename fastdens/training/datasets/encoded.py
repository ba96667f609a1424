"""Images in their files: decoded, resized and checked when they are asked for."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdens.io.state_file import fingerprint
from fastdens.kernels.optional import require
from fastdens.training.datasets.files import ImageFiles

NO_CLASSES = "is not a data set of images and their classes: choose another, or make folders of it"


class EncodedImages:
    """The images of a data set as uint8 numbers, of which nothing is in memory until it is asked for.

    Parameters
    ----------
    name : str
        Of the data set, for messages.
    dataset : sequence
        Pairs of a PIL image and a label: :class:`fastdens.training.datasets.files.ImageFiles`, or a data set of
        torchvision.
    image_size : int or None
        Height and width to which the central square of each image is resized; None leaves images as they are.
    size : tuple of int
        Channels, height and width that every image must then have.
    rows : ndarray, optional
        int64 [N], the images of the data set that these are; by default all.
    digests : Tensor, optional
        int64 [N, 2], see :func:`digest_of`: an image that has another digest when it is decoded is an error.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        image_size: int | None,
        size: tuple[int, ...],
        rows: NDArray[np.int64] | None = None,
        digests: Tensor | None = None,
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.image_size = image_size
        self.size = size
        self.rows: NDArray[np.int64] = np.arange(len(dataset)) if rows is None else rows
        self.digests = digests

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Tensor:
        """One image, uint8 [channels, height, width]."""
        return torch.from_numpy(self.read(item)[0])

    def __getitems__(self, items: Sequence[int]) -> Tensor:
        """Several images, uint8 [B, channels, height, width]: torch's DataLoader asks for a batch in this way."""
        images = np.empty((len(items), *self.size), np.uint8)
        for image, item in zip(images, items, strict=True):
            image[:] = self.read(item)[0]
        return torch.from_numpy(images)

    @property
    def shape(self) -> torch.Size:
        """[N, channels, height, width]."""
        return torch.Size((len(self), *self.size))

    def select(self, rows: Tensor | NDArray[Any]) -> EncodedImages:
        """Some of the images, by row numbers or flags."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        digests = None if self.digests is None else self.digests[torch.from_numpy(chosen)]
        return EncodedImages(self.name, self.dataset, self.image_size, self.size, self.rows[chosen], digests)

    def with_digests(self, digests: Tensor | None) -> EncodedImages:
        """The same images, each of which must have its digest when it is decoded."""
        return EncodedImages(self.name, self.dataset, self.image_size, self.size, self.rows, digests)

    def read(self, item: int) -> tuple[NDArray[np.uint8], int]:
        """An image, uint8 [channels, height, width], and its label.

        Raises
        ------
        ValueError
            If the image has another size than the others, or has colours where they have none, if it has no label,
            or if it is not the image of which the digest is known.
        OSError
            If its file is missing or damaged.
        """
        row = int(self.rows[item])
        found, label = self.dataset[row]
        pixels = as_pixels(found, self.image_size)
        if pixels.shape[1:] != self.size[1:]:
            here, there = (" x ".join(map(str, size[1:])) for size in (self.size, pixels.shape))
            raise ValueError(
                f"{self.name} has images of different sizes, {here} and {there} ({self._place(row)}): pass image_size, "
                "--image-size on the command line, to resize them."
            )
        if len(pixels) > self.size[0]:
            raise ValueError(f"{self.name} has grey images and coloured ones ({self._place(row)}): make folders of it.")
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, self.size))
        if self.digests is not None and not np.array_equal(digest_of(pixels), self.digests[item].numpy()):
            raise ValueError(
                f"{self._place(row)} has changed since the images of {self.name} were first read: delete "
                "images-*.safetensors in the folder of runs, if there is one, and call again."
            )
        try:
            return pixels, operator.index(label)
        except TypeError:
            raise ValueError(f"{self.name} {NO_CLASSES}.") from None

    def identity(self) -> dict[str, Any]:
        """What the pixels depend on: files, choice, size, and the version of the decoder."""
        return {
            "files": self.dataset.listing() if isinstance(self.dataset, ImageFiles) else None,
            "rows": fingerprint([torch.from_numpy(self.rows)]),
            "image_size": self.image_size,
            "pillow": require("PIL", "a data set of images", "examples").__version__,
        }

    def _place(self, row: int) -> str:
        return self.dataset.place(row) if isinstance(self.dataset, ImageFiles) else f"image {row}"


def as_pixels(image: Any, image_size: int | None) -> NDArray[np.uint8]:
    """uint8 [channels, height, width] of a PIL image."""
    from PIL import Image, ImageOps

    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def digest_of(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A digest of the pixels of an image, int64 [2]."""
    content = np.ascontiguousarray(pixels)
    digest = hashlib.blake2b(f"{content.shape}".encode() + content.tobytes(), digest_size=16).digest()
    return np.frombuffer(digest, np.int64)
