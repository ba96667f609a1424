"""Image files in the formats of photographs alone, whatever else the decoder knows."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

from fastdens.kernels.optional import require

MOST_PIXELS = 1 << 26
"""Pixels of an image, at most: a short file may name a long width."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its name: PIL hands PostScript, for one, to a program that runs it."""


def read_image(path: str | os.PathLike[str]) -> Any:
    """The PIL image in a file, in three channels: a data set of photographs has some grey ones.

    Raises
    ------
    OSError
        If the file is missing or damaged, in none of :data:`FORMATS`, or has more pixels than :data:`MOST_PIXELS`.
    """
    pil_image = require("PIL.Image", "a folder of images", "examples")
    try:
        # From memory: of a file, a decoder asks for the gigabytes that four bytes of it can name.
        content = BytesIO(Path(path).read_bytes())
        with pil_image.open(content, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels")
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: put it there.") from None
    # A damaged file ends in an exception of any kind.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise OSError(f"{path} cannot be read as an image ({reason}): replace or remove it.") from None
