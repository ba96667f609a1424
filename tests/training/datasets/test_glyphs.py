"""Glyphs: flips and long tails, which images depend on what, and that classifiers can tell the classes apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.training.datasets import glyph_images
from fastdens.training.datasets.glyph_images import COMMON_FONTS, FONTS
from fastdens.training.datasets.glyphs import N_SUBPOPULATIONS, glyphs


def test_shapes_and_labels(seed):
    data = glyphs(7, 5, 3, image_size=20, seed=seed)
    assert data.train.shape == (35, 3, 20, 20) and data.test.shape == (21, 3, 20, 20)
    assert data.train.dtype == data.test.dtype == torch.uint8
    assert data.class_names == tuple("ABCDEGH") and not data.long_tailed.any() and not data.flipped.any()
    assert torch.bincount(data.labels).tolist() == [5] * 7 and torch.bincount(data.test_labels).tolist() == [3] * 7
    assert torch.equal(data.labels, data.true_labels) and data.labels.dtype == torch.int64
    assert len({image.numpy().tobytes() for image in (*data.train, *data.test)}) == 56


def test_same_seed_same_images_whatever_the_blocks_and_the_threads(seed, monkeypatch):
    def make():
        return glyphs(3, 40, 9, flip=0.2, long_tailed=[1], image_size=17, seed=seed)

    first, threads = make(), torch.get_num_threads()
    try:
        for block, n in ((1, 1), (7 * 34**2, 2), (1 << 30, 1)):
            monkeypatch.setattr(glyph_images, "_BLOCK_PIXELS", block)
            torch.set_num_threads(n)
            for expected, found in zip(first, make(), strict=True):
                assert expected == found if isinstance(expected, tuple) else torch.equal(expected, found)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(first.train, glyphs(3, 40, 9, image_size=17, seed=seed + 1).train)


def test_images_of_a_class_do_not_depend_on_anything_else(seed):
    plain = glyphs(4, 12, 6, image_size=8, seed=seed)
    other = glyphs(6, 12, 6, flip=0.5, long_tailed=["C"], image_size=8, seed=seed)
    for c in (0, 1, 3):
        assert torch.equal(plain.train[plain.true_labels == c], other.train[other.true_labels == c])
        assert torch.equal(plain.test[plain.test_labels == c], other.test[other.test_labels == c])
    assert not torch.equal(plain.train[24:36], other.train[24:36])
    more = glyphs(4, 20, 6, image_size=8, seed=seed)
    assert torch.equal(more.train[20:32], plain.train[12:24]) and torch.equal(more.test, plain.test)


def test_flips_are_a_share_of_the_training_labels(seed):
    data = glyphs(10, 60, 1, flip=0.15, image_size=8, seed=seed)
    assert int(data.flipped.sum()) == 90
    assert torch.equal(data.flipped, data.labels != data.true_labels)
    assert data.labels[data.flipped].unique().numel() == 10
    assert not torch.equal(data.flipped, glyphs(10, 60, 1, flip=0.15, image_size=8, seed=seed + 1).flipped)


def test_ordinary_classes_have_few_fonts_and_long_tailed_ones_many_images_that_are_one_of_their_kind(seed):
    data = glyphs(4, 500, 300, long_tailed=["A", 3], image_size=8, seed=seed)
    assert data.long_tailed.tolist() == [True, False, False, True]
    rank = np.arange(1, N_SUBPOPULATIONS + 1)
    frequency = 1 / rank / (1 / rank).sum()
    single = 500 * (frequency * (1 - frequency) ** 499).sum()
    assert single > 110
    for c in range(4):
        train = data.train_subpopulation[data.true_labels == c]
        test = data.test_subpopulation[data.test_labels == c]
        fonts = data.train_fonts[data.true_labels == c].unique()
        counts = torch.bincount(train, minlength=N_SUBPOPULATIONS).numpy()
        if not data.long_tailed[c]:
            assert {FONTS[i] for i in fonts} == set(COMMON_FONTS)
            assert sorted(counts)[-3:] == [166, 167, 167] and torch.bincount(test).tolist() == [100] * 3
            continue
        assert len(fonts) > 14
        assert abs((counts == 1).sum() - single) < 50
        assert abs(counts[:10].sum() - 500 * frequency[:10].sum()) < 5 * 500**0.5 / 2
        # A subpopulation is the same in test, and has one font.
        both = torch.cat([train, test])
        font = torch.cat([data.train_fonts[data.true_labels == c], data.test_fonts[data.test_labels == c]])
        assert all(len(font[both == k].unique()) == 1 for k in both.unique())
    drawn = glyphs(10, 1, 1, long_tailed=0.3, image_size=8, seed=seed)
    assert int(drawn.long_tailed.sum()) == 3


def test_characters_differ_in_luminance_from_what_is_around_them(seed):
    data = glyphs(5, 30, 1, seed=seed)
    grey = data.train.double().mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).flatten(1) / 255
    background = grey[:, :64].mean(1)  # the two rows at the top, which few characters reach
    furthest = (grey - background[:, None]).abs().kthvalue(grey.shape[1] - 30, 1).values
    assert (furthest > 0.2).double().mean() > 0.95


def test_classes_can_be_told_apart_without_a_network(seed):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    data = glyphs(6, 150, 60, image_size=16, seed=seed)

    def contrast(images):
        grey = images.double().mean(1)
        return (grey - grey[:, 0].mean(1)[:, None, None]).abs().flatten(1)

    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(contrast(data.train), data.labels)
    assert lda.score(contrast(data.test), data.test_labels) > 0.7


def test_errors_say_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="there are 100 characters"):
        glyphs(101)
    with pytest.raises(ValueError, match="flip is 1"):
        glyphs(2, 1, 1, flip=1.0)
    with pytest.raises(ValueError, match="there is none: the nearest names are 'A'"):
        glyphs(2, 1, 1, long_tailed=["a"])
    with pytest.raises(ValueError, match="classes are 0 to 1"):
        glyphs(2, 1, 1, long_tailed=[2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        glyphs(2, 1, 1, long_tailed=1.5)
    with pytest.raises(TypeError, match=r"pass \[1\] for that class"):
        glyphs(2, 1, 1, long_tailed=1)
    with pytest.raises(ValueError, match="image_size is 7"):
        glyphs(2, 1, 1, image_size=7)
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf"):
        glyphs(2, 1, 1)
