"""The folder of trained networks: one file a run, which knows the recipe, the data and the examples it is of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastdens.io.expected import check_tensors
from fastdens.io.state_file import SavedState, StateFile, read_state
from fastdens.training.datasets import Images
from fastdens.training.networks import build_network, stem_of
from fastdens.training.recipe import Recipe
from fastdens.training.runs.plan import TrainingRun

_KIND = "training run"
_WEIGHTS = "model."
# What a file calls the fields of a recipe that have another name there.
_NAMES_IN_FILES = {"augment": "jitter", "dtype": "precision"}


class RunPredictions(NamedTuple):
    """The predictions of a trained network.

    Attributes
    ----------
    included : Tensor
        bool [N], the training examples that the network saw.
    train_predicted, test_predicted : Tensor
        int64 [N] each, the labels that it assigns to all training and all test images.
    metadata : dict
        Its recipe and seed, the fingerprints of its data and examples, and the number of threads that trained it.
    """

    included: Tensor
    train_predicted: Tensor
    test_predicted: Tensor
    metadata: dict[str, Any]


class RunResult(NamedTuple):
    """A trained network and its predictions.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode.
    included, train_predicted, test_predicted, metadata
        As in :class:`RunPredictions`.
    """

    model: nn.Module
    included: Tensor
    train_predicted: Tensor
    test_predicted: Tensor
    metadata: dict[str, Any]


class InputShape(NamedTuple):
    """The sizes of the data that decide those of a network.

    Attributes
    ----------
    channels : int
        Of an image.
    size : int
        Height and width of an image.
    classes : int
        Outputs of the network.
    """

    channels: int
    size: int
    classes: int

    @classmethod
    def of(cls, images: Images) -> InputShape:
        """The sizes of images and of their classes.

        Parameters
        ----------
        images : Images
            A data set.

        Returns
        -------
        InputShape
            Its sizes.
        """
        return cls(images.train.shape[1], images.train.shape[-1], len(images.class_names))


def load_run(
    folder: str | os.PathLike[str],
    name: str,
    images: Images,
    *,
    device: str | torch.device | None = None,
    allow_code: bool = False,
) -> RunResult:
    """Load a network that :func:`fastdens.training.runs.train_runs` trained.

    Parameters
    ----------
    folder : path-like
        The folder of runs.
    name : str
        Of the run.
    images : Images
        The images that it was trained on, which decide the size of the network.
    device : str or torch.device, optional
        Where to put the network; by default on a GPU where there is one.
    allow_code : bool
        Run the Python code that the file names, if the network is one of the user's own.

    Returns
    -------
    RunResult
        The network and its predictions.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    ValueError
        If the file is damaged, belongs to other images, or names code and ``allow_code`` is False.
    ImportError
        If safetensors is missing.
    """
    path = run_path(folder, name)
    state = _read(path)
    recipe = Recipe(**{**state.metadata["recipe"], "allow_code": allow_code})
    shape = InputShape.of(images)
    if state.metadata["shape"] != shape._asdict():
        raise ValueError(
            f"{path} is of a network for images of {state.metadata['shape']}, not {shape._asdict()}: pass the images "
            "that it was trained on."
        )
    model = new_network(recipe, shape)
    weights = {key.removeprefix(_WEIGHTS): value for key, value in state.tensors.items() if key.startswith(_WEIGHTS)}
    model.load_state_dict(weights)
    model.to(choose_devices(device)[0]).eval()
    return RunResult(model, *_predictions(state))


def load_predictions(folder: str | os.PathLike[str], name: str) -> RunPredictions:
    """Load the predictions of a network that :func:`fastdens.training.runs.train_runs` trained, without the network.

    Parameters
    ----------
    folder : path-like
        The folder of runs.
    name : str
        Of the run.

    Returns
    -------
    RunPredictions
        Those of the training and the test images.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    ValueError
        If the file is damaged.
    ImportError
        If safetensors is missing.
    """
    return _predictions(_read(run_path(folder, name)))


def save_run(
    file: StateFile, model: nn.Module, included: Tensor, train_predicted: Tensor, test_predicted: Tensor
) -> None:
    """Write a trained network and its predictions to the file of its run."""
    tensors = {f"{_WEIGHTS}{name}": value for name, value in model.state_dict().items()}
    predictions = {"included": included, "train_predicted": train_predicted, "test_predicted": test_predicted}
    file.write({**tensors, **predictions}, {"threads": torch.get_num_threads()})


def run_path(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a run's file.

    Parameters
    ----------
    folder : path-like
        The folder of runs.
    name : str
        Of the run.

    Returns
    -------
    Path
        ``folder/NAME.safetensors``.
    """
    return Path(folder) / f"{name}.safetensors"


