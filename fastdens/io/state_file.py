"""One file of tensors and metadata: safetensors, never pickle, so that reading a file executes nothing in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens.io.atomic import atomic_write
from fastdens.kernels.optional import require

FORMAT_VERSION = 1

# Safetensors keeps a mapping of strings to strings beside the tensors: the header, as JSON, and a digest of everything.
_HEADER, _DIGEST = "fastdens", "blake2b"
# The key of the metadata in the header.
_METADATA = "facts"
_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)


class SavedState(NamedTuple):
    """Tensors by name, on the CPU, and metadata, as :func:`read_state` returns them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_state(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write tensors and metadata to one safetensors file, which appears under its name whole or not at all.

    Equal tensors and metadata give equal bytes.

    Parameters
    ----------
    path : path-like
        Missing parent folders are created.
    kind : str
        A noun for the file in messages: "fit", "checkpoint".
    tensors : mapping of str to Tensor
        Of any shape, also empty or not contiguous, on any device; bool, integers of 8 to 64 bits (of unsigned ones
        uint8 only), or floats of 16 to 64 bits.
    metadata : mapping of str to object
        None, bool, int, float, str, and lists, tuples and dicts with keys of str of them, nested at will. They come
        back equal, floats to the last bit, NaN and infinity among them; only tuples come back as lists.
    overwrite : bool
        Replace the file of this name.

    Raises
    ------
    TypeError
        If a tensor or an entry of the metadata is of another type.
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    IsADirectoryError
        If ``path`` is a folder.
    WriteError
        If the disk is full or the folder cannot be written to.
    OSError
        If the metadata are too long (100 MB as text) for safetensors.
    ImportError
        If safetensors is missing.
    """
    safetensors = _import_safetensors()
    path = _not_a_folder(path, kind, "add a file name")
    packed = _packed(tensors)
    metadata = dict(metadata)
    _check_metadata(metadata, "metadata")
    # Python's json writes a float so that it reads the same again, and NaN and infinity by their names.
    header = json.dumps({"format": FORMAT_VERSION, "kind": kind, _METADATA: metadata})
    with atomic_write(path, overwrite=overwrite) as partial:
        strings = {_HEADER: header, _DIGEST: _digest(header, packed)}
        try:
            _write_in_order(partial, safetensors.torch.save(packed, strings))
            # Some versions write a longer header than they read: that must not replace a file that can be read.
            with safetensors.safe_open(partial, framework="pt"):
                pass
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): pass large metadata as tensors.") from None


def read_state(path: str | os.PathLike[str], kind: str, remedy: str | None = None) -> SavedState:
    """Read a file that :func:`write_state` wrote.

    Everything in it is checked against a digest: a file that was cut off or has a wrong bit anywhere is an error.

    Parameters
    ----------
    path : path-like
    kind : str
        The kind that was written; a file of another kind is refused.
    remedy : str, optional
        What to do about a damaged file; by default to write it again.

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
    path = _not_a_folder(path, kind, "pass the path of the file")
    remedy = remedy or f"write the {kind} again"
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: pass the path of a saved {kind}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            header = _parse_header(path, kind, strings, remedy)
            # A copy of what is mapped into memory: the file may change or go.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    # Of tensors that torch does not have, safetensors raises errors of torch.
    except (safetensors.SafetensorError, AttributeError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged or no safetensors file ({reason}): {remedy}.") from None
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error}): check that you may read it.") from None
    if strings.get(_DIGEST) != _digest(strings[_HEADER], tensors):
        raise ValueError(f"{path} is damaged, its content does not match its digest: {remedy}.")
    if header["kind"] != kind:
        raise ValueError(f"{path} is a saved {header['kind']}, not a {kind}: pass the path of a saved {kind}.")
    return SavedState(tensors, header[_METADATA])


