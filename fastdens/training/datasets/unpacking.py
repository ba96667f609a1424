"""Archives of published data sets, unpacked beside themselves: nothing in one chooses a place outside its folder."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

MOST_TIMES_LONGER = 200
"""How many times its length an archive may unpack to; of those that are published, none reaches 20."""

_DAMAGED = (EOFError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error)
_PIECE = 1 << 20


class _RefusedError(Exception):
    """What an archive holds and may not hold."""


def unpack(name: str, file: Path) -> None:
    """Unpack an archive beside itself, wholly or not at all; other files are left alone.

    Parameters
    ----------
    name : str
        Of the data set, for messages.
    file : Path
        A ``.zip``, ``.tar.gz`` or ``.tgz`` archive, or one file compressed as ``.gz``.

    Raises
    ------
    FileNotFoundError
        If the archive is damaged.
    OSError
        If it has links, names outside its folder, or unpacks to more than :data:`MOST_TIMES_LONGER` times its length;
        nothing is left of it then.
    """
    if not file.name.endswith((".zip", ".gz", ".tgz")):
        return
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=file.parent) as folder:
        try:
            _unpack_into(file, Path(folder))
        except _RefusedError as refused:
            raise OSError(
                f"{name}'s file {file} {refused}, as no published one does: put the published file there."
            ) from None
        except _DAMAGED as error:
            raise FileNotFoundError(
                f"{name}'s file {file} is not whole ({first_sentence(error)}): put that file there again."
            ) from None
        # One by one: the folder around them keeps its own permissions.
        for entry in Path(folder).iterdir():
            target = file.parent / entry.name
            if entry.is_dir():
                shutil.copytree(entry, target, copy_function=shutil.move, dirs_exist_ok=True)
            else:
                shutil.move(entry, target)


def first_sentence(error: Exception) -> str:
    """The first sentence of a message, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")


def _unpack_into(file: Path, folder: Path) -> None:
    most = MOST_TIMES_LONGER * file.stat().st_size
    if file.name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                _check_name(member.filename)
            _check_length(sum(member.file_size for member in members), most)
            archive.extractall(folder)
        return
    with gzip.open(file) as stream:
        # To the end, where the checksum is: tarfile stops before.
        _copy(stream, None, most)
    if file.name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(file, "r:gz") as tar:
            for entry in tar:
                _check_name(entry.name)
                # Those links that Python's own filter lets pass led out of the folder more than once.
                if not (entry.isfile() or entry.isdir()):
                    raise _RefusedError(f"has {entry.name!r}, which is a link or a device")
                tar.extract(entry, folder, filter="data")
    else:
        with gzip.open(file) as stream, (folder / file.name.removesuffix(".gz")).open("wb") as target:
            _copy(stream, target, most)


def _copy(stream: gzip.GzipFile, target: BinaryIO | None, most: int) -> None:
    n_bytes = 0
    while piece := stream.read(_PIECE):
        n_bytes += len(piece)
        _check_length(n_bytes, most)
        if target is not None:
            target.write(piece)


def _check_length(n_bytes: int, most: int) -> None:
    if n_bytes > most:
        raise _RefusedError(f"unpacks to more than {MOST_TIMES_LONGER} times its length")


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise _RefusedError(f"has {name!r}, a name outside its folder")
