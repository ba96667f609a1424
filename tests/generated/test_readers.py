"""Files damaged in every way: cut, lengthened, with other bits, numbers and pieces, or with another file in them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, fault

# Texts that mean something to one of the formats.
TEXTS = [b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"x"', b"9" * 30, b"[" * 2000, b"..", b"/", b"\0"]
TEXTS += [b"F32", b"I64", b"C64", b"BOOL", b"|O", b">f8", b"<U9", b"\xff\xfe", b"\n", b",", b'"', b"(", b")"]
NUMBERS = [b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\0" * 8, b"\1\0\0\0\0\0\0\0", b"\xff\xff\xff\x7f"]
WAYS = ["bit", "byte", "cut", "longer", "number", "text", "text", "splice", "without", "digit"]
_SEEDS: dict[str, list[bytes]] = {}


def seeds(name):
    if name not in _SEEDS:
        _SEEDS[name] = list(TARGETS[name].seeds())
    return _SEEDS[name]


@st.composite
def damaged(draw, name):
    """A file that can be read, after up to four kinds of damage."""
    content = bytearray(draw(st.sampled_from(seeds(name))))
    for _ in range(draw(st.integers(1, 4))):
        n = len(content)
        # Headers are at the beginning.
        at = draw(st.one_of(st.integers(0, n), st.integers(0, min(n, 200))))
        match draw(
            st.sampled_from(["bit", "byte", "cut", "longer", "number", "text", "text", "splice", "without", "digit"])
        ):
            case "bit" if at < n:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if at < n:
                content[at] = draw(st.integers(0, 255))
            case "cut":
                del content[at:]
            case "longer":
                content += bytes(draw(st.integers(1, 64)))
            case "number":
                piece = draw(st.sampled_from(NUMBERS))
                content[at : at + len(piece)] = piece
            case "text":
                content[at : at + draw(st.integers(0, 8))] = draw(st.sampled_from(TEXTS))
            case "splice":
                other = draw(st.sampled_from(seeds(draw(st.sampled_from(sorted(TARGETS))))))
                content[at:] = other[len(other) // 2 :]
            case "without":
                del content[at : at + draw(st.integers(1, 32))]
            case "digit":
                digits = [i for i, byte in enumerate(content) if 48 <= byte < 58]
                if digits:
                    content[draw(st.sampled_from(digits))] = 48 + draw(st.integers(0, 9))
    return bytes(content)


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(st.data())
def test_damaged_files(name, data):
    content = data.draw(damaged(name))
    with TemporaryDirectory() as folder:
        assert fault(TARGETS[name], content, Path(folder, "folder")) is None
