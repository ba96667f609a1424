"""A data set of the paper's shape that needs no download: coloured characters in the fonts that matplotlib ships.

Like that of the paper it has 100 classes of 500 training and 100 test images of 32 x 32 pixels, and two things are
planted in it: labels that are wrong, and classes whose examples come from a long tail of subpopulations.

References
----------
Feldman, Does learning require memorization? A short tale about a long tail, STOC 2020.
Zhu, Anguelov & Ramanan, Capturing long-tail distributions of object subcategories, CVPR 2014.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdens.errors import check_integer
from fastdens.kernels.options import suggest
from fastdens.training.recipe import flip_labels

# Of characters that turning, shearing and scaling would make alike (O and 0, s and S, И and H) one is here.
CHARACTERS = "ABCDEGHJKLMNPQRSTUVWXYZadeghimnty23467ΓΔΘΞΣΦΨΩβδλμξπБДЖЛЦЧЫЪЭЮЯШЂЉЊђßŒæøʤϞϠ@€£§¶¤%*«#+±×∞√→↓♥◊∠⊂⊗≈≤≥"

COMMON_FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
_RARE_FONTS = (
    *(f"DejaVuSans-{style}" for style in ("Bold", "Oblique", "BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif-{style}" for style in ("Bold", "Italic", "BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("Bol", "Italic", "BolIta")),
)
# Computer Modern's character maps are true of letters and digits of ASCII only.
_ASCII_FONTS = ("cmr10", "cmss10", "cmtt10", "cmb10", "cmti10")
FONTS = (*COMMON_FONTS, *_RARE_FONTS, *_ASCII_FONTS)

N_SUBPOPULATIONS = 600

_RENDERED_SIZE = 192  # pixels of the font's em square, before it is reduced to the canvas
_INK = 0.62  # the larger side of a glyph, of the canvas
_BLOCK_PIXELS = 1 << 18  # of the finer grid; small enough to stay in cache

# What a stream of random numbers is for.
_TRAIN, _TEST, _SUBPOPULATIONS, _LONG_TAILED, _FLIPS = range(5)


class Glyphs(NamedTuple):
    """Images of characters, and what was planted in them.

    Attributes
    ----------
    train, test : Tensor
        uint8 [N, 3, H, W], class by class.
    labels : Tensor
        int64 [N], of the training images as they are given, some of them flipped.
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
        int64 [N], which subpopulation of its class an image is of, the most frequent first.
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

    Every image is a character in some font, turned by up to 15 degrees, sheared by up to 0.15, scaled by up to
    a sixth, stretched by up to a tenth and moved by up to an eighth of its half-width, in one colour on a gradient of
    two others that differ from it in luminance by 0.25 at least, with Gaussian noise of standard deviation 0.02 to
    0.06 (white being 1).

    An ordinary class has three subpopulations, equally frequent: one a font of ``COMMON_FONTS``. A long-tailed class
    has 600, the k-th with frequency proportional to 1 / k in training and test (Zipf's law), each with a font out of
    all that have the character, a stance of its own - turned by up to 40 degrees, sheared by up to 0.4, stretched by
    up to a half, scaled by 0.75 to 1.1 - and noise of up to 0.12. Of its 500 training images about a quarter are then
    the only ones of their subpopulation.

    Parameters
    ----------
    n_classes : int
        2 to 100.
    n_train, n_test : int
        Images of each class.
    flip : float
        Share of the training labels to replace by another label, each other label as likely.
    long_tailed : float or iterable of int or str
        The classes that are long-tailed, by index or character, or the share of the classes, which are then chosen
        at random.
    image_size : int
        Height and width of the images, at least 8.
    seed : int
        Decides everything, bit for bit on one machine, whatever the number of threads. The images of a class depend
        on it and on whether that class is long-tailed, and on nothing about another class, flips or ``n_classes``.

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
        If it came without its fonts.
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
    render = _Renderer(image_size)
    parts = [_Part.empty(n_classes * n, image_size) for n in (n_train, n_test)]
    for c, (character, long_tail) in enumerate(zip(names, is_long_tailed, strict=True)):
        fonts = render.fonts_with(character)
        kinds = _long_tail(fonts, _stream(seed, _SUBPOPULATIONS, c)) if long_tail else _ordinary(fonts)
        masks = torch.stack([render(character, font) for font in fonts])
        for part, purpose, n in zip(parts, (_TRAIN, _TEST), (n_train, n_test), strict=True):
            rows = slice(c * n, (c + 1) * n)
            drawn = _draw(kinds, n, _stream(seed, purpose, c, 0))
            _paint(part.images[rows], masks[drawn.font], drawn, _stream(seed, purpose, c, 1))
            part.subpopulation[rows] = torch.from_numpy(drawn.subpopulation)
            part.fonts[rows] = torch.tensor([FONTS.index(name) for name in fonts])[drawn.font]
    true_labels, test_labels = (torch.arange(n_classes).repeat_interleave(n) for n in (n_train, n_test))
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
        images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8)
        return cls(images, torch.empty(n, dtype=torch.int64), torch.empty(n, dtype=torch.int64))


