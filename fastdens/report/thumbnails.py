"""Pictures of examples, as they go into the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from fastdens.kernels.optional import require
from fastdens.pipeline.examples import ExamplePictures


def thumbnail_sources(pictures: ExamplePictures | None) -> dict[int, str]:
    """A data URI of a PNG for each example that has a picture."""
    if pictures is None:
        return {}
    return {int(example): _source(image) for example, image in zip(pictures.examples, pictures.images, strict=True)}


def _source(image: NDArray[np.uint8]) -> str:
    """The data URI of an image [channels, height, width]."""
    pil_image = require("PIL.Image", "write_report", "analysis")
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    stream = io.BytesIO()
    pil_image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
