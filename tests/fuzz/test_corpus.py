"""Files that the fuzzer found, each of which reaches other code of a reader: results, or one sentence, in bounds.

The fuzzer itself, ``python -m tests.fuzz``, needs atheris; reading its files again does not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import SOURCES
from tests.fuzz.targets import TARGETS, fault

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_files_of_the_corpus_are_read_or_named_in_one_sentence(name, tmp_path):
    target = TARGETS[name]
    contents = [*target.seeds(), *(file.read_bytes() for file in sorted((CORPUS / name).glob("*")))]
    assert len(contents) > 2
    faults = [wrong for content in contents if (wrong := fault(target, content, tmp_path / "folder")) is not None]
    assert not faults, "\n".join([f"{len(faults)} of {len(contents)} files", *faults[:10]])


def test_a_reader_that_breaks_the_contract_is_caught(tmp_path):
    def planted(content: bytes, folder: Path) -> object:
        return {
            b"error": lambda: {}["missing"],
            b"memory": lambda: bytearray(1 << 40),
            b"outside": lambda: (tmp_path / "outside").write_text("x"),
            b"code": lambda: __import__("os").system("true"),
            b"another's sentence": lambda: int("x"),
        }[content]()

    from tests.fuzz.targets import Target

    target = Target(planted, lambda: iter(()))
    expected = {
        b"error": "not documented",
        b"memory": "MemoryError",
        b"outside": "left its folder",
        b"code": "os.system",
        b"another's sentence": "not ours",
    }
    for content, words in expected.items():
        assert words in str(fault(target, content, tmp_path / "folder"))
    assert SOURCES[0].name == "fastdens"
