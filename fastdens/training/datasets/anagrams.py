"""A small data set in which a network makes two groups of classes: anagrams of six letters, in three rows of two.

Every image shows the same six letters, so that what is local looks alike in all classes; only their order tells the
classes apart. An ordinary class has one order. A long-tailed class has them all, a few often and most of them hardly
ever, and those that are seen once a network can only learn by heart.

References
----------
Feldman, Does learning require memorization? A short tale about a long tail, STOC 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdens.errors import check_integer
from fastdens.training.datasets.glyph_images import GlyphRenderer, paint
from fastdens.training.datasets.subpopulations import (
    SUBPOPULATIONS,
    TEST,
    TRAIN,
    Subpopulations,
    chosen_classes,
    draw_appearance,
    stream,
    zipf,
)

# Letters that differ at five pixels.
LETTERS = "AXOTLH"
N_ORDERS = math.factorial(len(LETTERS))

_ROWS, _COLUMNS = 3, 2
_FONT = "DejaVuSans-Bold"
_SHOWN = 0.7  # share of the renderer's canvas that a letter needs
_JITTER = 0.5
_FAINTEST = 0.4


class Anagrams(NamedTuple):
    """Images of anagrams, with the classes and images that are rare.

    Attributes
    ----------
    train, test : Tensor
        uint8 [N, 3, H, W], class by class.
    train_labels, test_labels : Tensor
        int64 [N].
    class_names : tuple of str
        The most frequent order of the letters in each class, row by row.
    long_tailed : Tensor
        bool [classes].
    train_subpopulation, test_subpopulation : Tensor
        int64 [N], the order of the letters in an image among those of its class, the most frequent first.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    long_tailed: Tensor
    train_subpopulation: Tensor
    test_subpopulation: Tensor


def anagrams(
    n_classes: int = 40,
    n_train: int = 80,
    n_test: int = 20,
    *,
    long_tailed: float | Iterable[int | str] = (),
    image_size: int = 16,
    seed: int = 0,
) -> Anagrams:
    """Images of six letters in some order, with random colours, strengths, noise and a little pose.

    Every image is rotated by up to 7.5 degrees, sheared by up to 0.075, scaled by up to a twelfth, stretched by up to a
    twentieth and shifted by up to a sixteenth of half its width, in one colour on a gradient of two others, with
    Gaussian noise of standard deviation 0.02 to 0.06 (white is 1). Each letter has a strength of its own, uniform
    between 0.4 and 1. All this is the same in long-tailed classes as in others.

    An ordinary class has one order of the letters, and no two classes the same. A long-tailed class has all 720, that
    one first and the others shuffled; the k-th has a frequency proportional to 1 / k in training and test (Zipf's law).
    About half of its 80 training images are then the only ones of their order.

    Parameters
    ----------
    n_classes : int
        2 to 720, the orders of the letters.
    n_train, n_test : int
        Images of each class.
    long_tailed : float or iterable of int or str
        The long-tailed classes, by index or name, or their share of the classes, which are then chosen at random.
    image_size : int
        Height and width of the images, at least 8.
    seed : int
        The same seed gives the same images, bit for bit on one machine, whatever the number of threads. The images of a
        class do not depend on which other classes are long-tailed.

    Returns
    -------
    Anagrams

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
    if n_classes > N_ORDERS:
        raise ValueError(f"n_classes is {n_classes}, but the letters have {N_ORDERS} orders: ask for so many classes.")
    orders = np.array(list(permutations(range(len(LETTERS)))))
    first = stream(seed, SUBPOPULATIONS).permutation(N_ORDERS)[:n_classes]
    names = tuple("".join(LETTERS[letter] for letter in order) for order in orders[first])
    is_long_tailed = chosen_classes(long_tailed, names, seed)
    tiles = _tiles(image_size)
    parts: dict[int, list[tuple[Tensor, Tensor]]] = {TRAIN: [], TEST: []}
    for c, long_tail in enumerate(is_long_tailed):
        others = np.delete(np.arange(N_ORDERS), first[c]) if long_tail else np.empty(0, np.int64)
        own = np.concatenate([first[[c]], stream(seed, SUBPOPULATIONS, c).permutation(others)])
        kinds = Subpopulations(zipf(len(own)), own, *np.zeros((5, len(own))))
        for purpose, n in ((TRAIN, n_train), (TEST, n_test)):
            look = draw_appearance(kinds, n, stream(seed, purpose, c, 0), _JITTER)
            strength = stream(seed, purpose, c, 2).uniform(_FAINTEST, 1, (n, len(LETTERS)))
            images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8, device="cpu")
            paint(images, _words(tiles, orders[look.glyph], strength), look, stream(seed, purpose, c, 1))
            parts[purpose].append((images, torch.from_numpy(look.subpopulation)))
    (train, train_subpopulation), (test, test_subpopulation) = (
        [torch.cat(of_part) for of_part in zip(*parts[purpose], strict=True)] for purpose in (TRAIN, TEST)
    )
    train_labels, test_labels = (torch.arange(n_classes, device="cpu").repeat_interleave(n) for n in (n_train, n_test))
    return Anagrams(
        train,
        train_labels,
        test,
        test_labels,
        names,
        torch.from_numpy(is_long_tailed),
        train_subpopulation,
        test_subpopulation,
    )


def _tiles(image_size: int) -> Tensor:
    """The ink of each letter, float32 [6, height, width], each a sixth of the canvas to paint from."""
    renderer = GlyphRenderer(image_size)
    canvas = torch.stack([renderer(letter, _FONT) for letter in LETTERS]).float()[:, None]
    size = canvas.shape[-1]
    margin, height, width = round(size * (1 - _SHOWN) / 2), size // _ROWS, size // _COLUMNS
    shown = canvas[..., margin : size - margin, margin : size - margin]
    left = (width - height) // 2
    return F.pad(F.interpolate(shown, size=(height, height), mode="area")[:, 0], (left, width - height - left))


def _words(tiles: Tensor, orders: np.ndarray, strength: np.ndarray) -> Tensor:
    """The ink of N images, uint8 [N, height, width], with the letters in these orders and of this strength [N, 6]."""
    height, width = tiles.shape[1:]
    letters = tiles[torch.from_numpy(orders)] * torch.from_numpy(strength).float()[:, :, None, None]
    rows = letters.reshape(-1, _ROWS, _COLUMNS, height, width).transpose(2, 3)
    return rows.reshape(-1, _ROWS * height, _COLUMNS * width).round().to(torch.uint8)
