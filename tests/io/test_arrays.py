"""Arrays on disk: rows appended and read back, files joined to safetensors, damaged files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastdens.io.arrays import NpyStream, join_safetensors, map_npy, map_safetensors


def streamed(path, parts):
    stream = NpyStream(path, parts[0].shape[1:], parts[0].dtype)
    for part in parts:
        stream.append(part)
    stream.close()
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_rows_come_back_in_both_formats(tmp_path, rng, dtype, shape):
    parts = [(100 * rng.normal(size=(n, *shape))).astype(dtype) for n in (3, 0, 5)]
    whole = torch.from_numpy(np.concatenate(parts))
    file = streamed(tmp_path / "x.npy", parts)
    assert torch.equal(map_npy(file), whole)
    other = streamed(tmp_path / "y.npy", [np.arange(4)])
    join_safetensors(tmp_path / "all.safetensors", {"x": file, "y": other})
    found = map_safetensors(tmp_path / "all.safetensors")
    assert list(found) == ["x", "y"] and torch.equal(found["x"], whole)
    assert torch.equal(load_file(tmp_path / "all.safetensors")["x"], whole)
    # Mapped privately: the file stays as it is.
    found["y"].fill_(-1)
    assert torch.equal(map_safetensors(tmp_path / "all.safetensors")["y"], torch.arange(4))


def test_rows_of_another_kind_are_refused(tmp_path):
    stream = NpyStream(tmp_path / "x.npy", (3,), np.dtype(np.float32))
    for rows in (np.zeros((2, 4), np.float32), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="all rows of an array must be alike"):
            stream.append(rows)
    stream.close()


def test_damaged_files_are_named(tmp_path):
    file = streamed(tmp_path / "x.npy", [np.arange(40.0)])
    join_safetensors(tmp_path / "x.safetensors", {"x": file})
    for name, read in (("x.npy", map_npy), ("x.safetensors", map_safetensors)):
        content = (tmp_path / name).read_bytes()
        for damaged in (content[:7], content[:-8], b"", b"{}" * 50):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=name):
                read(tmp_path / name)
