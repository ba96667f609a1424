"""Batches whose points stay in files: the same as from_labels, in every format, and what goes wrong with files."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fastdens as fd
from fastdens.io import grouping

MIB = 1 << 20
DTYPES = ["<f2", "<f4", ">f4", "<f8", ">f8", "<i2", ">i8", "u1", "?"]


def assert_same(batch, expected):
    """Points and their places, to the last bit, and the kind of points before they are read."""
    assert (batch.n_models, batch.n_points, batch.n_features) == (expected.n_models, *expected.points.shape)
    assert (batch.dtype, batch.device, batch.classes) == (expected.dtype, expected.device, expected.classes)
    loaded = batch.load()
    assert loaded.points.dtype == expected.points.dtype
    for name in ("points", "offsets", "index"):
        assert torch.equal(getattr(loaded, name), getattr(expected, name)), name


@pytest.fixture
def data(rng):
    """Rows of five classes out of order; class 2 has none, and rows of a class are apart."""
    y = rng.choice([0, 1, 3, 4], 300)
    return rng.normal(size=(300, 5)) * 50, y


@pytest.fixture
def smallest_blocks(monkeypatch):
    """Many passes over blocks, of 40 rows of float64."""
    monkeypatch.setattr(grouping, "_LARGEST_BLOCK", 1600)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("are_sorted", [False, True])
def test_npy_of_any_kind(tmp_path, data, smallest_blocks, dtype, order, are_sorted):
    x, y = np.asarray(data[0].astype(dtype), order=order), np.sort(data[1]) if are_sorted else data[1]
    np.save(tmp_path / "x.npy", x)
    batch = fd.RaggedBatch.from_files(tmp_path / "x.npy", y, n_classes=5, layer="last")
    expected = fd.RaggedBatch.from_labels(x, y, n_classes=5, layer="last")
    assert_same(batch, expected)
    assert (tmp_path / "x.npy.by_class").exists() != are_sorted
    for models in ([], [2], [0, 1], [1, 2, 4]):
        chosen = torch.tensor(models, dtype=torch.int64)
        assert_same(batch.select(chosen), expected.select(chosen))
    assert_same(
        batch.select(torch.tensor([0, 3, 4])).select(torch.tensor([1, 2])), expected.select(torch.tensor([3, 4]))
    )
    assert_same(pickle.loads(pickle.dumps(batch)), expected)
    assert batch.describe(3) == expected.describe(3) and repr(batch).startswith("BatchOnDisk(")
    assert torch.equal(batch.model_of_row, expected.model_of_row) and torch.equal(batch.sizes, expected.sizes)
    values = torch.arange(300.0)
    assert torch.equal(batch.in_caller_order(values), expected.in_caller_order(values))
    assert torch.equal(batch.to("cpu", torch.float64).points, expected.points.double())


def test_safetensors_zarr_and_several_files(tmp_path, data, smallest_blocks):
    zarr = pytest.importorskip("zarr")
    x, y = data
    expected = fd.RaggedBatch.from_labels(x, y)
    tensors = {"last": torch.from_numpy(x), "a/b": torch.from_numpy(x).bfloat16(), "labels": torch.from_numpy(y)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    assert_same(fd.RaggedBatch.from_files(path, path, name="last"), expected)
    assert_same(fd.RaggedBatch.from_files(path, path, name="a/b"), fd.RaggedBatch.from_labels(tensors["a/b"], y))
    group = zarr.open_group(tmp_path / "group", mode="w")
    for name, chunks in (("wide", (7, 5)), ("narrow", (300, 2))):
        group.create_array(name, shape=x.shape, chunks=chunks, dtype="f8")[:] = x
        assert_same(fd.RaggedBatch.from_files(tmp_path / "group", y, name=name), expected)
        folder = tmp_path / f"{name}.sorted"
        assert_same(fd.RaggedBatch.from_files(group[name], y, folder=folder), expected)
        assert_same(fd.RaggedBatch.from_files(tmp_path / "group" / name, y, folder=folder, overwrite=True), expected)
    parts = []
    for start, stop in ((0, 100), (100, 101), (101, 300)):
        parts.append(tmp_path / f"{start}.npy")
        np.save(parts[-1], x[start:stop])
    np.save(tmp_path / "y.npy", np.array([f"class{label}" for label in y]))
    of_parts = fd.RaggedBatch.from_files(parts, tmp_path / "y.npy")
    assert_same(of_parts, fd.RaggedBatch.from_labels(x, [f"class{label}" for label in y]))
    assert_same(fd.RaggedBatch.from_files([*map(str, parts)], np.sort(y)), fd.RaggedBatch.from_labels(x, np.sort(y)))


def test_the_sorted_copy_is_found_again_and_belongs_to_its_rows(tmp_path, data):
    x, y = data
    path, copy = tmp_path / "x.npy", tmp_path / "x.npy.by_class" / "points.npy"
    np.save(path, x)
    fd.RaggedBatch.from_files(path, y)
    written = copy.stat().st_mtime_ns
    assert_same(fd.RaggedBatch.from_files(path, y), fd.RaggedBatch.from_labels(x, y))
    assert copy.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="of other files or other labels: pass overwrite=True or another folder"):
        fd.RaggedBatch.from_files(path, y[::-1].copy())
    assert_same(
        fd.RaggedBatch.from_files(path, y[::-1].copy(), overwrite=True), fd.RaggedBatch.from_labels(x, y[::-1].copy())
    )
    batch = fd.RaggedBatch.from_files(path, np.sort(y))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"of other files or other labels"):
        fd.RaggedBatch.from_files(path, y[::-1].copy())
    with pytest.raises(ValueError, match=r"x.npy has changed since it was opened"):
        batch.load()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not to be lost")
    with pytest.raises(ValueError, match="exists and is no copy of rows by class: pass another folder"):
        fd.RaggedBatch.from_files(path, y, folder=tmp_path / "mine", overwrite=True)
    fd.RaggedBatch.from_files(path, y, overwrite=True)
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"points.npy cannot be read as an .npy array, it is damaged or cut off"):
        fd.RaggedBatch.from_files(path, y)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_sort_leaves_nothing_under_the_final_name(tmp_path, data, smallest_blocks, monkeypatch, error):
    x, y = data
    np.save(tmp_path / "x.npy", x)
    write, n_writes = grouping._write, []

    def interrupted(*arguments):
        n_writes.append(1)
        if len(n_writes) == 9:
            raise error
        write(*arguments)

    monkeypatch.setattr(grouping, "_write", interrupted)
    with pytest.raises(type(error)) as raised:
        fd.RaggedBatch.from_files(tmp_path / "x.npy", y)
    if isinstance(error, OSError):
        assert "x.npy.by_class, a copy of x sorted by class of 11.8 KiB, cannot be written (No space" in str(
            raised.value
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    monkeypatch.undo()
    assert_same(fd.RaggedBatch.from_files(tmp_path / "x.npy", y), fd.RaggedBatch.from_labels(x, y))


def test_a_full_disk_is_found_before_the_work(tmp_path, data, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("the system reserves no space")
    np.save(tmp_path / "x.npy", data[0])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\): make room, or pass a folder"):
        fd.RaggedBatch.from_files(tmp_path / "x.npy", data[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": "none.npy"}, FileNotFoundError, "there is no file .*none.npy"),
        ({"x": "folder"}, ValueError, "cannot be read as a zarr array"),
        ({"x": "y.npy"}, ValueError, r"y.npy has shape \(300,\), but points are \[N, D\]"),
        ({"x": "text.npy"}, ValueError, "holds strings, which cannot be read as an array of numbers"),
        ({"x": "objects.npy"}, ValueError, "would need pickle"),
        ({"x": "short.npy"}, ValueError, "damaged or cut off"),
        ({"x": "short.safetensors"}, ValueError, "cannot be read as a safetensors file"),
        ({"x": "all.safetensors"}, ValueError, "holds the arrays 'a', 'b': say which with name="),
        ({"x": "all.safetensors", "name": "c"}, ValueError, "has no array 'c', but 'a', 'b'"),
        ({"x": "x.npy", "name": "c"}, ValueError, "leave name out"),
        ({"x": ["x.npy", "y2.npy"]}, ValueError, "files of consecutive rows are alike"),
        ({"x": "x.npy", "y": [1, 2]}, ValueError, "x has 300 rows: pass one label for each row"),
        ({"x": "x.npy", "y": "x.npy"}, ValueError, "x has 300 rows: pass one label for each row"),
        ({"x": "x.npy", "max_memory": "1MiB"}, ValueError, "sorting x by class needs .*: pass at least"),
        ({"x": "x.npy", "max_memory": "lots"}, ValueError, "max_memory is 'lots'"),
        ({"x": np.ones((300, 2))}, TypeError, "x is a ndarray, but files are read here"),
    ],
)
def test_errors_are_one_sentence(tmp_path, data, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    x, y = data
    (tmp_path / "folder").mkdir()
    for name, array in {"x": x, "y": y, "y2": x.astype("f4"), "text": x.astype(str)}.items():
        np.save(f"{name}.npy", array)
    np.save("objects.npy", np.array([[{}]], object), allow_pickle=True)
    save_file({"a": torch.ones(300, 2), "b": torch.ones(300, 2)}, "all.safetensors")
    for kind, whole in ((".npy", "x.npy"), (".safetensors", "all.safetensors")):
        Path(f"short{kind}").write_bytes(Path(whole).read_bytes()[:-9])
    with pytest.raises(error, match=message) as raised:
        fd.RaggedBatch.from_files(**{"y": y, **options})
    assert "\n" not in str(raised.value)


def test_points_that_are_not_in_memory_say_so(tmp_path, data):
    np.save(tmp_path / "x.npy", data[0])
    batch = fd.RaggedBatch.from_files(tmp_path / "x.npy", np.sort(data[1]))
    with pytest.raises(ValueError, match=r"the points of this batch are in .*x.npy: read them with batch.load\(\)"):
        _ = batch.points
    assert not hasattr(batch, "nothing")


# The peak is that of the process since its start, in KiB.
PROGRAM = """
import sys, warnings
import numpy as np, torch
import fastdens as fd

