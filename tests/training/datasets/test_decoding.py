"""Images of many files in one array: resizing, and images that do not fit together or into memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastdens.training.datasets import StreamedImages, decoding, load_images
from tests.training.datasets.image_files import save_images

pytest.importorskip("torchvision")


def test_images_are_resized_by_their_middle_square(tmp_path, rng):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 8:22] = 255  # reduction reads a little beyond the square
    for name in ("a", "b"):
        save_images(tmp_path / "train" / name, 1, rng)
        save_images(tmp_path / "test" / name, 1, rng)
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / "0.png")
    white = load_images(str(tmp_path), None, 5, 0).train[0]
    assert float((white - white[:, :1, :1]).abs().max()) == 0


def test_images_of_different_sizes_and_files_that_are_no_images(tmp_path, rng):
    for part in ("train", "test"):
        save_images(tmp_path / part / "a", 2, rng)
    save_images(tmp_path / "train" / "a", 1, rng, (8, 7))
    with pytest.raises(ValueError, match=r"8 x 7 and 9 x 7 .*1\.png.: pass image_size"):
        load_images(str(tmp_path), None, None, 0)
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"1\.png cannot be read as an image"):
        load_images(str(tmp_path), None, 4, 0)


def test_images_that_memory_would_not_hold(tmp_path, rng, monkeypatch):
    for part in ("train", "test"):
        save_images(tmp_path / part / "a", 2, rng)
    n_pixels = 4 * 3 * 9 * 7
    monkeypatch.setattr(decoding, "total_bytes", lambda: 16 * n_pixels)
    assert isinstance(load_images(str(tmp_path), None, None, 0).train, torch.Tensor)
    monkeypatch.setattr(decoding, "total_bytes", lambda: 16 * n_pixels - 1)
    assert isinstance(load_images(str(tmp_path), None, None, 0).train, StreamedImages)
    assert isinstance(load_images(str(tmp_path), None, None, 0, stream=False).train, torch.Tensor)
    monkeypatch.setattr(decoding, "total_bytes", lambda: 5 * n_pixels - 1)
    with pytest.raises(ValueError, match=r"4 images of 3 x 9 x 7, 0.0 GB, .* let them be streamed .--stream., or"):
        load_images(str(tmp_path), None, None, 0, stream=False)
