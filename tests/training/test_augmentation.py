"""Augmentation: what the random changes are, beside windows cut out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.training.augmentation import augmented


@pytest.mark.parametrize(("size", "padding"), [(32, 4), (84, 10), (8, 1), (7, 0)])
def test_crops_are_windows_of_the_padded_image_or_of_its_mirror_image(rng, size, padding):
    images = torch.from_numpy(rng.normal(size=(40, 2, size, size))).float()
    found = augmented(images, "crop_flip", torch.Generator().manual_seed(int(rng.integers(2**31))))
    assert found.shape == images.shape and found.dtype == images.dtype
    starts, mirrored = [], 0
    for image, crop in zip(images.numpy(), found.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        for row, column, flip in np.ndindex(2 * padding + 1, 2 * padding + 1, 2):
            window = padded[:, row : row + size, column : column + size]
            if np.array_equal(window[:, :, ::-1] if flip else window, crop):
                starts.append((row, column))
                mirrored += flip
                break
        else:
            pytest.fail("no window of the image")
    # Each of 40 is mirrored with probability one half; four standard errors are 12.6.
    assert 7 <= mirrored <= 33
    rows, columns = np.array(starts).T
    if padding > 3:
        assert len(set(rows)) > 4 and len(set(columns)) > 4 and not np.array_equal(rows, columns)


@pytest.mark.parametrize("augmentation", ["affine", "crop_flip"])
def test_the_generator_decides(rng, augmentation):
    images = torch.from_numpy(rng.normal(size=(5, 3, 16, 16))).float()
    one, same, other = (augmented(images, augmentation, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