@dataclass(frozen=True)
class StateFile:
    """The state of one computation in a file that knows which computation it belongs to.

    :meth:`write` keeps the identity of the computation beside its state; :meth:`read` returns the state if the file has
    the same identity, and otherwise names the first difference.

    Parameters
    ----------
    path : Path
    kind : str
        A noun for the file in messages: "checkpoint".
    identity : mapping of str to object
        Parameters, seeds and fingerprints of the data that must agree, of the types of :func:`write_state`; mappings
        may nest.
    differences : mapping of str to str
        How a message describes a difference in an entry whose value tells a reader nothing, such as a fingerprint:
        ``{"data": "other data"}``. The default is "name = found, not expected".
    remedy : str
        The end of the message.
    absent : mapping of str to object
        The values of entries that an earlier file lacks.

    Examples
    --------
    >>> import torch
    >>> from pathlib import Path
    >>> from fastdens.io.state_file import StateFile, fingerprint
    >>> path, x = Path("chains.safetensors"), torch.zeros(3)
    >>> file = StateFile(path, "checkpoint", {"seed": 0, "data": fingerprint([x])}, {"data": "other data"})
    >>> file.write({"labels": torch.tensor([0, 1, 1])}, {"sweep": 20})
    >>> file.read().metadata["sweep"]
    20
    """

    path: Path
    kind: str
    identity: Mapping[str, Any]
    differences: Mapping[str, str] = field(default_factory=dict)
    remedy: str = "delete it or pass another path"
    absent: Mapping[str, Any] = field(default_factory=dict)

    def write(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the state over an earlier one, whole or not at all; errors as of :func:`write_state`."""
        write_state(self.path, self.kind, tensors, {**self.identity, **(metadata or {})}, overwrite=True)

    def read(self) -> SavedState:
        """The state in the file; its metadata hold the identity too.

        Raises
        ------
        ValueError
            If the identity differs or the file is damaged; other errors as of :func:`read_state`.
        """
        state = read_state(self.path, self.kind, self.remedy)
        # As JSON returns it: tuples are lists.
        difference = self._difference(json.loads(json.dumps(dict(self.identity))), state.metadata)
        if difference is not None:
            raise ValueError(f"{self.path} is a {self.kind} of {difference}: {self.remedy}.")
        return state

    def _difference(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
        """A description of the first entry that differs."""
        for name, value in expected.items():
            other = found.get(name, self.absent.get(name))
            if isinstance(value, dict) and isinstance(other, dict):
                nested = self._difference(value, other)
                if nested is not None:
                    return nested
            elif other != value:
                return self.differences.get(name, f"{name} = {other!r}, not {value!r}")
        return None


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


def _write_in_order(path: Path, content: bytes) -> None:
    """Write a safetensors file with its header in order: the library's own order of metadata is one of chance.

    Its own writing to a file, besides, leaves one of a random name behind when it is killed.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:begin]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.write(memoryview(content)[begin:])


def _import_safetensors() -> Any:
    require("safetensors.torch", "a saved state", "cpu")
    return require("safetensors", "a saved state", "cpu")


def _not_a_folder(path: str | os.PathLike[str], kind: str, remedy: str) -> Path:
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, but a {kind} is one file: {remedy}.")
    return path


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


def _check_metadata(value: Any, where: str) -> None:
    """Raise a TypeError for values that JSON cannot hold or would change."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, but keys of saved metadata are strings: pass str(key).")
            _check_metadata(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _check_metadata(entry, f"{where}[{position}]")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(
            f"{where} is {type(value).__name__}, but saved metadata are None, bool, int, float, str, or a list or dict "
            "of them: convert it, or pass it as a tensor."
        )


def _parse_header(path: Path, kind: str, metadata: Mapping[str, str], remedy: str) -> dict[str, Any]:
    if _HEADER not in metadata:
        raise ValueError(f"{path} is a safetensors file that fastdens did not write: pass the path of a saved {kind}.")
    damaged = f"{path} is damaged, its header cannot be read: {remedy}."
    try:
        header: dict[str, Any] = json.loads(metadata[_HEADER])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ValueError(damaged) from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version} and this fastdens reads up to {FORMAT_VERSION}: upgrade fastdens."
        )
    if not isinstance(header.get("kind"), str) or not isinstance(header.get(_METADATA), dict):
        raise ValueError(damaged)
    return header
