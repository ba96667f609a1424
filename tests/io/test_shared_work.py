"""Pieces of a computation that several calls share, one inside the other; other tests share them among processes."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
import torch

from fastdens.io import shared_work
from fastdens.io.shared_work import SharedWork
from fastdens.io.state_file import read_state, write_state

N = 10


def piece(number):
    """One row more in each piece."""
    return {"x": torch.arange(number + 1) + 100 * number}


EXPECTED = torch.cat([piece(k)["x"] for k in range(N)])


@contextmanager
def opened(path, block=2, identity=None, n_pieces=N):
    work = SharedWork(path, "sum", {"sample": "another {}"}, block, n_pieces)
    with work.opened():
        work.enter(identity or {"seed": 0}, {"x": torch.ones(2)})
        yield work


def complete(work, computed, between=lambda _number: None):
    def compute(numbers):
        for number in numbers:
            between(number)
            computed.append(number)
            yield number, piece(number)

    work.complete(compute, lambda *_: None)


def finish(work, path):
    work.finish(lambda pieces: torch.save(torch.cat([own["x"] for own in pieces]), path))


def test_calls_do_each_piece_once(tmp_path):
    path, one, other = tmp_path / "sum", [], []

    def come_in(number):
        if number == 4:
            with pytest.raises(InterruptedError), opened(path) as second:
                complete(second, other, leave)

    def leave(number):
        # What it has done is written when it leaves.
        if number == 8:
            raise InterruptedError

    with opened(path) as first:
        complete(first, one, come_in)
        finish(first, path)
    assert other == [6, 7] and one == [0, 1, 2, 3, 4, 5, 8, 9]
    assert torch.equal(torch.load(path), EXPECTED)
    assert os.listdir(tmp_path) == ["sum"]


def test_who_comes_when_all_is_done_does_nothing(tmp_path):
    path, late = tmp_path / "sum", []
    with opened(path) as second:
        with opened(path) as first:
            complete(first, [])
            finish(first, path)
        complete(second, late)
        finish(second, None)
    assert late == [] and os.listdir(tmp_path) == ["sum"]


def test_pieces_that_were_done_twice_count_once(tmp_path, monkeypatch):
    # As where locks do not reach from machine to machine.
    monkeypatch.setattr(shared_work, "claimed", lambda _: contextmanager(lambda: (yield True))())
    path = tmp_path / "sum"
    with opened(path, block=3) as first, opened(path, block=4) as second:
        complete(first, [], lambda number: number == 5 and complete(second, []))
        assert len(list(first.folder.glob("0*"))) == 2
        finish(first, path)
    assert torch.equal(torch.load(path), EXPECTED)


def test_few_claims_are_held_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_work, "_MOST_CLAIMS", 3)
    path, held = tmp_path / "sum", []
    with opened(path, block=1) as work:
        complete(work, [], lambda _: held.append(len(list(work.folder.glob(".0*.lock")))))
        finish(work, path)
    assert max(held) == 4
    assert torch.equal(torch.load(path), EXPECTED)


def test_another_computation_is_refused_and_stays(tmp_path):
    path = tmp_path / "sum"
    with pytest.raises(InterruptedError), opened(path) as work:
        complete(work, [], lambda number: (_ for _ in ()).throw(InterruptedError) if number == 5 else None)
    before = sorted(os.listdir(work.folder))
    with pytest.raises(ValueError, match=r"is a begun sum of seed = 0, not 1: delete the folder .*\.sum\.parts"):
        opened(path, identity={"seed": 1}).__enter__()
    assert sorted(os.listdir(work.folder)) == before
    # Without the file that says what it is, the parts do.
    (work.folder / "begun.safetensors").unlink()
    with opened(path, identity={"seed": 1}) as other:
        complete(other, [])
        with pytest.raises(ValueError, match="part of the sum of seed = 0"):
            finish(other, path)


def test_nothing_done_leaves_nothing(tmp_path):
    with pytest.raises(InterruptedError), opened(tmp_path / "sum"):
        raise InterruptedError
    assert os.listdir(tmp_path) == []


def test_a_damaged_sample_is_named(tmp_path):
    with opened(tmp_path / "sum") as work:
        complete(work, [])
    file = work.folder / "begun.safetensors"
    state = read_state(file, "begun sum")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"begun\.safetensors is damaged.*: delete it and call again"):
        opened(tmp_path / "sum").__enter__()
    write_state(file, "begun sum", {"x": torch.ones(2) + 1e-2}, state.metadata, overwrite=True)
    with pytest.raises(ValueError, match="begun sum of another x"):
        opened(tmp_path / "sum").__enter__()
