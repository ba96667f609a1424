"""Classes made of subpopulations, some of them a long tail: what the synthetic data sets have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastdens.errors import check_integer
from fastdens.kernels.options import suggest
from fastdens.training.datasets.glyph_images import Appearance, inverse_affine, with_luminance

# Purposes of the streams of random numbers.
TRAIN, TEST, SUBPOPULATIONS, LONG_TAILED, FLIPS = range(5)


class Subpopulations(NamedTuple):
    """The S subpopulations of one class.

    Attributes
    ----------
    frequency : ndarray or None
        [S], summing to 1; None if all are the same, exactly.
    glyph : ndarray
        int64 [S], which of the glyphs of the class.
    rotation, shear, log_scale, log_stretch : ndarray
        [S], the pose of its own.
    extra_noise : ndarray
        [S], added to the standard deviation of the noise.
    """

    frequency: np.ndarray | None
    glyph: np.ndarray
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


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """Random numbers for one purpose, independent of those for others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def zipf(n: int) -> np.ndarray:
    """Frequencies [n] proportional to 1 / k (Zipf's law)."""
    frequency: np.ndarray = 1 / np.arange(1, n + 1)
    frequency /= frequency.sum()
    return frequency


def chosen_classes(long_tailed: float | Iterable[int | str], names: tuple[str, ...], seed: int) -> np.ndarray:
    """The long-tailed classes, bool [classes].

    Parameters
    ----------
    long_tailed : float or iterable of int or str
        The classes, by index or name, or their share, which are then chosen at random.
    names : tuple of str
        Of all classes.
    seed : int

    Raises
    ------
    TypeError, ValueError
        If there is no such class or share.
    """
    chosen = np.zeros(len(names), dtype=bool)
    if isinstance(long_tailed, int):
        raise TypeError(f"long_tailed is {long_tailed}: pass [{long_tailed}] for that class, or a share such as 0.2.")
    if isinstance(long_tailed, float):
        if not 0 <= long_tailed <= 1:
            raise ValueError(f"long_tailed is {long_tailed}, but a share of the classes is between 0 and 1.")
        order = stream(seed, LONG_TAILED).permutation(len(names))
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


def draw_appearance(kinds: Subpopulations, n: int, rng: np.random.Generator, jitter: float = 1.0) -> Appearance:
    """The appearance of n images of a class.

    Each is rotated by up to 15 degrees, sheared by up to 0.15, scaled by up to a sixth, stretched by up to a tenth and
    shifted by up to an eighth of half its width, times ``jitter``, beside the pose of its subpopulation.
    """
    u = _Uniforms.draw(n, rng)
    if kinds.frequency is None:
        subpopulation = np.arange(n) % len(kinds.glyph)
    else:
        subpopulation = np.searchsorted(kinds.frequency.cumsum()[:-1], u.subpopulation[:, 0], side="right")
    # Between -jitter and jitter.
    rotation, shear, scale, stretch = (jitter * (2 * x[:, 0] - 1) for x in (u.rotation, u.shear, u.scale, u.stretch))
    shift = jitter * (2 * u.shift - 1) / 8
    light, dark = 0.6 + 0.35 * u.light, 0.05 + 0.3 * u.dark
    light_on_dark = u.polarity < 0.5
    ink, paper = np.where(light_on_dark, light, dark), np.where(light_on_dark, dark, light)
    angle = 2 * np.pi * u.gradient[:, 0]
    return Appearance(
        subpopulation,
        kinds.glyph[subpopulation],
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