class _Subpopulations(NamedTuple):
    """Of one class: the frequency of each [S], its font among those of the class, and its stance and noise [S]."""

    frequency: np.ndarray | None  # None: all the same, exactly
    font: np.ndarray
    rotation: np.ndarray
    shear: np.ndarray
    log_scale: np.ndarray
    log_stretch: np.ndarray
    extra_noise: np.ndarray


class _Drawn(NamedTuple):
    """Of each image: subpopulation, font and noise [N], inverse affine map [N, 2, 3], its colours [N, 3], and the
    direction [N, 2] in which that of the background goes from the first to the second.
    """

    subpopulation: np.ndarray
    font: np.ndarray
    affine: np.ndarray
    foreground: np.ndarray
    background: tuple[np.ndarray, np.ndarray]
    gradient: np.ndarray
    noise: np.ndarray


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
    stance = rng.uniform(low, high, (N_SUBPOPULATIONS, 5))
    return _Subpopulations(frequency / frequency.sum(), font, *stance.T)


def _draw(kinds: _Subpopulations, n: int, rng: np.random.Generator) -> _Drawn:
    """What each image looks like; one row of random numbers an image, so that fewer images are the first of more."""
    u = rng.random((n, 23))
    signed = 2 * u[:, 1:7] - 1
    if kinds.frequency is None:
        subpopulation = np.arange(n) % len(kinds.font)
    else:
        subpopulation = np.searchsorted(kinds.frequency.cumsum()[:-1], u[:, 0], side="right")
    rotation = kinds.rotation[subpopulation] + np.radians(15) * signed[:, 0]
    shear = kinds.shear[subpopulation] + 0.15 * signed[:, 1]
    log_scale = kinds.log_scale[subpopulation] + np.log(7 / 6) * signed[:, 2]
    log_stretch = kinds.log_stretch[subpopulation] + np.log(1.1) * signed[:, 3]
    light, dark = 0.6 + 0.35 * u[:, 7:9], 0.05 + 0.3 * u[:, 9:11]
    light_on_dark = u[:, 11:12] < 0.5
    ink, paper = np.where(light_on_dark, light, dark), np.where(light_on_dark, dark, light)
    hue = u[:, 14:].reshape(n, 3, 3)
    angle = 2 * np.pi * u[:, 12]
    noise = 0.02 + 0.04 * u[:, 13] + kinds.extra_noise[subpopulation]
    return _Drawn(
        subpopulation,
        kinds.font[subpopulation],
        _inverse_affine(rotation, shear, log_scale, log_stretch, signed[:, 4:6] / 8),
        _of_luminance(hue[:, 0], ink[:, 0]),
        (_of_luminance(hue[:, 1], paper[:, 0]), _of_luminance(hue[:, 2], paper[:, 1])),
        np.stack([np.cos(angle), np.sin(angle)], 1),
        noise,
    )


