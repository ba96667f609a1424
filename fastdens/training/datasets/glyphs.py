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
from fastdens.kernels.options import suggest
from fastdens.training.datasets.glyph_images import (
    COMMON_FONTS,
    FONTS,
    Appearance,
    GlyphRenderer,
    inverse_affine,
    paint,
    with_luminance,
)
from fastdens.training.labels import flip_labels

# One of each set of characters that rotation, shear and scale would make alike (O and 0, s and S, И and H).
CHARACTERS = "ABCDEGHJKLMNPQRSTUVWXYZadeghimnty23467ΓΔΘΞΣΦΨΩβδλμξπБДЖЛЦЧЫЪЭЮЯШЂЉЊђßŒæøʤϞϠ@€£§¶¤%*«#+±×∞√→↓♥◊∠⊂⊗≈≤≥"

N_SUBPOPULATIONS = 600

# Purposes of the streams of random numbers.
_TRAIN, _TEST, _SUBPOPULATIONS, _LONG_TAILED, _FLIPS = range(5)


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
    is_long_tailed = _chosen_classes(long_tailed, names, seed)
    renderer = GlyphRenderer(image_size)
    parts = [_Part.empty(n_classes * n, image_size) for n in (n_train, n_test)]
    for c, (character, long_tail) in enumerate(zip(names, is_long_tailed, strict=True)):
        fonts = renderer.fonts_with(character)
        kinds = _long_tail(fonts, _stream(seed, _SUBPOPULATIONS, c)) if long_tail else _ordinary(fonts)
        masks = torch.stack([renderer(character, font) for font in fonts])
        for part, purpose, n in zip(parts, (_TRAIN, _TEST), (n_train, n_test), strict=True):
            rows = slice(c * n, (c + 1) * n)
            look = _draw(kinds, n, _stream(seed, purpose, c, 0))
            paint(part.images[rows], masks[look.font], look, _stream(seed, purpose, c, 1))
            part.subpopulation[rows] = torch.from_numpy(look.subpopulation)
            part.fonts[rows] = torch.tensor([FONTS.index(name) for name in fonts], device="cpu")[look.font]
    true_labels, test_labels = (torch.arange(n_classes, device="cpu").repeat_interleave(n) for n in (n_train, n_test))
    generator = torch.Generator().manual_seed(int(_stream(seed, _FLIPS).integers(1 << 62)))
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


class _Subpopulations(NamedTuple):
    """The subpopulations of one class: frequency [S], font among those of the class, pose and extra noise [S]."""

    frequency: np.ndarray | None  # None: all the same, exactly
    font: np.ndarray
    rotation: np.ndarray
    shear: np.ndarray
    log_scale: np.ndarray
    log_stretch: np.ndarray
    extra_noise: np.ndarray


class _Uniforms(NamedTuple):
    """Uniform random numbers from 0 to 1, [N, width] each, by the property of an image that they decide."""

    subpopulation: np.ndarray
    rotation: np.ndarray
    shear: np.ndarray
    scale: np.ndarray
    stretch: np.ndarray
    shift: np.ndarray
    light: np.ndarray
    dark: np.ndarray
    polarity: np.ndarray
    gradient: np.ndarray
    noise: np.ndarray
    foreground: np.ndarray
    background_start: np.ndarray
    background_end: np.ndarray

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> _Uniforms:
        """One row of random numbers for each image, so that fewer images are the first of more."""
        widths = (1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 3, 3, 3)
        return cls(*np.split(rng.random((n, sum(widths))), np.cumsum(widths)[:-1], axis=1))


def _stream(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _chosen_classes(long_tailed: float | Iterable[int | str], names: tuple[str, ...], seed: int) -> np.ndarray:
    chosen = np.zeros(len(names), dtype=bool)
    if isinstance(long_tailed, int):
        raise TypeError(f"long_tailed is {long_tailed}: pass [{long_tailed}] for that class, or a share such as 0.2.")
    if isinstance(long_tailed, float):
        if not 0 <= long_tailed <= 1:
            raise ValueError(f"long_tailed is {long_tailed}, but a share of the classes is between 0 and 1.")
        order = _stream(seed, _LONG_TAILED).permutation(len(names))
        chosen[order[: round(long_tailed * len(names))]] = True
        return chosen
    for choice in long_tailed:
        if isinstance(choice, str):
            if choice not in names:
                raise ValueError(
                    f"long_tailed names the class {choice!r}, but there is none: the nearest names are "
                    f"{suggest(choice, names)}."
                )
            chosen[names.index(choice)] = True
        elif 0 <= check_integer("a class of long_tailed", choice, 0) < len(names):
            chosen[choice] = True
        else:
            raise ValueError(f"long_tailed has the class {choice}, but classes are 0 to {len(names) - 1}.")
    return chosen


def _ordinary(fonts: tuple[str, ...]) -> _Subpopulations:
    font = np.array([fonts.index(name) for name in COMMON_FONTS])
    return _Subpopulations(None, font, *np.zeros((5, len(font))))


def _long_tail(fonts: tuple[str, ...], rng: np.random.Generator) -> _Subpopulations:
    frequency = 1 / np.arange(1, N_SUBPOPULATIONS + 1)
    low = np.array([-np.radians(40), -0.4, np.log(0.75), -0.4, 0.0])
    high = np.array([np.radians(40), 0.4, np.log(1.1), 0.4, 0.06])
    font = rng.integers(len(fonts), size=N_SUBPOPULATIONS)
    pose = rng.uniform(low, high, (N_SUBPOPULATIONS, 5))
    return _Subpopulations(frequency / frequency.sum(), font, *pose.T)


def _draw(kinds: _Subpopulations, n: int, rng: np.random.Generator) -> Appearance:
    """The appearance of n images."""
    u = _Uniforms.draw(n, rng)
    if kinds.frequency is None:
        subpopulation = np.arange(n) % len(kinds.font)
    else:
        subpopulation = np.searchsorted(kinds.frequency.cumsum()[:-1], u.subpopulation[:, 0], side="right")
    # Between -1 and 1.
    rotation, shear, scale, stretch = (2 * x[:, 0] - 1 for x in (u.rotation, u.shear, u.scale, u.stretch))
    shift = (2 * u.shift - 1) / 8
    light, dark = 0.6 + 0.35 * u.light, 0.05 + 0.3 * u.dark
    light_on_dark = u.polarity < 0.5
    ink, paper = np.where(light_on_dark, light, dark), np.where(light_on_dark, dark, light)
    angle = 2 * np.pi * u.gradient[:, 0]
    return Appearance(
        subpopulation,
        kinds.font[subpopulation],
        inverse_affine(
            kinds.rotation[subpopulation] + np.radians(15) * rotation,
            kinds.shear[subpopulation] + 0.15 * shear,
            kinds.log_scale[subpopulation] + np.log(7 / 6) * scale,
            kinds.log_stretch[subpopulation] + np.log(1.1) * stretch,
            shift,
        ),
        with_luminance(u.foreground, ink[:, 0]),
        (with_luminance(u.background_start, paper[:, 0]), with_luminance(u.background_end, paper[:, 1])),
        np.stack([np.cos(angle), np.sin(angle)], 1),
        0.02 + 0.04 * u.noise[:, 0] + kinds.extra_noise[subpopulation],
    )
