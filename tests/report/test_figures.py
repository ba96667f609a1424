"""Figures of a report: names as they are written, axes side by side, pictures."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

from fastdens.report.figures import literal, panels, save_picture, single


@pytest.mark.parametrize(
    ("name", "expected"),
    [("layer1.0", "layer1.0"), ("$x$", r"\$x\$"), ("a\nline", "a line"), ("$bcdefghi", r"\$bcd…ghi")],
)
def test_a_name_is_one_short_line_and_no_formula(name, expected):
    assert literal(name, longest=8) == expected


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2))])
def test_each_item_has_its_own_axes(n, shape):
    drawn = []
    figure = panels(range(n), lambda axes, item: drawn.append((axes, item)), height=2)
    assert [item for _, item in drawn] == list(range(n)) and [axes for axes, _ in drawn] == figure.axes
    rows, columns = figure.axes[0].get_gridspec().get_geometry()
    assert (rows, columns) == shape and figure.get_size_inches().tolist() == [11, 2 * rows]


def test_a_picture_is_half_as_wide_on_the_page_as_in_its_file(tmp_path):
    figure, axes = single(4, 2)
    axes.plot([0, 1])
    picture = save_picture("line", figure, tmp_path)
    with Image.open(tmp_path / "line.png") as image:
        assert image.size == (2 * picture.width, 400) and picture.width == 400
    assert picture.source == f"data:image/png;base64,{base64.b64encode((tmp_path / 'line.png').read_bytes()).decode()}"
    assert (tmp_path / "line.pdf").exists()
