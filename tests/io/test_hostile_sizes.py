"""Short files that say they are long: what they ask for is not taken from memory."""

from __future__ import annotations

import io
import struct
import zlib
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest

from fastdens.analysis import read_memorization_scores
from fastdens.io.arrays import map_npy
from fastdens.training.datasets.image_formats import read_image
from tests.contract import bounded_memory


def npy(shape="(3,)", descr="<f8", length=None, version=(1, 0), content=bytes(24)):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + header + content


def refused(read, path, content, error=ValueError):
    path.write_bytes(content)
    with bounded_memory(64 << 20), pytest.raises(error) as caught:
        read(path)
    assert str(path) in str(caught.value) and "MemoryError" not in str(caught.value)


@pytest.mark.parametrize("read", [map_npy, read_memorization_scores])
@pytest.mark.parametrize(
    "content",
    [
        npy(length=0xFFFFFFFF, version=(2, 0)),
        npy(length=0xFFFFFFF0, version=(3, 0)),
        npy("(10000000000,)"),
        npy("(10000000000,)", ">f8"),
        npy("(4611686018427387904, 4)"),
        npy("(-3,)"),
        npy("(True,)"),
        npy("(1,)", "<U1000000000"),
        npy(version=(9, 0)),
        npy("(4,)"),
        npy("(2,)"),
    ],
)
def test_headers_of_arrays(tmp_path, read, content):
    refused(read, tmp_path / "x.npy", content)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2])
def test_members_of_archives(tmp_path, method):
    # 24 MB of zeros are 24 KB deflated, and 100 bytes by bzip2.
    content = io.BytesIO()
    with ZipFile(content, "w", method) as archive:
        archive.writestr("tr_mem.npy", npy("(3000000,)", content=bytes(0 if method == ZIP_STORED else 24_000_000)))
    damaged = bytearray(content.getvalue())
    if method == ZIP_DEFLATED:
        # The size in the central directory, after the data: more than a deflated byte unpacks to.
        at = damaged.rindex(b"PK\1\2") + 20
        damaged[at : at + 4] = struct.pack("<I", 1000)
    refused(read_memorization_scores, tmp_path / "x.npz", bytes(damaged))


def png(width, height, *chunks):
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1000)))),
        png(10_000, 10_000, (b"IDAT", zlib.compress(bytes(1000)))),
        png(3, 3)[:33] + b"\xff\xff\xff\x00iCCP" + bytes(20),
    ],
)
def test_sizes_of_images(tmp_path, content):
    refused(read_image, tmp_path / "x.png", content, OSError)


def test_what_is_whole_is_read(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(version=(3, 0)))
    np.testing.assert_array_equal(map_npy(tmp_path / "x.npy").numpy(), np.zeros(3))
