"""Arrays on disk: rows appended and read back, files joined to safetensors, damaged files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

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


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", ">f8", ">i4", "<u2", "?", "g"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_every_dtype_and_order_are_read(tmp_path, rng, dtype, order):
    x = np.asarray(rng.integers(0, 2, (7, 3)), dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    found = map_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(found.numpy(), x)
    found.fill_(1)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.bool])
def test_safetensors_of_every_dtype_are_read(tmp_path, dtype):
    x = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    save_file({"b": x, "a": x.clone()}, tmp_path / "x.safetensors", {"names": '["other"]'})
    found = map_safetensors(tmp_path / "x.safetensors")
    assert sorted(found) == ["a", "b"] and found["a"].dtype == dtype and torch.equal(found["a"], x)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full(3, "a"), "holds strings"),
        (np.full(3, None), "holds Python objects, which would need pickle"),
        (np.zeros(3, [("a", "f4")]), "holds records of the fields 'a'"),
        (np.zeros(3, complex), "holds complex numbers"),
        (np.zeros(3, "V2"), "holds raw bytes"),
        (np.zeros(3, "M8[s]"), "holds dates"),
    ],
)
def test_what_is_no_number_is_refused_by_the_name_of_the_file(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message) as caught:
        map_npy(tmp_path / "x.npy")
    assert str(caught.value).startswith(str(tmp_path / "x.npy")) and "\n" not in str(caught.value)


def test_other_formats_and_places_are_told_apart(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "x.npz").rename(tmp_path / "zip.npy")
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "long.npy").write_bytes(streamed(tmp_path / "x.npy", [np.arange(4)]).read_bytes() + b"12")
    (tmp_path / "folder.npy").mkdir()
    for name, error, message in (
        ("zip.npy", ValueError, "a zip archive"),
        ("text.npy", ValueError, "another format"),
        ("long.npy", ValueError, "2 bytes longer than its header says"),
        ("folder.npy", IsADirectoryError, "is a folder"),
        ("none.npy", FileNotFoundError, "there is no file"),
    ):
        with pytest.raises(error, match=message) as caught:
            map_npy(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ValueError, match=r"x\.npy cannot be read as a safetensors file"):
        map_safetensors(tmp_path / "x.npy")
