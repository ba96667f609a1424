"""Image files for tests."""

from __future__ import annotations

import numpy as np
from PIL import Image


def save_images(folder, n, rng, size=(9, 7), value=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8) if value is None else np.full((*size, 3), value)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
