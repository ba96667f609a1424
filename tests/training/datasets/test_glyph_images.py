"""Glyph images: fonts that draw every character, affine maps, and colours."""

from __future__ import annotations

import numpy as np
import torch

from fastdens.training.datasets.glyph_images import COMMON_FONTS, GlyphRenderer, inverse_affine, with_luminance
from fastdens.training.datasets.glyphs import CHARACTERS


def test_every_character_is_one_class_in_at_least_twelve_fonts_that_draw_it_differently():
    render = GlyphRenderer(16)
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 100 and CHARACTERS.isprintable()
    assert not set(CHARACTERS) & set("&<>$_\\{}\"', ")
    common = []
    for character in CHARACTERS:
        fonts = render.fonts_with(character)
        assert len(fonts) >= 12 and set(COMMON_FONTS) <= set(fonts)
        masks = {font: render(character, font) for font in fonts}
        assert all(int(mask.max()) > 150 for mask in masks.values())
        assert len({mask.numpy().tobytes() for mask in masks.values()}) >= 4
        common.append(torch.stack([masks[font] for font in COMMON_FONTS]).double().flatten(1).numpy())
    # No two characters look the same in the same font.
    for of_font in np.array(common).transpose(1, 0, 2):
        alike = np.corrcoef(of_font) - np.eye(100)
        assert alike.max() < 0.95


def test_affine_maps_and_luminance_against_matrices(rng):
    n = 20
    rotation, shear, log_scale, log_stretch = rng.normal(size=(4, n)) * 0.3
    shift = rng.normal(size=(n, 2))
    found = inverse_affine(rotation, shear, log_scale, log_stretch, shift)
    for i in range(n):
        turn = np.array([[np.cos(rotation[i]), -np.sin(rotation[i])], [np.sin(rotation[i]), np.cos(rotation[i])]])
        width, height = np.exp(log_scale[i] + np.array([0.5, -0.5]) * log_stretch[i])
        forward = turn @ np.array([[1, shear[i]], [0, 1]]) @ np.diag([width, height])
        glyph = rng.normal(size=2)
        image = forward @ glyph + shift[i]
        np.testing.assert_allclose(found[i, :, :2] @ image + found[i, :, 2], glyph, rtol=1e-10, atol=1e-12)
    colour, wanted = rng.random((n, 3)), rng.random(n)
    mixed = with_luminance(colour, wanted)
    np.testing.assert_allclose(mixed @ [0.299, 0.587, 0.114], wanted, rtol=1e-12)
    assert mixed.min() >= 0 and mixed.max() <= 1
