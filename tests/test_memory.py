"""The memory that a matrix on disk takes while it is projected, measured from outside, in each dtype and order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdens import memory

MIB = 1 << 20

# The peak is that of the process since its start, in KiB; numbers of few rows come first, so that all code is loaded.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
import fastdens as fd
torch.set_num_threads(1)

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

path, way = Path(sys.argv[1]), sys.argv[2]
fd.reduction.UncentredSVD(2).fit_transform(np.ones((50_000, 100), np.float16))
before = peak()
if way == "load":
    x = fd.activations.load(path.parent).features[path.stem]
else:
    x = np.load(path, mmap_mode=way)
svd = fd.reduction.UncentredSVD(4)
points = svd.fit(x).transform(x)
assert points.shape == (len(x), 4) and torch.isfinite(points).all()
print(peak() - before)
"""

KINDS = [("<f4", "F", "load"), ("<f2", "C", "load"), (">f4", "F", "load"), (">f8", "C", "r"), (">f2", "F", "r")]


def growth(path, way):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path), way], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def write(path, dtype, order, n_bytes):
    """A matrix of 64 columns, written without bringing it into memory."""
    n_rows = n_bytes // np.dtype(dtype).itemsize // 64
    path.parent.mkdir()
    x = np.lib.format.open_memmap(path, "w+", dtype, (n_rows, 64), fortran_order=order == "F")
    rows = (np.arange(4096)[:, None] * np.arange(1, 65) % 13).astype(dtype)
    for start in range(0, n_rows, 4096):
        x[start : start + 4096] = rows[: n_rows - start]
    x.flush()
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_matrix_on_disk_takes_no_more_memory_in_any_dtype_and_order(tmp_path):
    n_bytes = 98 * MIB
    usual = growth(write(tmp_path / "usual" / "layer.npy", "<f4", "C", n_bytes), "load")
    found = {}
    for number, (dtype, order, way) in enumerate(KINDS):
        file = write(tmp_path / str(number) / "layer.npy", dtype, order, n_bytes)
        # The coordinates, float32 or float64 [N, 4], are in memory.
        kind = np.dtype(dtype)
        n_rows = n_bytes // kind.itemsize // 64
        own, of_usual = 4 * n_rows * (4 if kind.kind == "f" and kind.itemsize <= 4 else 8), 4 * n_bytes // 64
        found[dtype, order, way] = growth(file, way) - (own - of_usual) / MIB
        file.unlink()
    print(usual, found)
    assert max(found.values()) < usual + 16


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_bfloat16_safetensors_are_projected_in_blocks(tmp_path):
    from safetensors.torch import save_file

    program = PROGRAM.replace("path.parent).features[path.stem]", 'path).features["layer"]')
    x = torch.arange(98 * MIB // 2 // 64, dtype=torch.float32)[:, None] % torch.arange(2, 66)
    save_file({"layer": x.bfloat16()}, tmp_path / "x.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.safetensors"), "load"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 98 + 12 + 24


def test_limit_where_the_user_states_none():
    held, limit = memory.resident_bytes(), memory.default_limit()
    assert held < limit < held + memory.total_bytes()
    psutil = pytest.importorskip("psutil")
    assert abs(memory.free_bytes() - psutil.virtual_memory().available) < psutil.virtual_memory().total / 10


@pytest.mark.parametrize("version", [0, 1])
def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch, version):
    _folder, most, used = memory._CONTROL_GROUPS[version]
    (tmp_path / most).write_text(f"{64 * MIB}\n")
    (tmp_path / used).write_text(f"{60 * MIB}\n")
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", ((tmp_path, most, used),))
    assert (memory.total_bytes(), memory.free_bytes()) == (64 * MIB, 4 * MIB)
    (tmp_path / most).write_text("max\n")
    assert memory.total_bytes() > 64 * MIB
