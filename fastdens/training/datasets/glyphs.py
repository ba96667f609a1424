"""A data set of the paper's shape that needs no download: coloured characters in the fonts that matplotlib ships.

Like that of the paper it has 100 classes of 500 training and 100 test images of 32 x 32 pixels. Some of its labels can
be wrong, and some of its classes can have a long tail of subpopulations; both are known.

References
----------
Feldman, Does learning require memorization? A short tale about a long tail, STOC 2020.
Zhu, Anguelov & Ramanan, Capturing long-tail distributions of object subcategories, CVPR 2014.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdens.errors import check_integer
from fastdens.training.datasets.glyph_images import (
    COMMON_FONTS,
    FONTS,
    GlyphRenderer,
    paint,
)
from fastdens.training.datasets.subpopulations import (
    FLIPS,
    SUBPOPULATIONS,
    TEST,
    TRAIN,
    Subpopulations,
    chosen_classes,
    draw_appearance,
    stream,
    zipf,
)
from fastdens.training.labels import flip_labels

# One of each set of characters that rotation, shear and scale would make alike (O and 0, s and S, И and H).
CHARACTERS = "ABCDEGHJKLMNPQRSTUVWXYZadeghimnty23467ΓΔΘΞΣΦΨΩβδλμξπБДЖЛЦЧЫЪЭЮЯШЂЉЊђßŒæøʤϞϠ@€£§¶¤%*«#+±×∞√→↓♥◊∠⊂⊗≈≤≥"

N_SUBPOPULATIONS = 600


class Glyphs(NamedTuple):
    """Images of characters, with the labels that were flipped and the classes and images that are rare.

    Attributes
    ----------
    train, test : Tensor
        uint8 [N, 3, H, W], class by class.
    labels : Tensor
        int64 [N], of the training images, some of them flipped.
    true_labels : Tensor
        int64 [N], of the training images before flips.
    flipped : Tensor
        bool [N], which of the labels were flipped.
    test_labels : Tensor
        int64 [N]; none of them is flipped.
    class_names : tuple of str
        The character of each class.
    long_tailed : Tensor
        bool [classes].
    train_subpopulation, test_subpopulation : Tensor
        int64 [N], the subpopulation of the class that an image belongs to, the most frequent first.
    train_fonts, test_fonts : Tensor
        int64 [N], the font of each image, an index of ``FONTS``.
    """

    train: Tensor
    labels: Tensor
    true_labels: Tensor
    flipped: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    long_tailed: Tensor
    train_subpopulation: Tensor
    test_subpopulation: Tensor
    train_fonts: Tensor
    test_fonts: Tensor


def glyphs(
    n_classes: int = 100,
    n_train: int = 500,
    n_test: int = 100,
    *,
    flip: float = 0.0,
    long_tailed: float | Iterable[int | str] = (),
    image_size: int = 32,
    seed: int = 0,
) -> Glyphs:
    """Images of characters with random shapes, colours and noise.

    Every image is a character in some font, rotated by up to 15 degrees, sheared by up to 0.15, scaled by up to
    a sixth, stretched by up to a tenth and shifted by up to an eighth of half its width, in one colour on a gradient of
    two others that differ from it in luminance by 0.25 at least, with Gaussian noise of standard deviation 0.02 to
    0.06 (white is 1).

    An ordinary class has three equally frequent subpopulations, one for each font of ``COMMON_FONTS``. A long-tailed
    class has 600; the k-th has a frequency proportional to 1 / k in training and test (Zipf's law), a font out of all
    that have the character, a pose of its own (rotated by up to 40 degrees, sheared by up to 0.4, stretched by up to a
    half, scaled by 0.75 to 1.1) and noise of up to 0.12. About a quarter of its 500 training images are then the only
    ones of their subpopulation.

    Parameters
    ----------
    n_classes : int
        2 to 100.
    n_train, n_test : int
        Images of each class.
    flip : float
        Share of the training labels to replace by another label, each other label being equally likely.
    long_tailed : float or iterable of int or str
        The long-tailed classes, by index or character, or their share of the classes, which are then chosen at random.
    image_size : int
        Height and width of the images, at least 8.
    seed : int
        The same seed gives the same images, bit for bit on one machine, whatever the number of threads. The images of a
        class depend on the seed and on whether the class is long-tailed, but not on other classes, flips or
        ``n_classes``.

    Returns
    -------
    Glyphs

    Raises
    ------
    ValueError
        If a number is out of its range, or there is no class of a name or index in ``long_tailed``.
    ImportError
        If matplotlib is not installed.
    FileNotFoundError
        If matplotlib came without its fonts.
    """
    n_classes, image_size = check_integer("n_classes", n_classes, 2), check_integer("image_size", image_size, 8)
    n_train, n_test = check_integer("n_train", n_train, 1), check_integer("n_test", n_test, 1)
    seed = check_integer("seed", seed, 0)
    if n_classes > len(CHARACTERS):
        raise ValueError(f"n_classes is {n_classes}, but there are {len(CHARACTERS)} characters: ask for so many.")
    if not 0 <= flip < 1:
        raise ValueError(f"flip is {flip}, but the share of labels to flip must be at least 0 and less than 1.")
    names = tuple(CHARACTERS[:n_classes])
    is_long_tailed = chosen_classes(long_tailed, names, seed)
    renderer = GlyphRenderer(image_size)
    parts = [_Part.empty(n_classes * n, image_size) for n in (n_train, n_test)]
    for c, (character, long_tail) in enumerate(zip(names, is_long_tailed, strict=True)):
        fonts = renderer.fonts_with(character)
        kinds = _long_tail(fonts, stream(seed, SUBPOPULATIONS, c)) if long_tail else _ordinary(fonts)
        masks = torch.stack([renderer(character, font) for font in fonts])
        for part, purpose, n in zip(parts, (TRAIN, TEST), (n_train, n_test), strict=True):
            rows = slice(c * n, (c + 1) * n)
            look = draw_appearance(kinds, n, stream(seed, purpose, c, 0))
            paint(part.images[rows], masks[look.glyph], look, stream(seed, purpose, c, 1))
            part.subpopulation[rows] = torch.from_numpy(look.subpopulation)
            part.fonts[rows] = torch.tensor([FONTS.index(name) for name in fonts], device="cpu")[look.glyph]
    true_labels, test_labels = (torch.arange(n_classes, device="cpu").repeat_interleave(n) for n in (n_train, n_test))
    generator = torch.Generator().manual_seed(int(stream(seed, FLIPS).integers(1 << 62)))
    labels, flipped = flip_labels(true_labels, flip, n_classes, generator)
    train, test = parts
    return Glyphs(
        train.images,
        labels,
        true_labels,
        flipped,
        test.images,
        test_labels,
        names,
        torch.from_numpy(is_long_tailed),
        train.subpopulation,
        test.subpopulation,
        train.fonts,
        test.fonts,
    )


class _Part(NamedTuple):
    images: Tensor
    subpopulation: Tensor
    fonts: Tensor

    @classmethod
    def empty(cls, n: int, image_size: int) -> _Part:
        images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8, device="cpu")
        return cls(
            images, torch.empty(n, dtype=torch.int64, device="cpu"), torch.empty(n, dtype=torch.int64, device="cpu")
        )


def _ordinary(fonts: tuple[str, ...]) -> Subpopulations:
    font = np.array([fonts.index(name) for name in COMMON_FONTS])
    return Subpopulations(None, font, *np.zeros((5, len(font))))


def _long_tail(fonts: tuple[str, ...], rng: np.random.Generator) -> Subpopulations:
    low = np.array([-np.radians(40), -0.4, np.log(0.75), -0.4, 0.0])
    high = np.array([np.radians(40), 0.4, np.log(1.1), 0.4, 0.06])
    font = rng.integers(len(fonts), size=N_SUBPOPULATIONS)
    pose = rng.uniform(low, high, (N_SUBPOPULATIONS, 5))
    return Subpopulations(zipf(N_SUBPOPULATIONS), font, *pose.T)