def _inverse_affine(
    rotation: np.ndarray, shear: np.ndarray, log_scale: np.ndarray, log_stretch: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """From points of the image to points of the glyph: moved back, turned back, sheared back, scaled back."""
    cos, sin = np.cos(rotation), np.sin(rotation)
    width, height = np.exp(log_scale + log_stretch / 2), np.exp(log_scale - log_stretch / 2)
    linear = np.stack(
        [
            np.stack([(cos + shear * sin) / width, (sin - shear * cos) / width], 1),
            np.stack([-sin / height, cos / height], 1),
        ],
        1,
    )
    offset = -(linear * shift[:, None, :]).sum(2, keepdims=True)
    return np.concatenate([linear, offset], 2)


def _of_luminance(colour: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """The colours [N, 3] mixed with black or white until they have the luminance (ITU-R BT.601)."""
    own, wanted = colour @ np.array([0.299, 0.587, 0.114]), luminance
    darker = colour * (wanted / own)[:, None]
    lighter = 1 - (1 - colour) * ((1 - wanted) / (1 - own))[:, None]
    return np.where((wanted < own)[:, None], darker, lighter)


def _paint(images: Tensor, masks: Tensor, drawn: _Drawn, rng: np.random.Generator) -> None:
    """Write uint8 images [N, 3, H, W] of glyphs [N, C, C].

    Products and sums are taken one at a time, so that no fused instruction makes a block's end differ from its middle.
    """
    size = images.shape[-1]
    block = max(1, _BLOCK_PIXELS // (2 * size) ** 2)
    # Two points a pixel in each direction, averaged after.
    fine, coarse = ((torch.arange(n, dtype=torch.float32) * 2 + 1) / n - 1 for n in (2 * size, size))
    for start in range(0, len(images), block):
        rows = slice(start, start + block)

        def column(values: np.ndarray, rows: slice = rows) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[rows])).float().reshape(-1, *values.shape[1:], 1, 1)

        affine = column(drawn.affine)
        x, y = fine, fine[:, None]
        grid = torch.stack([affine[:, i, 0] * x + affine[:, i, 2] + affine[:, i, 1] * y for i in range(2)], 3)
        glyph = masks[rows, None].float() / 255
        ink = F.avg_pool2d(F.grid_sample(glyph, grid, align_corners=False, padding_mode="zeros"), 2)
        direction = column(drawn.gradient)
        along = ((direction[:, 0] * coarse + direction[:, 1] * coarse[:, None]) * 0.5 + 0.5).clamp(0, 1)[:, None]
        first, second = (column(colour) for colour in drawn.background)
        paper = first + (second - first) * along
        noise = torch.from_numpy(rng.standard_normal(images[rows].shape, dtype=np.float32))
        image = paper + (column(drawn.foreground) - paper) * ink + noise.mul_(column(drawn.noise)[:, None])
        images[rows] = image.mul_(255).round_().clamp_(0, 255)


class _Renderer:
    """Glyphs as uint8 [C, C], the middle of their ink in the middle, their larger side the same."""

    def __init__(self, image_size: int) -> None:
        try:
            import matplotlib
            from matplotlib.ft2font import FT2Font
            from PIL import ImageFont
        except ImportError:
            raise ImportError("glyphs needs matplotlib, not installed: pip install 'fastdens[analysis]'.") from None
        self._canvas = 2 * min(image_size, 64)
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self._fonts: dict[str, Any] = {}
        self._characters: dict[str, set[int]] = {}
        for name in FONTS:
            file = folder / f"{name}.ttf"
            if not file.is_file():
                raise FileNotFoundError(f"matplotlib came without its font {file}: install it with pip.")
            self._characters[name] = set(FT2Font(str(file)).get_charmap())
            self._fonts[name] = ImageFont.truetype(str(file), _RENDERED_SIZE, layout_engine=ImageFont.Layout.BASIC)

    def fonts_with(self, character: str) -> tuple[str, ...]:
        """Names of the fonts that have the character."""
        is_ascii_letter = character.isascii() and character.isalnum()
        return tuple(
            name
            for name, characters in self._characters.items()
            if ord(character) in characters and (is_ascii_letter or name not in _ASCII_FONTS)
        )

    def __call__(self, character: str, font: str) -> Tensor:
        from PIL import Image, ImageDraw

        left, top, right, bottom = self._fonts[font].getbbox(character)
        ink = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=self._fonts[font])
        scale = _INK * self._canvas / max(ink.size)
        width, height = (max(1, round(side * scale)) for side in ink.size)
        canvas = Image.new("L", (self._canvas, self._canvas))
        canvas.paste(
            ink.resize((width, height), Image.Resampling.BOX),
            ((self._canvas - width) // 2, (self._canvas - height) // 2),
        )
        return torch.from_numpy(np.array(canvas))
