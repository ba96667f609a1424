from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from fastdens.analysis.figures import plot_by_bin, save_figure
from tests.analysis.figures.drawing import new_axes


def test_a_figure_is_written_twice_the_same_as_png_and_pdf(rng, tmp_path):
    values = rng.uniform(0, 1, 10)
    files = []
    for name in ("first", "folder/second.v1"):
        axes = plot_by_bin(new_axes(), values, "memorization score")
        png, pdf = save_figure(axes.figure, tmp_path / name)
        assert (png, pdf) == (tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
        files.append((png.read_bytes(), pdf.read_bytes()))
    assert files[0] == files[1]
    png, pdf = files[0]
    assert plt.imread(tmp_path / "first.png").shape == (720, 1100, 4)
    assert pdf.startswith(b"%PDF-") and b"CreationDate" not in pdf
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf and b"/Subtype /Image" not in pdf
    with pytest.raises(FileExistsError):
        save_figure(axes.figure, tmp_path / "first")
    (tmp_path / "third.pdf").write_text("mine")
    with pytest.raises(FileExistsError):
        save_figure(axes.figure, tmp_path / "third")
    assert not (tmp_path / "third.png").exists() and (tmp_path / "third.pdf").read_text() == "mine"
    save_figure(axes.figure, tmp_path / "third", overwrite=True)
    assert (tmp_path / "third.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(ValueError, match=r"first\.png ends in \.png, but both"):
        save_figure(axes.figure, tmp_path / "first.png")
    assert not list(tmp_path.rglob(".*"))
