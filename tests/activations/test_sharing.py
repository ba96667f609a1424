"""Extractions that are killed and resumed, and that several processes do together: the same bits as of one call."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastdens.activations import extract, load
from fastdens.io import shared_work
from tests.activations import extractions
from tests.activations.extractions import (
    LAYERS,
    N,
    Network,
    Rows,
    loader_of,
    run,
    run_and_die,
    run_share,
    run_until_done,
)
from tests.kills import forked, kill_and_compare, preload

preload(__name__)
preload(extractions.__name__)

N_BATCHES = -(-N // 10)


@pytest.fixture(scope="module")
def whole():
    return run(None)


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """The path of an extraction that was killed after about 12 batches of 10."""
    monkeypatch.setattr(shared_work, "_SECONDS_BETWEEN_PARTS", 0.0)
    child = forked(run_and_die, 12)(tmp_path / "kept")
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".kept.parts"]
    return tmp_path / "kept"


def assert_same(found, whole):
    assert found.layers == whole.layers
    assert torch.equal(found.labels, whole.labels)
    for layer in LAYERS:
        assert torch.equal(found.features[layer], whole.features[layer])


def read(log):
    """How often each row was read."""
    return Counter(map(int, log.read_text().split()))


@pytest.mark.parametrize(("name", "kind"), [("kept", "rows"), ("kept.safetensors", "walked")])
def test_killed_at_random_moments(tmp_path, rng, whole, name, kind):
    kill_and_compare(forked(run_until_done, name, kind), tmp_path, rng)
    assert_same(load(tmp_path / "undisturbed" / name), whole)


def test_finished_batches_are_not_read_again(tmp_path, cut, whole):
    assert_same(run(cut, Rows(log=tmp_path / "log")), whole)
    # The first batch shows that the inputs are the same.
    assert sorted(read(tmp_path / "log")) == [*range(10), *range(120, N)]
    assert sorted(os.listdir(tmp_path)) == ["kept", "log"]


@pytest.mark.parametrize("kind", ["walked", "list"])
def test_other_loaders_are_walked_through(cut, whole, kind):
    passes = []
    model = Network()
    model[1].register_forward_hook(lambda *_: passes.append(1))
    assert_same(run(cut, kind=kind, model=model), whole)
    assert len(passes) == 1 + N_BATCHES - 12


def another_model():
    return Network(seed=1)


def another_activation():
    model = Network()
    model[1] = nn.GELU()
    return model


def another_forward():
    model = Network()
    model[0].register_forward_hook(lambda _module, _inputs, output: output * 1.1)
    return model


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: {"model": another_model()}, "another model, of other weights"),
        (lambda: {"model": another_activation()}, "another model, of other modules"),
        (lambda: {"model": another_forward()}, "other values of '0' for the first batch"),
        (lambda: {"layers": ["0"]}, r"layers = \['0', '2'\], not \['0'\]"),
        (lambda: {"pool": "max"}, "pool = 'avg', not 'max'"),
        (lambda: {"calls": {"0": "last"}}, "calls = None, not {'0': 'last'}"),
        (lambda: {"seed": 6}, "other values of '0' .* draws random numbers from another seed"),
        (lambda: {"loader": loader_of(Rows(N + 40))}, "batches = 21, not 25"),
        (lambda: {"loader": DataLoader(Rows(), batch_size=20)}, "batches = 21, not 11"),
        (lambda: {"loader": loader_of(Rows(), shuffle=True)}, "other inputs in the first batch .* may not shuffle"),
    ],
)
def test_another_call_is_refused(cut, change, what):
    parts = cut.parent / ".kept.parts"
    before = sorted(parts.glob("*.safetensors"))
    with pytest.raises(ValueError, match=rf"begun extraction of {what}.*: delete the folder .*parts to begin anew"):
        run(cut, **change())
    assert sorted(parts.glob("*.safetensors")) == before


def test_rounding_of_other_hardware_is_not_another_model(cut):
    model = Network()
    model[0].register_forward_hook(lambda _module, _inputs, output: output * (1 + 1e-6))
    assert run(cut, model=model).features["0"].shape == (N, 5)


def test_an_interrupted_call_keeps_what_is_finished(tmp_path, whole):
    class Interrupted(Rows):
        def __getitem__(self, i):
            if i == 125:
                raise KeyboardInterrupt
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "kept", Interrupted())
    assert_same(run(tmp_path / "kept", Rows(log=tmp_path / "log")), whole)
    assert sum(read(tmp_path / "log").values()) == 10 + N - 120


def test_a_damaged_part_is_named_and_done_anew(cut, whole):
    part = sorted((cut.parent / ".kept.parts").glob("0*.safetensors"))[2]
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{part.name} is damaged.*: delete it and call again"):
        run(cut)
    assert not cut.exists()
    part.unlink()
    assert_same(run(cut), whole)


def run_on_a_full_disk(path):
    # Parts are below the limit of a file, the arrays are not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    shared_work._SECONDS_BETWEEN_PARTS = 0.0
    try:
        run(path)
    except OSError as error:
        (path.parent / "error").write_text(f"{type(error).__name__} {error}")


@pytest.mark.parametrize("name", ["kept", "kept.safetensors"])
def test_a_full_disk_loses_nothing(tmp_path, whole, name):
    child = forked(run_on_a_full_disk)(tmp_path / name)
    child.join(60)
    said = (tmp_path / "error").read_text()
    assert said == (
        f"OSError {tmp_path / name} could not be written ({os.strerror(errno.EFBIG)}): make room on the disk and call "
        f"again; the finished batches are kept in {tmp_path / f'.{name}.parts'}."
    )
    assert sorted(os.listdir(tmp_path)) == [f".{name}.parts", "error"]
    assert_same(run(tmp_path / name, Rows(log=tmp_path / "log")), whole)
    assert len(read(tmp_path / "log")) == 10


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="pass a path in a folder that you may write to"):
        run(tmp_path / "file" / "kept")


@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_share_the_batches(tmp_path, whole, n_processes):
    children = [forked(run_share, tmp_path / "log", 2e-3, {})(tmp_path / "kept") for _ in range(n_processes)]
    for child in children:
        child.join(60)
    # One that came late finds the name.
    assert {0} <= {child.exitcode for child in children} <= {0, 1}
    assert_same(load(tmp_path / "kept"), whole)
    times = read(tmp_path / "log")
    assert {times[i] for i in range(10, N)} == {1}
    assert sorted(os.listdir(tmp_path)) == ["kept", "log"]


def test_others_take_over_from_a_process_that_is_killed(tmp_path, whole):
    one, other = (forked(run_share, tmp_path / f"log-{k}", 5e-3, {})(tmp_path / "kept") for k in range(2))
    while not (tmp_path / "log-0").exists() or len((tmp_path / "log-0").read_text()) < 100:
        assert one.is_alive()
    one.kill()
    other.join(60)
    assert other.exitcode == 0
    assert_same(load(tmp_path / "kept"), whole)


def test_workers_and_the_rest_of_a_loader_stay(tmp_path):
    x = torch.arange(47.0)[:, None].expand(47, 6)

    def collate(rows):
        return torch.stack([row for (row,) in rows]) * 2

    loader = DataLoader(TensorDataset(x), 5, num_workers=2, collate_fn=collate, drop_last=True, prefetch_factor=1)
    found = extract(nn.Sequential(nn.Identity()), loader, ["0"], path=tmp_path / "kept", progress=False)
    assert torch.equal(found.features["0"], 2 * x[:45])


def test_data_without_an_order_of_its_own(tmp_path, whole):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([Rows()[i] for i in range(N)])

    assert_same(run(tmp_path / "stream", loader=DataLoader(Stream(), batch_size=10)), whole)
    assert_same(run(tmp_path / "generator", loader=(batch for batch in loader_of(Rows()))), whole)
    assert_same(run(tmp_path / "iterator", loader=iter(loader_of(Rows(), "list"))), whole)
