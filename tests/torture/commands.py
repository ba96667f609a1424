"""The long commands on problems of a second: each writes its results into a folder, and can be killed anywhere."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from torch import nn

import fastdens as fd
from fastdens.analysis import certify
from fastdens.cli import main
from fastdens.io.atomic import atomic_write
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.parts import find_failures, finished_parts, fit_part, join
from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import MachineOptions
from fastdens.progress import Stages

N, N_CLASSES = 96, 3
DRAWS = {"entropy_draws": 20, "divergence_draws": 20, "neighbours": 2}
QUIET = {"progress": False, "stages": Stages((), shown=False)}


def points() -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] of classes at some distance from each other, and their labels."""
    labels = np.arange(N) % N_CLASSES
    return np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32) + labels[:, None], labels


def batch() -> fd.RaggedBatch:
    return fd.RaggedBatch.from_labels(*points())


def fit_by_sampling(folder: Path) -> None:
    chains = folder / "chains.safetensors"
    dp = fd.DirichletProcessMixtures(n_sweeps=500, burn_in=400, n_chains=2, progress=False, backend="cpu")
    dp.fit(batch(), checkpoint=chains, checkpoint_every=1)
    dp.save(folder / "fit.safetensors", overwrite=True)
    chains.unlink()


def fit_by_em(folder: Path) -> None:
    _fit_in_parts(fd.GaussianMixtures(4, n_init=20, max_iter=500, tol=0.0, on_error="skip"), folder)


def fit_variationally(folder: Path) -> None:
    _fit_in_parts(fd.VariationalDirichletProcessMixtures(tol=0.0, max_iter=200, truncation=10), folder)


def _fit_in_parts(estimator: BaseMixtures, folder: Path) -> None:
    own, parts = batch(), folder / "parts"
    failures = find_failures(estimator, own)
    fits = list(finished_parts(estimator, own, parts))
    done = {int(m) for fit in fits for m in fit.models}
    fits += [fit_part(estimator, own, torch.tensor([m]), folder=parts) for m in range(N_CLASSES) if m not in done]
    join(estimator, own, failures, fits).save(folder / "fit.safetensors", overwrite=True)
    shutil.rmtree(parts, ignore_errors=True)


def certify_examples(folder: Path) -> None:
    x, _ = points()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, N_CLASSES))
    counts = folder / "counts.safetensors"
    found = certify(model, torch.from_numpy(x), 0.5, n=10_000, checkpoint=counts, device="cpu", progress=False)
    with atomic_write(folder / "radii.npy", overwrite=True) as partial, partial.open("wb") as stream:
        np.save(stream, found.radius)
    counts.unlink()


def extract_activations(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 256), nn.ReLU(), nn.Linear(256, 256)).eval()
    loader = torch.utils.data.DataLoader(torch.from_numpy(points()[0]).repeat(200, 1), batch_size=64)
    fd.activations.extract(
        model, loader, ["0", "2"], path=folder / "activations", overwrite=True, device="cpu", progress=False
    )


def memorize(folder: Path) -> None:
    options = ["--dataset", "digits", "--image-size", "8", "--width", "1", "--epochs", "1", "--flip", "0"]
    options += ["--networks", "2", "--processes", "1", "--device", "cpu", "--runs", str(folder / "runs")]
    sys.exit(main(["memorization", *options, "--output", str(folder / "scores.npz"), "--overwrite"]))


def analyze_activations(folder: Path) -> None:
    """Chains and the subsets of memorization, at two layers."""
    x, labels = points()
    data = AnalysisData.from_activations({"a": x, "b": x[::-1].copy()}, scores=x[:, 0], labels=labels, name="points")
    _analyze(data, AnalysisOptions(sweeps=60, thin=3, chains=2, search=0.0, dimensions=(2,), **DRAWS), folder)


def analyze_images(folder: Path) -> None:
    """Networks, other seeds, memorization and robustness."""
    # The analysis holds the path of the list.
    with chdir(folder):
        with atomic_write("examples.json", overwrite=True) as partial:
            partial.write_text(json.dumps(list(range(0, 1400, 6))))
        images = ImageOptions("digits", image_size=8, examples=Path("examples.json"))
        experiment = Experiment.load(images, NetworkOptions(width=1, epochs=1), Path("runs"))
        machine = MachineOptions(device="cpu")
        data = AnalysisData.from_experiment(
            experiment, seeds=2, layers=["layer1", "layer4"], machine=machine, checkpoint="unfinished", **QUIET
        )
        robustness = {"bins": 2, "certified_examples": 2, "certificate_draws": 20}
        options = AnalysisOptions(
            density="gmm", components=1, dimensions=(1,), memorization_networks=2, device="cpu", **robustness, **DRAWS
        )
        _analyze(data, options, Path())


def _analyze(data: AnalysisData, options: AnalysisOptions, folder: Path) -> None:
    unfinished = folder / "unfinished"
    analyze(data, options, progress=False, checkpoint=unfinished).save(folder / "analysis", overwrite=True)
    shutil.rmtree(unfinished)


def command_with_report(folder: Path) -> None:
    """All of the command ``analyze``."""
    x, labels = points()
    with chdir(folder):
        if not Path("given").exists():
            with atomic_write("given") as partial:
                partial.mkdir()
                np.save(partial / "layer.npy", x)
                np.save(partial / "labels.npy", labels)
        options = ["--density", "gmm", "--components", "1", "--entropy-draws", "20", "--divergence-draws", "20"]
        sys.exit(main(["analyze", "--activations", "given", *options, "--output", "report", "--overwrite"]))