def run_file(folder: Path, run: TrainingRun, recipe: Recipe, shape: InputShape, data: Mapping[str, str]) -> StateFile:
    """The file of a run, which belongs to a recipe, a seed and fingerprints of the data; see :func:`check_run`.

    Of several fingerprints a file may have one: the other was not known where it was written.
    """
    chosen = {**asdict(recipe), "stem": stem_of(recipe.network, recipe.stem, shape.size)}
    del chosen["allow_code"]
    identity = {
        "recipe": {_NAMES_IN_FILES.get(name, name): value for name, value in chosen.items()},
        **data,
        "seed": run.seed,
        "shape": shape._asdict(),
    }
    differences = dict.fromkeys(data, "other images or labels")
    for name, in_file in _NAMES_IN_FILES.items():
        differences[in_file] = f"another {name} than {getattr(recipe, name)!r}"
    return StateFile(
        run_path(folder, run.name),
        _KIND,
        identity,
        differences,
        "delete it or use another folder",
        absent={**_fields_of_earlier_files(recipe.network), **(data if len(data) > 1 else {})},
    )


def _fields_of_earlier_files(network: str) -> dict[str, Any]:
    """The fields of a recipe that files lack which are older than the choice."""
    later = ("schedule", "augmentation", "zero_init")
    return {name: getattr(Recipe, name) for name in later} | {"stem": stem_of(network, "stride1", 0)}


def check_run(file: StateFile, run: TrainingRun) -> None:
    """Raise a ValueError if the file holds anything but the network of this run."""
    if not torch.equal(file.read().tensors["included"], run.included):
        raise ValueError(f"{file.path} is a {file.kind} of another choice of training examples: {file.remedy}.")


def new_network(recipe: Recipe, shape: InputShape) -> nn.Module:
    """A network with random weights; torch's global generator stays as it was.

    Parameters
    ----------
    recipe : Recipe
        Which network.
    shape : InputShape
        The sizes of its inputs and outputs.

    Returns
    -------
    nn.Module
        On the CPU.
    """
    with torch.random.fork_rng([]):
        return build_network(
            recipe.network,
            shape.classes,
            shape.channels,
            width=recipe.width,
            image_size=shape.size,
            stem=recipe.stem,
            zero_init=recipe.zero_init,
            allow_code=recipe.allow_code,
        )


def choose_devices(device: str | torch.device | None) -> list[torch.device]:
    """The device asked for, or all the GPUs, or the CPU."""
    if device is not None:
        return [torch.device(device)]
    n_gpus = torch.cuda.device_count()
    return [torch.device("cuda", gpu) for gpu in range(n_gpus)] if n_gpus else [torch.device("cpu")]


def _predictions(state: SavedState) -> RunPredictions:
    tensors = state.tensors
    return RunPredictions(tensors["included"], tensors["train_predicted"], tensors["test_predicted"], state.metadata)


def _read(path: Path) -> SavedState:
    state = read_state(path, _KIND)
    predictions = {"included": "bool N", "train_predicted": "int N", "test_predicted": "int T"}
    check_tensors(str(path), state.tensors, predictions)
    match state.metadata:
        case {"recipe": {"network": str()}, "shape": {}}:
            pass
        case _:
            raise ValueError(f"{path} does not say how its network was trained: delete it.")
    names = {in_file: name for name, in_file in _NAMES_IN_FILES.items()}
    recipe = {names.get(name, name): value for name, value in state.metadata["recipe"].items()}
    earlier = _fields_of_earlier_files(recipe["network"])
    return state._replace(metadata={**state.metadata, "recipe": {**earlier, **recipe}})
