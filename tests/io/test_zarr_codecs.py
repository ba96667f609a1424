"""Folders of zarr whose chunks are pickles."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from fastdens.io.matrix_files import open_matrix

pytest.importorskip("zarr")


class Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_no_chunk_is_unpickled(tmp_path, place):
    """zarr 3.1 refuses such an array of numbers itself, zarr 2 unpickles it."""
    codec = {"id": "pickle", "protocol": 5}
    facts = {"zarr_format": 2, "shape": [4, 2], "chunks": [4, 2], "dtype": "<f4", "order": "C", "fill_value": 0}
    facts |= {"filters": None, "compressor": None, place: [codec] if place == "filters" else codec}
    folder, mark = tmp_path / "x", tmp_path / "ran"
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(facts))
    (folder / "0.0").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(ValueError, match=r"has pickles for chunks|cannot be read as a zarr array"):
        open_matrix(folder)[0:4]
    assert not mark.exists()
