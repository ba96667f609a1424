"""An analysis that is stopped anywhere goes on, computes nothing twice that was finished, and ends in the same bits."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.saving import fingerprint_of_tree
from fastdens.progress import Stages

N, N_CLASSES = 96, 3
QUICK = {"entropy_draws": 20, "divergence_draws": 20, "dimensions": (2,), "neighbours": 2}
QUIET = Stages((), shown=False)
OPTIONS = AnalysisOptions(sweeps=60, thin=3, chains=2, search=0.0, **QUICK)


class Stopped(BaseException):
    """As of Ctrl-C, which no part of the work may take for an error of its own."""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(N) % N_CLASSES
    layers = {name: rng.normal(size=(N, 3)).astype(np.float32) + labels[:, None] for name in ("a/b", "c")}
    test = {name: x[:30] for name, x in layers.items()}
    found = AnalysisData.from_activations(layers, test, rng.uniform(size=N), labels=labels, test_labels=labels[:30])
    other = {name: torch.from_numpy(x[:, ::-1].copy()) for name, x in layers.items()}
    return replace(found, other_networks=(other,))


@pytest.fixture(scope="module")
def expected(data):
    return fingerprint_of_tree(analyze(data, OPTIONS, progress=False))


@pytest.fixture
def stops(monkeypatch):
    """``stops(n, before)`` stops the work at its n-th file from now on, before or after that has its name."""
    renamed = os.replace

    def stop(n, before):
        left = [n]

        def replace_and_stop(source, target):
            left[0] -= 1
            if left[0] == 0 and before:
                raise Stopped
            renamed(source, target)
            if left[0] == 0:
                raise Stopped

        monkeypatch.setattr("os.replace", replace_and_stop)

    return stop


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_analysis_goes_on_wherever_it_stopped(data, expected, tmp_path, stops):
    n_stops = 0
    while True:
        # Two files further each time; the second of them is lost half of the time.
        stops(2, before=n_stops % 2 == 0)
        try:
            found = analyze(data, OPTIONS, progress=False, checkpoint=tmp_path)
            break
        except Stopped:
            n_stops += 1
    assert n_stops > 10 and fingerprint_of_tree(found) == expected
    # What parts were made of has gone with them.
    assert not [name for name in files_in(tmp_path) if "fit" in name or ".partial" in name]


def test_what_is_finished_is_not_computed_again(data, expected, tmp_path, monkeypatch):
    analyze(data, OPTIONS, progress=False, checkpoint=tmp_path)
    monkeypatch.setattr("fastdens.DirichletProcessMixtures.fit", pytest.fail)
    monkeypatch.setattr("fastdens.reduction.UncentredSVD.fit", pytest.fail)
    names = []
    found = analyze(data, OPTIONS, progress=False, checkpoint=tmp_path, on_layer=lambda layer: names.append(layer.name))
    assert fingerprint_of_tree(found) == expected and names == ["a/b", "c"]


def test_other_data_or_options_have_a_checkpoint_of_their_own(data, tmp_path):
    quick = AnalysisOptions(density="gmm", components=1, **QUICK)
    changed = replace(data, scores=replace(data.scores, values=data.scores.values[::-1].copy()))
    for own, options in ((data, quick), (changed, quick), (data, replace(quick, seed=1))):
        found = analyze(own, options, progress=False, checkpoint=tmp_path)
        assert fingerprint_of_tree(found) == fingerprint_of_tree(analyze(own, options, progress=False))
    analyze(data, replace(quick, processes=2), progress=False, checkpoint=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_activations_are_kept_by_network(tmp_path, monkeypatch):
    def features_of(width):
        network = NetworkOptions(width=width, epochs=1)
        experiment = Experiment.load(ImageOptions("digits", image_size=8), network, tmp_path / f"runs-{width}")
        found = AnalysisData.from_experiment(
            experiment, noise_images=3, layers=["layer1"], progress=False, stages=QUIET, checkpoint=tmp_path / "kept"
        )
        return [features["layer1"].clone() for features in (found.train, found.test, found.noise)]

    first, other = features_of(1), features_of(2)
    assert first[0].shape == (1437, 1) and other[0].shape == (1437, 2)
    monkeypatch.setattr("fastdens.pipeline.extraction.extract", pytest.fail)
    assert all(map(torch.equal, features_of(1), first))


def test_a_damaged_or_foreign_part_is_one_sentence_that_says_what_to_delete(data, tmp_path):
    quick = AnalysisOptions(density="gmm", components=1, **QUICK)
    for seed in (0, 1):
        analyze(data, replace(quick, seed=seed), progress=False, checkpoint=tmp_path / str(seed))
    (mine,), (other,) = (list((tmp_path / name).iterdir()) for name in "01")
    file = mine / "memorization.safetensors"
    whole = file.read_bytes()
    for content, problem in ((whole[:-9], "is damaged"), (b"", "is damaged"), (None, "is a finished part of seed = 1")):
        if content is None:
            shutil.copy(other / file.name, file)
        else:
            file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{file} {problem}.*: delete it, to compute it anew\.$"):
            analyze(data, quick, progress=False, checkpoint=tmp_path / "0")
    file.unlink()
    analyze(data, quick, progress=False, checkpoint=tmp_path / "0")
