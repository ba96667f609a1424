"""Saved states: what comes back, what is refused, and what a killed writer leaves."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fastdens.io import state_file
from fastdens.io.state_file import StateFile, fingerprint, read_state, write_state

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


def write(path, *, kind="fit", tensors=None, metadata=None, overwrite=False):
    tensors = (
        {"means": torch.arange(6.0).reshape(2, 3), "labels": torch.tensor([[1, 0]])} if tensors is None else tensors
    )
    write_state(
        path, kind, tensors, {"n_sweeps": 400, "alpha": None} if metadata is None else metadata, overwrite=overwrite
    )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and fingerprint([a]) == fingerprint([b])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (5, 3), (2, 3, 4)])
def test_tensors_come_back_bit_for_bit(tmp_path, rng, dtype, shape):
    # Random bits are every kind of number, NaN and denormal ones included.
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    bits = torch.from_numpy(rng.integers(0, 2 if dtype == torch.bool else 256, size, np.uint8))
    tensor = torch.empty(shape, dtype=dtype) if size == 0 else bits.view(dtype).reshape(shape)
    write(tmp_path / "state", tensors={"x": tensor})
    assert same_bits(read_state(tmp_path / "state", "fit").tensors["x"], tensor)


def test_views_and_shared_memory(tmp_path):
    base = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    views = {
        "base": base,
        "again": base,
        "transposed": base.T,
        "row": base[1],
        "every other": base[:, ::2],
        "expanded": base[:1].expand(5, 4),
        "one element": torch.ones(1).as_strided((1, 1), (0, 0)),
        "none": torch.from_numpy(np.empty((0, 3))),
        "a name/of.any kind é": torch.ones(2),
    }
    write(tmp_path / "state", tensors=views)
    found = read_state(tmp_path / "state", "fit").tensors
    assert found.keys() == views.keys()
    for name, view in views.items():
        assert same_bits(found[name], view) and not found[name].requires_grad
    # What was read is not tied to the file or to its neighbours.
    found["base"].fill_(-1)
    (tmp_path / "state").write_bytes(b"")
    assert torch.equal(found["again"], base)


def test_any_safetensors_reader_reads_it(tmp_path):
    write(tmp_path / "state")
    with safe_open(tmp_path / "state", framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("means"), np.arange(6).reshape(2, 3))
        assert json.loads(file.metadata()["fastdens"])["facts"] == {"n_sweeps": 400, "alpha": None}


def test_metadata_come_back_equal(tmp_path, rng):
    metadata = {
        "none": None,
        "flags": [True, False],
        "integers": [0, -1, 2**63, -(10**40)],
        "text": ["", "a\0b", "é\u2028\\\"'", "\ud800", "😀"],
        "nested": {"list": [[], {}, [[1, [2.5]]]], "": {"": 0}},
        "gamma": (1.0, 2),
    }
    write(tmp_path / "state", metadata=metadata)
    found = read_state(tmp_path / "state", "fit").metadata
    assert found == {**metadata, "gamma": [1.0, 2]}
    assert [type(x) for x in found["flags"]] == [bool, bool] and type(found["gamma"][1]) is int
    floats = [*struct.unpack("<500d", rng.bytes(4000)), 0.1, -0.0, 5e-324, 1.7976931348623157e308]
    floats += [math.nan, math.inf, -math.inf, np.float64(1 / 3)]
    write(tmp_path / "state", metadata={"floats": floats}, overwrite=True)
    for x, y in zip(read_state(tmp_path / "state", "fit").metadata["floats"], floats, strict=True):
        assert type(x) is float
        assert (math.isnan(x) and math.isnan(y)) or struct.pack("d", x) == struct.pack("d", y)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"prior": {1: 2.0}}, r"metadata\['prior'\] has the key 1"),
        ({"prior": [0, torch.ones(1)]}, r"metadata\['prior'\]\[1\] is Tensor"),
        ({"prior": {1, 2}}, r"metadata\['prior'\] is set"),
        ({"prior": b"x"}, r"metadata\['prior'\] is bytes"),
        ({"prior": np.float32(1)}, r"metadata\['prior'\] is float32"),
    ],
)
def test_metadata_that_json_would_change_are_refused(tmp_path, metadata, message):
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "state", metadata=metadata)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x": [1.0]}, "'x' is list"),
        ({"x": torch.ones(2, dtype=torch.complex128)}, "'x' is torch.strided torch.complex128"),
        ({"x": torch.ones(2).to_sparse()}, "'x' is torch.sparse_coo"),
        ({1: torch.ones(2)}, "named 1"),
        ({"__metadata__": torch.ones(2)}, "named '__metadata__'"),
    ],
)
def test_tensors_of_other_kinds_are_refused(tmp_path, tensors, message):
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "state", tensors=tensors)
    assert os.listdir(tmp_path) == []


def test_a_file_cut_off_anywhere_is_an_error(tmp_path, rng):
    write(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    write(tmp_path / "large", tensors={"x": torch.from_numpy(rng.normal(size=50_000))})
    large = (tmp_path / "large").read_bytes()
    cut = tmp_path / "cut"
    pieces = [whole[:n] for n in range(len(whole))]
    pieces += [large[:n] for n in rng.integers(0, len(large), 100)] + [large[:-1], whole + b"\0"]
    for piece in pieces:
        cut.write_bytes(piece)
        with pytest.raises(ValueError, match=r"/cut is damaged .* write the fit again\.$"):
            read_state(cut, "fit")


def test_a_wrong_bit_anywhere_is_an_error(tmp_path):
    write(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    assert read_state(tmp_path / "whole", "fit").metadata["n_sweeps"] == 400
    wrong = tmp_path / "wrong"
    for position in range(8 * len(whole)):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match="/wrong "):
            read_state(wrong, "fit")


def test_what_is_not_a_saved_state_is_an_error(tmp_path, rng, monkeypatch):
    path = tmp_path / "state"
    with pytest.raises(FileNotFoundError, match=r"no file .*/state: pass the path of a saved fit\.$"):
        read_state(path, "fit")
    for garbage in [b"", b"\0" * 100, b"\xff" * 100, b"PK\x03\x04" * 50, *(rng.bytes(n) for n in (1, 8, 9, 1000))]:
        path.write_bytes(garbage)
        with pytest.raises(ValueError, match="/state is damaged or no safetensors file"):
            read_state(path, "fit")
    for metadata in (None, {"format": "pt"}, {"blake2b": "0"}):
        save_file({"x": torch.ones(3)}, path, metadata)
        with pytest.raises(ValueError, match="/state is a safetensors file that fastdens did not write"):
            read_state(path, "fit")
    for header in ("", "[]", "null", '{"format": null}', '{"format": 1'):
        save_file({"x": torch.ones(3)}, path, {"fastdens": header})
        with pytest.raises(ValueError, match="/state is damaged, its header cannot be read"):
            read_state(path, "fit")
    write(path, overwrite=True)
    with pytest.raises(ValueError, match=r"/state is a saved fit, not a checkpoint: pass the path of a saved check"):
        read_state(path, "checkpoint")
    monkeypatch.setattr(state_file, "FORMAT_VERSION", state_file.FORMAT_VERSION + 1)
    write(path, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"/state has format version 2 .* reads up to 1: upgrade fastdens\.$"):
        read_state(path, "fit")
    with pytest.raises(IsADirectoryError, match="is a folder, but a checkpoint is one file"):
        read_state(tmp_path, "checkpoint")


def test_writing_keeps_what_is_there_unless_told(tmp_path):
    write(tmp_path / "new" / "state", metadata={"i": 1})
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(tmp_path / "new" / "state", metadata={"i": 2})
    assert read_state(tmp_path / "new" / "state", "fit").metadata == {"i": 1}
    write(tmp_path / "new" / "state", metadata={"i": 2}, overwrite=True)
    assert read_state(tmp_path / "new" / "state", "fit").metadata == {"i": 2}
    with pytest.raises(IsADirectoryError, match="add a file name"):
        write(tmp_path / "new", overwrite=True)
    assert os.listdir(tmp_path / "new") == ["state"]


def test_equal_states_are_equal_files(tmp_path):
    for name in map(str, range(8)):
        write(tmp_path / name, metadata={"i": 1, "name": "é", "nan": float("nan")})
    assert len({(tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}) == 1


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path):
    write(tmp_path / "state", metadata={"i": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(OSError, match=r"/state cannot be written .*: make room on the disk"):
            write(tmp_path / "state", tensors={"x": torch.ones(10_000)}, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # safetensors reads no header of more than 100 MB.
    with pytest.raises(OSError, match=r"/state cannot be written .* large metadata as tensors"):
        write(tmp_path / "state", metadata={"text": "x" * 100_000_001}, overwrite=True)
    assert read_state(tmp_path / "state", "fit").metadata == {"i": 1} and os.listdir(tmp_path) == ["state"]


def test_a_missing_safetensors_is_named(tmp_path, monkeypatch):
    write(tmp_path / "state")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: write(tmp_path / "other"), lambda: read_state(tmp_path / "state", "fit")):
        with pytest.raises(ImportError, match=r"fastdens\[cpu\]"):
            call()


def test_fingerprint_is_of_dtype_shape_and_bytes():
    x = torch.arange(6, dtype=torch.int32).reshape(2, 3)
    expected = hashlib.blake2b(b"torch.int32[2, 3]" + struct.pack("<6i", *range(6)), digest_size=16).hexdigest()
    assert fingerprint([x]) == expected
    assert fingerprint([x.T.contiguous().T]) == expected and fingerprint(iter([x.clone()])) == expected
    others = [[x.T], [x.flatten()], [x.long()], [x.view(torch.float32)], [x, x], [x[:1], x[1:]], [x + 1], []]
    others += [[x[:0]], [x[:0], x[:0]], [x[:, :0]], [x[0, 0]]]
    assert len({expected, *map(fingerprint, others)}) == 1 + len(others)
    one = torch.ones(1)
    assert fingerprint([one.as_strided((1,), (0,)), one.as_strided((1,), (7,))]) == fingerprint([one, one])
    assert fingerprint([torch.from_numpy(np.empty((2, 0)))]) == fingerprint([torch.empty(2, 0, dtype=torch.float64)])
    assert fingerprint([torch.tensor(0.0)]) != fingerprint([torch.tensor(-0.0)])
    assert fingerprint([torch.tensor(1.0, requires_grad=True)]) == fingerprint([torch.tensor(1.0)])


# A child writes states of 8 MB one after another until it is killed; the parent then looks at what is there.
KILLED_WRITERS = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from fastdens.io.state_file import read_state, write_state

    folder, rounds, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    path = folder / "state"

    def write(i):
        write_state(path, "checkpoint", {"x": torch.full((1_000_000,), i)}, {"i": i}, overwrite=True)

    started = time.perf_counter()
    write(0)
    duration = time.perf_counter() - started
    last = partial = 0
    for _ in range(rounds):
        child = os.fork()
        if child == 0:
            for i in range(last + 1, last + 1_000_000):
                write(i)
        time.sleep(rng.uniform(0, 4 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = read_state(path, "checkpoint")
        assert found.metadata["i"] >= last and bool((found.tensors["x"] == found.metadata["i"]).all())
        last = found.metadata["i"]
        others = [name for name in os.listdir(folder) if name != "state"]
        assert len(others) <= 1, others
        assert all(name.startswith(".state.") and name.endswith(".partial") for name in others), others
        partial += len(others)
    write(last + 1)
    assert os.listdir(folder) == ["state"]
    print(last, partial)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_last_whole_file(tmp_path, seed):
    script = textwrap.dedent(KILLED_WRITERS)
    command = [sys.executable, "-c", script, str(tmp_path), "25", str(seed)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    written, partial = map(int, done.stdout.split())
    # The kills struck between whole files and in the middle of one.
    assert written > 0 and partial > 0


def test_a_state_file_knows_its_computation(tmp_path):
    path, x = tmp_path / "chains.ckpt", torch.arange(3.0)
    identity = {"seed": 3, "prior": (1.0, 2.0), "recipe": {"lr": 0.1, "epochs": 4}, "data": fingerprint([x])}
    StateFile(path, "checkpoint", identity).write({"x": x}, {"sweep": 7})
    tensors, metadata = StateFile(path, "checkpoint", identity).read()
    assert torch.equal(tensors["x"], x) and metadata["sweep"] == 7
    assert read_state(path, "checkpoint").metadata["seed"] == 3
    # The same file takes the state of another computation only when it is written.
    StateFile(path, "checkpoint", {**identity, "seed": 4}).write({})
    assert read_state(path, "checkpoint").metadata["seed"] == 4


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 4}, r"/chains is a checkpoint of seed = 3, not 4: delete it or pass another path\.$"),
        ({"prior": (1.0, 3.0)}, r"prior = \[1\.0, 2\.0\], not \[1\.0, 3\.0\]"),
        ({"recipe": {"lr": 0.1, "epochs": 5}}, "epochs = 4, not 5"),
        ({"data": "f"}, "a checkpoint of other data: "),
        ({"new": 1}, "new = None, not 1"),
    ],
)
def test_the_file_of_another_computation_is_refused(tmp_path, other, message):
    identity = {"seed": 3, "prior": (1.0, 2.0), "recipe": {"lr": 0.1, "epochs": 4}, "data": "e"}
    StateFile(tmp_path / "chains", "checkpoint", identity).write({})
    with pytest.raises(ValueError, match=message):
        StateFile(tmp_path / "chains", "checkpoint", {**identity, **other}, {"data": "other data"}).read()
