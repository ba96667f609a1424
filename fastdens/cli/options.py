"""Options of the command: those of files, what is taken for one that is left out, and which exclude each other.

The other options are in :mod:`fastdens.pipeline.options`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.config import Dict

from fastdens.pipeline.experiment_options import ExtractionOptions, ImageOptions, NetworkOptions
from fastdens.pipeline.options import (
    DensityOptions,
    MachineOptions,
    OptionError,
    Options,
    belongs_to,
    check_density_options,
    option,
    resolve_device,
)
from fastdens.pipeline.presets import GPU_PRESETS, PRESETS, Preset, preset
from fastdens.pipeline.protocols import PROTOCOLS, ProtocolName

Flag = Annotated[bool, Parameter(negative=())]
"""A switch that has no opposite on the command line."""

# Options of images and networks that activations have too.
_OF_ACTIVATIONS_TOO = {"layers", "pooling", "examples", "label_list", "allow_pickle"}


@dataclass(frozen=True)
class ActivationFiles(Options):
    """Activations of a network, in place of images and a network."""

    activations: Path | None = None
    """Folder with one .npy [N, D] for each layer, or avg_pooling_LAYER_acts.npy, and labels.npy, integers or names, of
    the training examples; without it the labels are those of --memorization."""

    test_activations: Path | None = None
    """The same for test examples."""


@dataclass(frozen=True)
class AnalyzedNetwork(ExtractionOptions, NetworkOptions):
    """The network whose layers are analyzed."""

    weights: Path | None = None
    """File with weights of the network (.pt, .pth, .safetensors), which is then not trained."""

    seeds: int = option(1, at_least=1)
    """Networks to train from different seeds, to compare their groups of classes."""


@dataclass(frozen=True)
class ChosenProtocol(Options):
    """Where the options come from that the user leaves out."""

    protocol: ProtocolName = "exact"
    """Definitions and settings where options leave them open: exact, or those of the code published with the paper."""


@dataclass(frozen=True)
class ScoreFile(Options):
    """Existing memorization scores."""

    memorization: Path | None = None
    """File of memorization scores: .npz with tr_mem and tr_labels, or .npy, one for each training example."""


@dataclass(frozen=True)
class ReportFiles(Options):
    """Where the report goes."""

    runs: Path | None = None
    """Folder of trained networks, which are not trained again; by default runs in that of the report."""

    output: Path = Path("report")
    """Folder for report.html and the files beside it."""

    overwrite: Flag = False
    """Replace an earlier report in that folder."""


@dataclass(frozen=True)
class SubsetNetworks(Options):
    """Networks that each see a share of the images."""

    networks: int = option(40, at_least=1)
    """Networks to train; more can be added later."""

    share: float = option(0.7, at_least=0, less_than=1)
    """Share of the training images that each network sees."""


@dataclass(frozen=True)
class ScoreFiles(Options):
    """Where the scores go."""

    runs: Path = Path("runs")
    """Folder of trained networks, which are not trained again."""

    output: Path = Path("memorization.npz")
    """File for tr_mem, tr_labels and standard errors."""

    overwrite: Flag = False
    """Replace an earlier file of scores."""


@dataclass(frozen=True)
class DryRun(Options):
    """What would be done."""

    plan: Flag = False
    """Print what would be trained, fitted and certified, with the estimated time on this machine, and do nothing."""


def settle(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Refuse options that exclude each other, and take those that were not given from the protocol and the preset."""
    known = {argument.field_info.name: argument for argument in arguments}
    given = {name: argument.tokens[0].value for name, argument in known.items() if argument.tokens}
    if "dataset" not in known:
        return
    if "density" in known:
        _check_exclusions(given)
    values = _values_of_protocol(given)
    density = given.get("density", DensityOptions.density)
    chosen = {name: value for name, value in values.items() if name in known and belongs_to(name, density)}
    if "memorization" in given:
        # Scores that are there need no networks.
        chosen.pop("memorization_networks", None)
    if "label_list" in given:
        chosen.pop("flip", None)
    if given.keys() & {"network", "width", "weights", "layers"}:
        # The dimensions of a preset are those of the layers of its network.
        chosen.pop("dimensions", None)
    Dict(chosen, source="protocol or preset", use_commands_as_keys=False)(app, commands, arguments)


def _values_of_protocol(given: dict[str, str]) -> dict[str, Any]:
    """Options of the protocol and the data set, by name; a protocol that does not exist is left to be refused."""
    protocol = PROTOCOLS.get(given.get("protocol", ChosenProtocol.protocol), PROTOCOLS[ChosenProtocol.protocol])
    if "activations" in given:
        return {**protocol.amounts, **protocol.definitions}
    device = resolve_device(given.get("device", MachineOptions.device))
    of_data = preset(given.get("dataset", ImageOptions.dataset), device)
    # The recipe of a preset is a whole.
    training = {} if of_data else protocol.training
    return {**protocol.amounts, **training, **of_data, **protocol.definitions}


def _check_exclusions(given: dict[str, str]) -> None:
    """Refuse options that exclude each other.

    Raises
    ------
    OptionError
    """
    check_density_options(given.get("density", DensityOptions.density), given)
    of_images = {own.name for own in (*fields(ImageOptions), *fields(AnalyzedNetwork))} - _OF_ACTIVATIONS_TOO
    for name in given:
        if name in of_images and "activations" in given:
            raise OptionError(
                f"{name} asks for a network, but activations has only what one gave: leave one of the two out.",
                *(name, "activations"),
            )
    if "test_activations" in given and "activations" not in given:
        raise OptionError(
            "test_activations goes with activations: pass both, or a dataset.",
            *("test_activations", "activations", "dataset"),
        )
    for one, has, other, would in (
        ("memorization", "has scores", "memorization_networks", "would estimate them"),
        ("weights", "has a trained network", "epochs", "would train one"),
    ):
        if one in given and other in given and given[other] != "0":
            raise OptionError(f"{one} {has} and {other} {would}: leave one of the two out.", one, other)


def presets_in_words() -> str:
    """The protocols and presets, as options of the command."""

    def in_words(values: Preset) -> str:
        words = []
        for name, value in values.items():
            words.append(f"--{'' if value is not False else 'no-'}{name.replace('_', '-')}")
            if not isinstance(value, bool):
                words += map(str, value if isinstance(value, tuple) else (value,))
        return " ".join(words)

    published = PROTOCOLS["published"]
    lines = [
        f"With --protocol published: {in_words({**published.definitions, **published.amounts})}",
        f"and, where networks are trained on other data than those below: {in_words(published.training)}",
        "Defaults are the paper's settings. For the data sets that come with fastdens they are instead:",
    ]
    lines += [f"  {dataset}: {in_words(values)}" for dataset, values in PRESETS.items()]
    lines += [f"  {dataset}, on a GPU: {in_words(values)}" for dataset, values in GPU_PRESETS.items()]
    return "\n\n".join(lines)
