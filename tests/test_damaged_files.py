"""Files of every kind that fastdens reads, cut off or with wrong bits: one sentence, or else the very same content.

FASTDENS_DAMAGED_FILES is how many files to damage.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.analysis import certify, read_memorization_scores
from fastdens.io.state_file import fingerprint
from fastdens.mixtures.parts import finished_parts, fit_part
from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, analyze
from fastdens.pipeline.saving import fingerprint_of_tree
from fastdens.training.datasets import Images
from fastdens.training.runs import Recipe, TrainingRun, load_run, train_runs

N = 48
N_DAMAGED = int(os.environ.get("FASTDENS_DAMAGED_FILES", "500"))
QUICK = AnalysisOptions(density="gmm", components=1, entropy_draws=5, divergence_draws=5, neighbours=2, dimensions=(2,))


class Kind(NamedTuple):
    """How files of a kind are written to a folder and read, and whether they have a digest."""

    write: Callable[[Path], Any]
    read: Callable[[Path], str]
    has_digest: bool = True


def points():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)), torch.arange(N) % 2


def batch():
    return fd.RaggedBatch.from_labels(*points())


def mixtures():
    return fd.GaussianMixtures(2, backend="reference")


def sampled(folder):
    dp = fd.DirichletProcessMixtures(n_sweeps=8, burn_in=4, thin=1, search=0, progress=False)
    return dp.fit(batch(), checkpoint=folder / "chains.safetensors")


def of_estimator(estimator):
    tensors, metadata = estimator.get_state()
    return fingerprint_of_tree((tensors, metadata))


def images():
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 2
    return Images(x, labels, x[:4], labels[:4], ("a", "b"), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))


def train(folder):
    run = TrainingRun("run", torch.ones(20, dtype=torch.bool), 0)
    train_runs(folder, images(), images().train_labels, [run], Recipe(width=1, epochs=1), device="cpu", progress=False)


def of_run(folder):
    found = load_run(folder, "run", images(), device="cpu")
    return fingerprint([found.train_predicted, *found.model.state_dict().values()])


def certified(folder):
    model = torch.nn.Linear(3, 2)
    torch.nn.init.eye_(model.weight)
    torch.nn.init.zeros_(model.bias)
    options = {"n": 100, "checkpoint": folder / "counts.safetensors", "device": "cpu", "progress": False}
    return certify(model, points()[0], 0.5, **options)


def analyzed(folder, checkpoint=None):
    x, labels = points()
    data = AnalysisData.from_activations({"layer": x}, labels=labels)
    return analyze(data, QUICK, progress=False, checkpoint=checkpoint)


def of_activations(found):
    return fingerprint([*found.features.values(), found.labels])


def write_activations(path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*points()), batch_size=16)
    fd.activations.extract(model, loader, ["0"], path=path, device="cpu", progress=False)


KINDS = {
    "fit": Kind(
        lambda folder: mixtures().fit(batch()).save(folder / "fit.safetensors"),
        lambda folder: of_estimator(fd.load(folder / "fit.safetensors")),
    ),
    "checkpoint of chains": Kind(sampled, lambda folder: of_estimator(sampled(folder))),
    "part of a fit": Kind(
        lambda folder: fit_part(mixtures(), batch(), torch.tensor([1]), folder=folder),
        lambda folder: fingerprint_of_tree([part.tensors for part in finished_parts(mixtures(), batch(), folder)]),
    ),
    "run": Kind(train, of_run),
    "checkpoint of certificates": Kind(certified, lambda folder: fingerprint_of_tree(certified(folder).radius)),
    "analysis": Kind(
        lambda folder: analyzed(folder).save(folder / "analysis"),
        lambda folder: fingerprint_of_tree(Analysis.load(folder / "analysis")),
    ),
    "part of an analysis": Kind(
        lambda folder: analyzed(folder, folder), lambda folder: fingerprint_of_tree(analyzed(folder, folder))
    ),
    "folder of activations": Kind(
        lambda folder: write_activations(folder / "train"),
        lambda folder: of_activations(fd.activations.load(folder / "train")),
        has_digest=False,
    ),
    "file of activations": Kind(
        lambda folder: write_activations(folder / "train.safetensors"),
        lambda folder: of_activations(fd.activations.load(folder / "train.safetensors")),
        has_digest=False,
    ),
    "scores": Kind(
        lambda folder: np.savez(folder / "scores.npz", tr_mem=np.linspace(0, 1, N), tr_labels=points()[1]),
        lambda folder: fingerprint_of_tree(read_memorization_scores(folder / "scores.npz").scores),
        has_digest=False,
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    KINDS[request.param].write(folder)
    return KINDS[request.param], folder


def damaged(rng, content):
    """Content with wrong bits anywhere or at the beginning, or cut off anywhere, at the beginning or near the end."""
    ends = {"bits": len(content), "head": min(len(content), 300), "cut": len(content), "cut head": 20, "cut end": 9}
    way = str(rng.choice(list(ends)))
    place = int(rng.integers(ends[way]))
    if way.startswith("cut"):
        return way, content[: len(content) - 1 - place if way == "cut end" else place]
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        raw[int(rng.integers(ends[way]))] ^= 1 << int(rng.integers(8))
    return way, bytes(raw)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_one_sentence_or_says_what_it_said(written, rng):
    (_, read, has_digest), folder = written
    files = [path for path in folder.rglob("*") if path.is_file()]
    whole = {path: path.read_bytes() for path in files}
    expected = read(folder)
    for _ in range(math.ceil(N_DAMAGED / len(KINDS))):
        path = files[rng.integers(len(files))]
        way, content = damaged(rng, whole[path])
        path.write_bytes(content)
        try:
            found = read(folder)
        except (ValueError, OSError) as error:
            text = str(error)
            assert str(folder) in text and text.count("\n") == 0 and text.endswith("."), (way, text)
        else:
            # Without a digest, wrong numbers are numbers.
            assert found == expected or (not has_digest and "cut" not in way), (path.name, way)
        for own in files:
            own.write_bytes(whole[own])


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.has_digest])
def test_a_file_of_a_newer_version_asks_to_upgrade(name, tmp_path, monkeypatch):
    monkeypatch.setattr("fastdens.io.state_file.FORMAT_VERSION", 99)
    KINDS[name].write(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=rf"^{tmp_path}\S* has format version 99 and .*: upgrade fastdens\.$"):
        KINDS[name].read(tmp_path)
