"""Pictures of the examples that stand out: the least and the most dense, and the most memorized."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.examples import ExamplePictures

SHOWN = 12
"""Examples of each kind that are shown of all classes together."""

_SHOWN_OF_CLASSES = 300
"""Pictures that are divided among the classes, and their kinds."""

_LONGEST_SIDE = 48  # pixels


class Extremes(NamedTuple):
    """Examples that stand out, int64 indices, the extreme one first; no memorized ones where no score is known."""

    least_dense: NDArray[np.int64]
    most_dense: NDArray[np.int64]
    most_memorized: NDArray[np.int64]


def extreme_examples(
    log_density: NDArray[np.float64],
    scores: NDArray[np.float64] | None,
    n: int,
    among: NDArray[np.int64] | None = None,
) -> Extremes:
    """The examples that stand out by their density or memorization; of equal scores, the less dense one comes first.

    Parameters
    ----------
    log_density : ndarray
        float64 [N], of each example under its own class.
    scores : ndarray or None
        float64 [N], memorization scores; NaN where unknown.
    n : int
        How many of each kind, at most.
    among : ndarray, optional
        int64 indices of the examples to choose from; by default all.
    """
    rows = np.arange(len(log_density)) if among is None else among
    by_density = rows[np.argsort(log_density[rows], kind="stable")]
    known = rows[:0] if scores is None else rows[np.isfinite(scores[rows])]
    by_score = known if scores is None else known[np.lexsort((log_density[known], -scores[known]))]
    return Extremes(by_density[:n], by_density[::-1][:n], by_score[:n])


def example_pictures(
    data: AnalysisData, log_density: NDArray[np.float64], scores: NDArray[np.float64] | None
) -> ExamplePictures | None:
    """Pictures of the examples that stand out, of all classes and of each.

    Parameters
    ----------
    data : AnalysisData
    log_density, scores : ndarray
        As of :func:`extreme_examples`.

    Returns
    -------
    ExamplePictures or None
        None where the data have no images of one channel or three.
    """
    labels, n_classes = data.examples.labels, len(data.examples.class_names)
    if data.images is None or data.images.ndim != 4 or data.images.shape[1] not in (1, 3):
        return None
    chosen = [*extreme_examples(log_density, scores, SHOWN)]
    for c in range(n_classes):
        chosen += extreme_examples(
            log_density, scores, _SHOWN_OF_CLASSES // (len(Extremes._fields) * n_classes), np.flatnonzero(labels == c)
        )
    examples = np.unique(np.concatenate(chosen))
    images = data.images[examples].detach().float().cpu()
    if data.experiment is not None:
        images = images * data.experiment.images.std + data.experiment.images.mean
    else:
        # What a network takes has no known scale: the pictures share one.
        images = (images - images.min()) / (images.max() - images.min()).clamp(min=1e-12)
    return ExamplePictures(examples, _as_pixels(images))


def _as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images [E, channels, H, W] from 0 to 1 as bytes, large ones reduced."""
    height, width = images.shape[-2:]
    scale = _LONGEST_SIDE / max(height, width)
    if scale < 1:
        images = F.interpolate(images, size=(max(1, round(scale * height)), max(1, round(scale * width))), mode="area")
    pixels: NDArray[np.uint8] = images.nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().numpy()
    return pixels
