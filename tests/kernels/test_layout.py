"""Layouts: what they refuse, and what they derive from ranges that lie anywhere."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels.layout import Layout, as_layout, bounded_runs

RANGES = torch.tensor([[5, 9], [0, 0], [12, 23], [9, 12]])


def test_offsets_are_ranges_one_after_the_other():
    layout = Layout.from_offsets(torch.tensor([0, 3, 3, 7]), 7)
    assert layout.ranges.tolist() == [[0, 3], [3, 3], [3, 7]]
    assert (layout.n_models, layout.n_points, layout.sizes.tolist()) == (3, 7, [3, 0, 4])
    assert layout.span == slice(0, 7)
    assert as_layout(layout, 3, 7) is layout
    assert torch.equal(as_layout(torch.tensor([0, 3, 3, 7]), 3, 7).ranges, layout.ranges)


def test_rows_and_selections_of_ranges_that_lie_anywhere():
    layout = Layout.from_ranges(RANGES, 30)
    assert layout.span is None
    own = torch.cat([torch.arange(a, b) for a, b in RANGES.tolist()])
    assert torch.equal(layout.ranges[layout.rows.model, 0] + layout.rows.position, own)
    assert torch.equal(torch.bincount(layout.rows.model, minlength=4), layout.sizes)
    assert layout.select(torch.tensor([True, False, False, True])).ranges.tolist() == [[5, 9], [9, 12]]
    assert layout.select([0, 3]).span == slice(5, 12)
    assert layout.select(slice(2, 3)).ranges.tolist() == [[12, 23]]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_tiles_cover_each_model_and_depend_on_it_alone(size):
    layout = Layout.from_ranges(RANGES, 30)
    tiles = layout.tiles(size)
    assert layout.tiles(size) is tiles
    for m, (start, stop) in enumerate(RANGES.tolist()):
        own = slice(int(tiles.first[m]), int(tiles.first[m + 1]))
        assert (tiles.model[own] == m).all()
        rows = [torch.arange(a, b) for a, b in zip(tiles.start[own], tiles.stop[own], strict=True)]
        assert torch.equal(torch.cat(rows), torch.arange(start, stop))
        assert ((tiles.stop - tiles.start)[own] <= size).all()
        alone = layout.select([m]).tiles(size)
        assert torch.equal(alone.start, tiles.start[own]) and torch.equal(alone.stop, tiles.stop[own])


def test_sums_of_models_are_the_same_bits_in_any_company(rng):
    values = torch.from_numpy(rng.normal(size=(30, 2)))
    layout = Layout.from_ranges(RANGES, 30)
    sums = layout.sum(values)
    torch.testing.assert_close(sums, torch.stack([values[a:b].sum(0) for a, b in RANGES.tolist()]))
    for m in range(4):
        assert torch.equal(layout.select([m]).sum(values)[0], sums[m])


def test_chunks_depend_on_components_and_features_alone():
    layout = Layout.from_offsets(torch.tensor([0, 5000]), 5000)
    assert layout.chunks(2, 3) is layout.tiles(1024)
    assert layout.chunks(6, 500) is layout.tiles(3000)


def test_bounded_runs():
    assert bounded_runs([3, 3, 9, 1, 1], 6) == [(0, 2), (2, 3), (3, 5)]
    assert bounded_runs([], 6) == [(0, 0)]


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (torch.tensor([0, 7], dtype=torch.int32), TypeError, r"offsets are torch.int32, but must be int64"),
        (torch.tensor([[0, 3, 7]]), ValueError, r"offsets have shape \(1, 3\), but must be \[M \+ 1\]"),
        (torch.tensor([], dtype=torch.int64), ValueError, r"offsets have shape \(0,\)"),
        (torch.tensor([0, 4, 3]), ValueError, r"rows of model 1 are \[4, 3\], no range of 7 points"),
        (torch.tensor([0, 8]), ValueError, r"rows of model 0 are \[0, 8\], no range of 7 points"),
        (torch.tensor([-1, 7]), ValueError, r"rows of model 0 are \[-1, 7\], no range of 7 points"),
    ],
)
def test_offsets_that_are_none(offsets, error, message):
    with pytest.raises(error, match=message):
        Layout.from_offsets(offsets, 7)


def test_ranges_that_are_none_and_layouts_of_something_else():
    with pytest.raises(TypeError, match=r"row ranges are torch.float32"):
        Layout.from_ranges(RANGES.float(), 30)
    with pytest.raises(ValueError, match=r"row ranges have shape \(4,\)"):
        Layout.from_ranges(RANGES[:, 0], 30)
    with pytest.raises(ValueError, match="layout is of 4 models and 30 points, but there are 3 models and 30 points"):
        as_layout(Layout.from_ranges(RANGES, 30), 3, 30)
