"""Extractions that tests interrupt, kill, and share among processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fastdens.activations import extract
from fastdens.io import shared_work

N, LAYERS = 203, ["0", "2"]


class Rows(Dataset):
    """Noisy inputs with labels; says in a log which of them it was asked for, and takes its time."""

    def __init__(self, n=N, log=None, seconds=0.0):
        self.x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
        self.log, self.seconds = log, seconds

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{i}\n")
        return self.x[i], i


class Network(nn.Sequential):
    """A network that draws random numbers, too."""

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


def loader_of(data, kind="rows", **options):
    """A loader that reads the rows it needs, one of another class, which is walked through, or a list of batches."""
    loader = DataLoader(data, batch_size=10, **options)
    if kind == "list":
        return list(loader)
    return type("Walked", (DataLoader,), {})(data, batch_size=10, **options) if kind == "walked" else loader


def run(path, data=None, kind="rows", model=None, layers=LAYERS, loader=None, seed=5, **options):
    loader = loader_of(data or Rows(), kind) if loader is None else loader
    torch.manual_seed(seed)
    return extract(model or Network(), loader, layers, path=path, progress=False, **options)


def small_parts(seconds=0.0):
    """Let parts and blocks be small, so that there are many."""
    shared_work._SECONDS_BETWEEN_PARTS = seconds
    shared_work._SECONDS_BETWEEN_LOOKS = 0.02


def run_until_done(folder, name, kind):
    """As the work of a process that is killed at any moment."""
    torch.set_num_threads(1)
    small_parts(0.005)
    with suppress(FileExistsError):
        run(folder / name, Rows(seconds=1e-4), kind)


def run_and_die(path, n_batches):
    """An extraction that is killed when it reads the row after a number of batches."""
    small_parts()
    rows = Rows()
    rows.x = _Deadly(rows.x, 10 * n_batches)
    run(path, rows)


class _Deadly:
    def __init__(self, x, at):
        self.x, self.at = x, at

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if i == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.x[i]


def run_share(path, log, seconds, options):
    """One of several processes that share an extraction."""
    torch.set_num_threads(1)
    small_parts()
    found = run(path, Rows(log=log, seconds=seconds), **options)
    assert all(found.features[layer].shape[0] == N for layer in LAYERS)
