"""Jobs: what decides a network, and arguments that do not fit together."""

from __future__ import annotations

import re

import pytest
import torch

from fastdens.training import Recipe
from fastdens.training.runs import TrainingRun, subset_runs, train_runs
from tests.training.runs.folders import RECIPE, contents, train_all


def test_only_included_examples_and_given_labels_matter(tmp_path, images, rng):
    run = subset_runs(1, 200)[0]
    labels = images.train_labels
    hidden = images._replace(train=torch.where(run.included[:, None, None, None], images.train, images.train * 0 + 7))
    other = torch.where(run.included, labels, (labels + 3) % 10)
    wrong = (labels + 1) % 10
    for folder, x, y in (("a", images, labels), ("b", hidden, other), ("c", images, wrong)):
        train_runs(tmp_path / folder, x, y, [run], RECIPE, device="cpu", progress=False)
    weights = [contents(tmp_path / f)["memorization-0000.safetensors"].tensors["model.fc.weight"] for f in "abc"]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": []}, "there are no runs"),
        ({"runs": [("a", 200), ("a", 200)]}, "2 runs are named 'a'"),
        ({"runs": [("../a", 200)]}, "'../a', which makes no file name"),
        ({"runs": [(".a", 200)]}, "'.a', which makes no file name"),
        ({"runs": [("a", 199)]}, "included of run 'a' is torch.bool of shape [199], but there are 200"),
        ({"runs": [("a", 0)]}, "run 'a' includes fewer than two examples"),
        ({"labels": torch.zeros(199, dtype=torch.int64)}, "labels are torch.int64 of shape [199]"),
        ({"labels": torch.zeros(200)}, "labels are torch.float32"),
        ({"labels": torch.full((200,), 10)}, "labels run from 10 to 10, but there are 10 class names"),
        ({"recipe": Recipe(network="resnet81")}, "there is no network 'resnet81'"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, images, change, message):
    chosen = change.get("runs", [("a", 200)])
    runs = [TrainingRun(name, torch.ones(n or 200, dtype=torch.bool) * bool(n), 0) for name, n in chosen]
    with pytest.raises(ValueError, match=re.escape(message)):
        train_runs(
            tmp_path / "runs",
            images,
            change.get("labels", images.train_labels),
            runs,
            change.get("recipe", RECIPE),
            processes=change.get("processes", 1),
            progress=False,
        )
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, but the networks need a folder"):
        train_all(tmp_path / "file")
