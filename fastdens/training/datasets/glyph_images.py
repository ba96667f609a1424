"""Images of characters: glyphs rendered from the fonts that matplotlib ships, then transformed and coloured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdens.kernels.optional import require

COMMON_FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
_RARE_FONTS = (
    *(f"DejaVuSans-{style}" for style in ("Bold", "Oblique", "BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif-{style}" for style in ("Bold", "Italic", "BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("Bol", "Italic", "BolIta")),
)
# Computer Modern's character maps are right for letters and digits of ASCII only.
_ASCII_FONTS = ("cmr10", "cmss10", "cmtt10", "cmb10", "cmti10")
FONTS = (*COMMON_FONTS, *_RARE_FONTS, *_ASCII_FONTS)

_RENDERED_SIZE = 192  # pixels of the font's em square, before it is reduced to the canvas
_INK = 0.62  # the larger side of a glyph, as a share of the canvas
_BLOCK_PIXELS = 1 << 18  # of the finer grid; small enough to stay in cache
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601


class Appearance(NamedTuple):
    """The random appearance of N images.

    Attributes
    ----------
    subpopulation, glyph : ndarray
        int64 [N]; which of the subpopulations and which of the glyphs of the class.
    affine : ndarray
        float64 [N, 2, 3], from points of the image to points of the glyph.
    foreground : ndarray
        float64 [N, 3], a colour.
    background : tuple of two ndarray
        float64 [N, 3] each, the two ends of a colour gradient.
    gradient : ndarray
        float64 [N, 2], the direction from the first background colour to the second.
    noise : ndarray
        float64 [N], a standard deviation.
    """

    subpopulation: np.ndarray
    glyph: np.ndarray
    affine: np.ndarray
    foreground: np.ndarray
    background: tuple[np.ndarray, np.ndarray]
    gradient: np.ndarray
    noise: np.ndarray


class GlyphRenderer:
    """Renders glyphs as uint8 [C, C], the middle of their ink in the middle, their larger side the same.

    Parameters
    ----------
    image_size : int
        Height and width of the images to paint; C is twice that, 128 at most.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    FileNotFoundError
        If it came without its fonts.
    """

    def __init__(self, image_size: int) -> None:
        matplotlib = require("matplotlib", "rendering of characters", "analysis")
        from matplotlib.ft2font import FT2Font
        from PIL import ImageFont

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
        """The ink of a character in a font, uint8 [C, C]."""
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


def inverse_affine(
    rotation: np.ndarray, shear: np.ndarray, log_scale: np.ndarray, log_stretch: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Affine maps [N, 2, 3] from points of the image to points of the glyph.

    They invert a scaling by exp(log_scale ± log_stretch / 2) in width and height, then a shear, a rotation and a shift;
    all are [N], the shift [N, 2].
    """
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


def with_luminance(colour: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """The colours [N, 3], mixed with black or white until they have the luminance [N]."""
    own, wanted = colour @ _LUMINANCE, luminance
    darker = colour * (wanted / own)[:, None]
    lighter = 1 - (1 - colour) * ((1 - wanted) / (1 - own))[:, None]
    mixed: np.ndarray = np.where((wanted < own)[:, None], darker, lighter)
    return mixed


def paint(images: Tensor, masks: Tensor, look: Appearance, rng: np.random.Generator) -> None:
    """Paint glyphs into images.

    Products and sums are taken one at a time: a fused instruction would make the end of a block differ from its middle.

    Parameters
    ----------
    images : Tensor
        uint8 [N, 3, H, W], overwritten.
    masks : Tensor
        uint8 [N, C, C], the ink of each image's glyph.
    look : Appearance
    rng : numpy.random.Generator
        Draws the noise.
    """
    size = images.shape[-1]
    block = max(1, _BLOCK_PIXELS // (2 * size) ** 2)
    # Two points a pixel in each direction, averaged after.
    fine, coarse = ((torch.arange(n, dtype=torch.float32, device="cpu") * 2 + 1) / n - 1 for n in (2 * size, size))
    for start in range(0, len(images), block):
        rows = slice(start, start + block)

        def column(values: np.ndarray, rows: slice = rows) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[rows])).float().reshape(-1, *values.shape[1:], 1, 1)

        affine = column(look.affine)
        x, y = fine, fine[:, None]
        grid = torch.stack([affine[:, i, 0] * x + affine[:, i, 2] + affine[:, i, 1] * y for i in range(2)], 3)
        glyph = masks[rows, None].float() / 255
        ink = F.avg_pool2d(F.grid_sample(glyph, grid, align_corners=False, padding_mode="zeros"), 2)
        direction = column(look.gradient)
        along = ((direction[:, 0] * coarse + direction[:, 1] * coarse[:, None]) * 0.5 + 0.5).clamp(0, 1)[:, None]
        first, second = (column(colour) for colour in look.background)
        paper = first + (second - first) * along
        noise = torch.from_numpy(rng.standard_normal(images[rows].shape, dtype=np.float32))
        image = paper + (column(look.foreground) - paper) * ink + noise.mul_(column(look.noise)[:, None])
        images[rows] = image.mul_(255).round_().clamp_(0, 255)