def held(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) << 10

x, y, kind, room = sys.argv[1:]
limit = held("VmRSS") + (int(room) << 20)
batch = fd.RaggedBatch.from_files(x, y, max_memory=limit)
kinds = {
    "gaussian": fd.GaussianMixtures(2, max_iter=2, tol=0),
    "gibbs": fd.DirichletProcessMixtures(n_sweeps=3, burn_in=1, thin=1, search=0, progress=False),
    "vb": fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=1),
}
if kind in kinds:
    warnings.simplefilter("ignore")
    fit = kinds[kind].fit(batch)
    assert fit.score_samples(batch).isfinite().all()
print(held("VmHWM") - limit)
"""


def over_limit(folder, kind, room):
    """Bytes by which the peak of a process is over a limit, some MiB above what it holds at the start."""
    arguments = [str(folder / "x.npy"), str(folder / "y.npy"), kind, str(room)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """64 MiB of points in random order; fits of all at once take three to fourteen times as much."""
    folder = tmp_path_factory.mktemp("large")
    n_rows = 64 * MIB // 4 // 64
    np.save(folder / "x.npy", np.random.default_rng(1).standard_normal((n_rows, 64), dtype=np.float32))
    np.save(folder / "y.npy", np.arange(n_rows) % 256)
    return folder


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_sorting_stays_below_the_limit_seen_from_outside(large):
    assert over_limit(large, "sort", 160) < 0


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "room"), [("gaussian", 480), ("vb", 520), ("gibbs", 880)])
def test_fits_and_scores_stay_below_the_limit_seen_from_outside(large, kind, room):
    assert over_limit(large, kind, room) < 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_sort_starts_again(tmp_path, rng):
    x, y = rng.standard_normal((200_000, 16)), rng.integers(0, 3, 200_000)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    program = """
import sys, time
from fastdens.io import grouping
import fastdens as fd
write = grouping._write
grouping._write = lambda *a: (write(*a), print(flush=True), time.sleep(0.01))
grouping._LARGEST_BLOCK = 1 << 16
fd.RaggedBatch.from_files(*sys.argv[1:])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    for _ in range(5):
        child.stdout.readline()
    with ThreadPoolExecutor() as pool:
        # Waits for the child, and takes over from it.
        waiting = pool.submit(fd.RaggedBatch.from_files, tmp_path / "x.npy", y)
        time.sleep(float(rng.uniform(0.1, 0.4)))
        assert not waiting.done()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert_same(waiting.result(60), fd.RaggedBatch.from_labels(x, y))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.npy.by_class", "y.npy"]
