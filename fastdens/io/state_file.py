"""One file of tensors and facts: safetensors, never pickle, so that reading a file runs nothing that is in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens.io.atomic import written_whole

FORMAT_VERSION = 1

# The keys under which safetensors' metadata, which maps strings to strings, holds the header and the digest of it all.
_HEADER, _DIGEST = "fastdens", "blake2b"
_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)


class SavedState(NamedTuple):
    """What :func:`read_state` found: ``tensors`` by name, on the CPU, and ``facts``."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_state(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write tensors and facts to one safetensors file, which appears under its name whole or not at all.

    Parameters
    ----------
    path : path-like
        Missing parent folders are created.
    kind : str
        What the file is to its reader, a noun for messages: "fit", "checkpoint".
    tensors : mapping of str to Tensor
        Of any shape, also empty or not contiguous, on any device; bool, integers of 8 to 64 bits (of unsigned ones
        uint8 only), or floats of 16 to 64 bits.
    facts : mapping of str to object
        None, bool, int, float, str, and lists, tuples and dicts with keys of str of them, nested at will. They come
        back equal, floats to the last bit, NaN and infinity among them; only tuples come back as lists.
    overwrite : bool
        Replace the file of this name.

    Raises
    ------
    TypeError
        If a tensor or a fact is of another type.
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    IsADirectoryError
        If ``path`` is a folder.
    OSError
        If the disk is full, or the facts are too long (100 MB as text) for safetensors.
    ImportError
        If safetensors is missing.
    """
    safetensors = _import_safetensors()
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder, but a {kind} is one file: add a file name.")
    packed = _packed(tensors)
    facts = dict(facts)
    _check_fact(facts, "facts")
    # Python's json writes a float so that it reads the same again, and NaN and infinity by their names.
    header = json.dumps({"format": FORMAT_VERSION, "kind": kind, "facts": facts})
    with written_whole(place, overwrite=overwrite) as partial:
        metadata = {_HEADER: header, _DIGEST: _digest(header, packed)}
        try:
            # safetensors' own writing to a file leaves one of a random name behind when it is killed.
            partial.write_bytes(safetensors.torch.save(packed, metadata))
            # Some versions write a longer header than they read: that must not replace a file that can be read.
            with safetensors.safe_open(partial, framework="pt"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise OSError(
                f"{place} could not be written ({error}): make room on the disk, or pass large facts as tensors."
            ) from None


def read_state(path: str | os.PathLike[str], kind: str) -> SavedState:
    """Read a file that :func:`write_state` wrote.

    Everything in it is checked against a digest: a file that was cut off or has a wrong bit anywhere is an error.

    Parameters
    ----------
    path : path-like
    kind : str
        What the file must be.

    Returns
    -------
    SavedState
        Tensors in memory of their own: the file may be replaced.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If ``path`` is a folder.
    OSError
        If the file may not be read.
    ValueError
        If the file is damaged, not one of fastdens, of another kind, or written by a newer version.
    ImportError
        If safetensors is missing.
    """
    safetensors = _import_safetensors()
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder, but a {kind} is one file: pass the path of the file.")
    if not place.is_file():
        raise FileNotFoundError(f"there is no file {place}: pass the path of a saved {kind}.")
    try:
        with safetensors.safe_open(place, framework="pt") as file:
            metadata = file.metadata() or {}
            header = _parse_header(place, kind, metadata)
            # A copy of what is mapped into memory: the file may change or go.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{place} is damaged or no safetensors file ({error}): write the {kind} again.") from None
    except OSError as error:
        raise OSError(f"{place} cannot be read ({error}): check that you may read it.") from None
    if metadata.get(_DIGEST) != _digest(metadata[_HEADER], tensors):
        raise ValueError(f"{place} is damaged, its content does not match its digest: write the {kind} again.")
    if header["kind"] != kind:
        raise ValueError(f"{place} is a saved {header['kind']}, not a {kind}: pass the path of a saved {kind}.")
    return SavedState(tensors, header["facts"])


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """A hexadecimal digest of tensors in their order: equal dtypes, shapes and bytes give the same on every device.

    Parameters
    ----------
    tensors : iterable of Tensor

    Returns
    -------
    str
        32 characters. Values that compare equal but differ in their bytes, such as 0.0 and -0.0, differ here.
    """
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        # Bytes need a last axis of stride 1, which neither a scalar nor every tensor without or of one element has.
        content = tensor.detach().cpu().contiguous().unsqueeze(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()


def _import_safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ImportError(
            "A saved state needs safetensors, not installed: pip install 'fastdens[cpu]' or 'fastdens[gpu]'."
        ) from None
    return safetensors


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    content = fingerprint(tensors[name] for name in names)
    return hashlib.blake2b(json.dumps([header, names, content]).encode(), digest_size=16).hexdigest()


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, each in memory of its own, as safetensors wants them."""
    packed: dict[str, Tensor] = {}
    memory = set()
    for name, tensor in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"a tensor is named {name!r}, but names are strings other than '__metadata__': rename it.")
        if not isinstance(tensor, Tensor) or tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            what = f"{tensor.layout} {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name!r} is {what}, but a saved tensor is a dense one of bools, integers or floats.")
        packed[name] = tensor.detach().cpu().contiguous()
        address = packed[name].untyped_storage().data_ptr()
        if address in memory:
            packed[name] = packed[name].clone()
        memory.add(address)
    return packed


def _check_fact(fact: Any, where: str) -> None:
    """Refuse what JSON would change on the way or not take."""
    if isinstance(fact, dict):
        for key, value in fact.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, but keys of saved facts are strings: pass str(key).")
            _check_fact(value, f"{where}[{key!r}]")
    elif isinstance(fact, list | tuple):
        for position, value in enumerate(fact):
            _check_fact(value, f"{where}[{position}]")
    elif fact is not None and not isinstance(fact, bool | int | float | str):
        raise TypeError(
            f"{where} is {type(fact).__name__}, but a saved fact is None, bool, int, float, str, or a list or dict of "
            "them: convert it, or pass it as a tensor."
        )


def _parse_header(place: Path, kind: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _HEADER not in metadata:
        raise ValueError(f"{place} is a safetensors file that fastdens did not write: pass the path of a saved {kind}.")
    try:
        header = json.loads(metadata[_HEADER])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{place} is damaged, its header cannot be read: write the {kind} again.") from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{place} has format version {version} and this fastdens reads up to {FORMAT_VERSION}: upgrade fastdens."
        )
    return header
