"""Archives of arrays whose members are not what they say."""

from __future__ import annotations

import io
import tracemalloc
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from fastdens.io.archives import MOST_BYTES, read_named_arrays


def header(n_rows):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (n_rows,)})
    return stream.getvalue()


def refused(file, match):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            read_named_arrays(file, ("x",))
        assert str(caught.value).count("\n") == 0 and str(file) in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_an_array_that_unpacks_to_a_long_one_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "bomb.npz"
    with ZipFile(file, "w", ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        stream.write(header(MOST_BYTES // 8))
        for _ in range(MOST_BYTES >> 24):
            stream.write(bytes(1 << 24))
    assert file.stat().st_size < MOST_BYTES / 500
    refused(file, rf"x of .* unpacks to {MOST_BYTES + 128:,} bytes, but at most {MOST_BYTES:,} are read")


def test_an_archive_that_lies_about_a_length_is_damaged(tmp_path):
    file, n_bytes = tmp_path / "lie.npz", 128 + 8_000_000
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header(1_000_000) + bytes(8_000_000))
    content = file.read_bytes()
    assert content.count(n_bytes.to_bytes(4, "little")) == 2
    file.write_bytes(content.replace(n_bytes.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refused(file, "it is damaged")


def test_names_of_members_are_names_and_no_paths(tmp_path):
    file = tmp_path / "names.npz"
    np.savez(file, x=np.arange(3), **{"../outside": np.arange(2), "/outside": np.arange(2)})
    names, arrays = read_named_arrays(file, ("x", "../outside"))
    assert names == ["x", "../outside", "/outside"]
    np.testing.assert_array_equal(arrays["../outside"], [0, 1])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["names.npz"]
