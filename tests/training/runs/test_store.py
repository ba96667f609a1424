"""Files of trained networks: what they hold, and files of something else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from fastdens.io.state_file import write_state
from fastdens.training import Recipe, predict
from fastdens.training.runs import load_predictions, load_run, subset_runs, train_runs
from tests.training.runs.folders import NAMES, RECIPE, contents, names_in

OTHER_EXAMPLES = subset_runs(3, 200, seed=4)[0]._replace(included=torch.arange(200) < 100)


def test_a_run_holds_the_network_that_made_its_predictions(whole, images):
    for t, name in enumerate(NAMES):
        generator = torch.get_rng_state()
        result = load_run(whole, name, images, device="cpu")
        assert torch.equal(torch.get_rng_state(), generator) and not result.model.training
        assert torch.equal(predict(result.model, images.train), result.train_predicted)
        assert torch.equal(predict(result.model, images.test), result.test_predicted)
        assert result.train_predicted.dtype == result.test_predicted.dtype == torch.int64
        run = subset_runs(3, 200, seed=4)[t]
        assert torch.equal(result.included, run.included) and result.metadata["seed"] == run.seed
        # The file says which stem was chosen.
        assert (
            Recipe(**result.metadata["recipe"]) == replace(RECIPE, stem="stride1") and result.metadata["threads"] == 1
        )
        for one, two in zip(load_predictions(whole, name), result[1:], strict=True):
            assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    # They were trained apart, on other examples from other weights.
    assert len({state.tensors["model.conv1.weight"].sum().item() for state in contents(whole).values()}) == 3


def test_files_keep_the_names_of_their_first_version(whole):
    for state in contents(whole).values():
        assert state.metadata["recipe"]["jitter"] is RECIPE.augment
        assert state.metadata["recipe"]["precision"] == RECIPE.dtype


def test_files_that_are_older_than_a_choice_have_its_first_value(tmp_path, whole, images):
    (name, state), *_ = contents(whole).items()
    later = {"schedule", "augmentation", "zero_init", "stem"}
    recipe = {field: value for field, value in state.metadata["recipe"].items() if field not in later}
    assert len(recipe) == len(state.metadata["recipe"]) - len(later)
    write_state(tmp_path / name, "training run", state.tensors, {**state.metadata, "recipe": recipe}, overwrite=False)
    run = subset_runs(3, 200, seed=4)[:1]
    before = (tmp_path / name).read_bytes()
    for same in (RECIPE, replace(RECIPE, stem="stride1")):
        train_runs(tmp_path, images, images.train_labels, run, same, device="cpu", progress=False)
    assert (tmp_path / name).read_bytes() == before
    found, expected = (load_run(folder, NAMES[0], images, device="cpu") for folder in (tmp_path, whole))
    assert found.metadata["recipe"] == expected.metadata["recipe"]
    assert torch.equal(predict(found.model, images.test), expected.test_predicted)
    linear = replace(RECIPE, schedule="linear")
    with pytest.raises(ValueError, match="of schedule = 'cosine', not 'linear'"):
        train_runs(tmp_path, images, images.train_labels, run, linear, device="cpu", progress=False)


def test_missing_runs_and_other_images_are_named(whole, images):
    for load in (lambda: load_run(whole, "network", images), lambda: load_predictions(whole, "network")):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*network.safetensors"):
            load()
    with pytest.raises(ValueError, match=r"is of a network for images of .*'classes': 10.*, not .*'classes': 3"):
        load_run(whole, NAMES[0], images._replace(class_names=("a", "b", "c")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(width=4, epochs=2)}, "memorization-0000.safetensors is a training run of epochs = 1, not 2"),
        ({"recipe": Recipe(width=4, epochs=1, noise=0.5)}, "noise = 0.0, not 0.5"),
        ({"recipe": Recipe(width=4, epochs=1, augment=False)}, "is a training run of another augment than False"),
        ({"recipe": replace(RECIPE, schedule="linear")}, "of schedule = 'cosine', not 'linear'"),
        ({"recipe": replace(RECIPE, augmentation="crop_flip")}, "of augmentation = 'affine', not 'crop_flip'"),
        ({"recipe": replace(RECIPE, zero_init=True)}, "of zero_init = False, not True"),
        ({"recipe": replace(RECIPE, stem="stride3")}, "of stem = 'stride1', not 'stride3'"),
        ({"labels": True}, "is a training run of other images or labels"),
        ({"runs": [OTHER_EXAMPLES]}, "another choice of training examples"),
        ({"seed": 5}, "is a training run of seed"),
        ({"damage": True}, "memorization-0000.safetensors is damaged"),
    ],
    ids=[
        "epochs",
        "noise",
        "augment",
        "schedule",
        "augmentation",
        "zero_init",
        "stem",
        "labels",
        "included",
        "seed",
        "damage",
    ],
)
def test_a_file_of_something_else_is_refused_before_training(tmp_path, whole, images, change, message):
    file = tmp_path / f"{NAMES[0]}.safetensors"
    content = bytearray((whole / file.name).read_bytes())
    content[-5] ^= "damage" in change
    file.write_bytes(content)
    runs = change.get("runs") or subset_runs(3, 200, seed=4)
    if "seed" in change:
        runs = [run._replace(seed=5) for run in runs]
    labels = images.train_labels.roll(1) if "labels" in change else images.train_labels
    with pytest.raises(ValueError, match=re.escape(message)):
        train_runs(tmp_path, images, labels, runs, change.get("recipe", RECIPE), device="cpu", progress=False)
    assert names_in(tmp_path) == [file.name]


def test_a_saved_run_names_no_code(tmp_path, images, whole):
    """A folder of runs that came from elsewhere: nothing in it gives the permission to run what it names."""
    marker, code = tmp_path / "ran", tmp_path / "code.py"
    code.write_text(f"open({str(marker)!r}, 'w').close()\ndef make_network(n): return None")
    (name, state), *_ = contents(whole).items()
    for network in (f"{code}:make_network", "math:factorial"):
        recipe = {**state.metadata["recipe"], "network": network, "stem": "auto", "allow_code": True}
        write_state(
            tmp_path / name, "training run", state.tensors, {**state.metadata, "recipe": recipe}, overwrite=True
        )
        with pytest.raises(ValueError, match="is Python code"):
            load_run(tmp_path, name.removesuffix(".safetensors"), images)
    assert not marker.exists()
    with pytest.raises(ValueError, match="returned int"):
        load_run(tmp_path, name.removesuffix(".safetensors"), images, allow_code=True)


def test_a_network_of_ones_own_is_trained_and_loaded_again(tmp_path, images):
    code = tmp_path / "mine.py"
    code.write_text("from torch import nn\ndef make(n): return nn.Sequential(nn.Flatten(), nn.Linear(64, n))")
    recipe, runs = replace(RECIPE, network=f"{code}:make"), subset_runs(1, 200, seed=4)
    folder, options = tmp_path / "runs", {"device": "cpu", "progress": False}
    with pytest.raises(ValueError, match="is Python code"):
        train_runs(folder, images, images.train_labels, runs, recipe, **options)
    allowed = replace(recipe, allow_code=True)
    train_runs(folder, images, images.train_labels, runs, allowed, **options)
    (state,) = contents(folder).values()
    assert "allow_code" not in state.metadata["recipe"]
    result = load_run(folder, NAMES[0], images, device="cpu", allow_code=True)
    assert torch.equal(predict(result.model, images.test), result.test_predicted)
