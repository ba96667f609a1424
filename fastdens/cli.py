"""The command ``fastdens``: options become data, an analysis and a report.

Each option is a field of a dataclass, here or in :mod:`fastdens.pipeline.options`, with its default and, below it, its
help; cyclopts makes the arguments from them. An option that the user leaves out has the value of the protocol, of the
preset of the data set, or else the default of the field; :mod:`fastdens.pipeline.protocols` says which wins.
"""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np

try:
    from cyclopts import App, CycloptsError, Group, Parameter
    from cyclopts.config import Dict
except ImportError:
    sys.exit("fastdens: the command needs cyclopts, which is not installed: pip install 'fastdens[analysis]'.")

from fastdens.analysis import MemorizationScores, read_memorization_scores, summarize_scores
from fastdens.io.arrays import read_npy
from fastdens.io.atomic import atomic_write
from fastdens.io.index_lists import read_index_list, read_label_list
from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, OptionError
from fastdens.pipeline import analyze as run_analysis
from fastdens.pipeline import compare as compare_analyses
from fastdens.pipeline.costs import measure_costs
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.options import (
    DefinitionOptions,
    DensityOptions,
    ExtractionOptions,
    ImageOptions,
    MachineOptions,
    MemorizationOptions,
    NetworkOptions,
    Options,
    RangeError,
    RobustnessOptions,
    ScoreThresholds,
    belongs_to,
    check_density_options,
    option,
    resolve_device,
)
from fastdens.pipeline.plan import outlined_data, plan_analysis, plan_memorization
from fastdens.pipeline.plan_table import describe_plan
from fastdens.pipeline.presets import GPU_PRESETS, PRESETS, Preset, preset
from fastdens.pipeline.protocols import PROTOCOLS, ProtocolName
from fastdens.pipeline.summaries import describe_data, describe_layer, describe_score_summary, describe_scores
from fastdens.progress import Stages

# It has no opposite on the command line.
_Flag = Annotated[bool, Parameter(negative=())]

# Exit status of an error that nobody foresaw, and the variable that shows it whole.
FAULT = 70
_DEBUG = "FASTDENS_TRACEBACK"

# Options of images and networks that activations have too.
_OF_ACTIVATIONS_TOO = {"layers", "pooling", "examples", "label_list", "allow_pickle"}

# The folder in that of the report that holds the analysis it was drawn from.
_ANALYSIS = "analysis"


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

    overwrite: _Flag = False
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

    overwrite: _Flag = False
    """Replace an earlier file of scores."""


@dataclass(frozen=True)
class DryRun(Options):
    """What would be done."""

    plan: _Flag = False
    """Print what would be trained, fitted and certified, with the estimated time on this machine, and do nothing."""


def _group(title: str) -> Parameter:
    """Arguments under a title of the help, in the order of the calls, each named like its field."""
    return Parameter(name="*", group=Group.create_ordered(title))


_ACTIVATIONS = _group("Activations, in place of images and a network")
_IMAGES, _NETWORK = _group("Images"), _group("Network")
_DENSITIES, _DEFINITIONS = _group("Densities"), _group("Definitions")
_MEMORIZATION, _ROBUSTNESS = _group("Memorization"), _group("Robustness")
_MACHINE, _FILES, _DRY_RUN = _group("Machine"), _group("Files"), _group("Dry run")


def analyze(
    *,
    source: Annotated[ActivationFiles, _ACTIVATIONS] = ActivationFiles(),
    images: Annotated[ImageOptions, _IMAGES] = ImageOptions(),
    network: Annotated[AnalyzedNetwork, _NETWORK] = AnalyzedNetwork(),
    densities: Annotated[DensityOptions, _DENSITIES] = DensityOptions(),
    protocol: Annotated[ChosenProtocol, _DEFINITIONS] = ChosenProtocol(),
    definitions: Annotated[DefinitionOptions, _DEFINITIONS] = DefinitionOptions(),
    score_file: Annotated[ScoreFile, _MEMORIZATION] = ScoreFile(),
    estimation: Annotated[MemorizationOptions, _MEMORIZATION] = MemorizationOptions(),
    robustness: Annotated[RobustnessOptions, _ROBUSTNESS] = RobustnessOptions(),
    machine: Annotated[MachineOptions, _MACHINE] = MachineOptions(),
    files: Annotated[ReportFiles, _FILES] = ReportFiles(),
    dry_run: Annotated[DryRun, _DRY_RUN] = DryRun(),
) -> None:
    """Fit a density to every class at every layer of a network, and write a report.

    Networks already in the folder of runs are not trained again, so that an interrupted analysis continues.
    """
    from fastdens.report import check_output, write_report

    parts = (densities, definitions, estimation, robustness, machine)
    options = AnalysisOptions(**{name: value for part in parts for name, value in vars(part).items()})
    if not dry_run.plan:
        check_output(files.output, files.overwrite)
    if score_file.memorization is not None:
        # A file that cannot be read is told before anything is trained.
        read_memorization_scores(score_file.memorization, allow_pickle=images.allow_pickle)
    if source.activations is not None:
        data = outline = AnalysisData.from_activations(
            source.activations,
            source.test_activations,
            score_file.memorization,
            labels=None if images.label_list is None else read_label_list(images.label_list),
            examples=None if images.examples is None else read_index_list(images.examples),
            layers=network.layers,
            pooling=network.pooling,
            allow_pickle=images.allow_pickle,
        )
    else:
        experiment = Experiment.load(
            images, network, files.runs or files.output / "runs", machine.seed, outline=dry_run.plan
        )
        outline = outlined_data(
            experiment,
            seeds=network.seeds,
            from_file=network.weights is not None,
            layers=network.layers,
            scored=score_file.memorization is not None,
        )
    plan = plan_analysis(outline, options)
    if dry_run.plan:
        _echo(describe_plan(plan, measure_costs(plan, options)))
        return
    stages = Stages(plan.stages)
    if source.activations is None:
        data = AnalysisData.from_experiment(
            experiment,
            seeds=network.seeds,
            weights=network.weights,
            layers=network.layers,
            pooling=network.pooling,
            tokens=network.tokens,
            noise_images=network.noise_images,
            scores=score_file.memorization,
            allow_pickle=images.allow_pickle,
            machine=machine,
            stages=stages,
        )
    _echo(describe_data(data))
    analysis = run_analysis(data, options, on_layer=lambda layer: _echo(describe_layer(layer)), stages=stages)
    analysis.save(files.output / _ANALYSIS, overwrite=True)
    _echo(f"Report: {write_report(analysis, files.output)}")


def memorization(
    *,
    images: Annotated[ImageOptions, _IMAGES] = ImageOptions(),
    network: Annotated[NetworkOptions, _NETWORK] = NetworkOptions(),
    subsets: Annotated[SubsetNetworks, _MEMORIZATION] = SubsetNetworks(),
    machine: Annotated[MachineOptions, _MACHINE] = MachineOptions(),
    files: Annotated[ScoreFiles, _FILES] = ScoreFiles(),
    dry_run: Annotated[DryRun, _DRY_RUN] = DryRun(),
) -> None:
    """Train many networks on shares of the images, and write memorization scores.

    Any number of processes, started at any time with the same options, may work on the same folder of runs.
    """
    if files.output.exists() and not files.overwrite and not dry_run.plan:
        raise FileExistsError(f"{files.output} exists already: choose another --output or pass --overwrite.")
    experiment = Experiment.load(images, network, files.runs, machine.seed, outline=dry_run.plan)
    if dry_run.plan:
        plan = plan_memorization(experiment, subsets.networks, subsets.share, machine)
        _echo(describe_plan(plan, measure_costs(plan, AnalysisOptions(**vars(machine)))))
        return
    scores = experiment.estimate_scores(subsets.networks, subsets.share, machine)
    _write_scores(files, scores, experiment.labels.numpy())
    summary = describe_scores(scores, experiment.flipped.numpy(), subsets.networks, subsets.share)
    _echo(f"{experiment.name}: {summary} Scores: {files.output}")


def scores(
    file: Path,
    /,
    *,
    labels: Path | None = None,
    thresholds: Annotated[ScoreThresholds, _MEMORIZATION] = ScoreThresholds(),
) -> None:
    """Print what a file of memorization scores says, without images or activations.

    Parameters
    ----------
    file : Path
        .npz with tr_mem and, if it has them, tr_labels, or .npy.
    labels : Path or None
        .npy with the labels of the training examples; those of the file must agree with them.
    """
    found = read_memorization_scores(file, labels=None if labels is None else read_npy(labels))
    given = found.labels if labels is None else read_npy(labels)
    names, classes = (None, None) if given is None else np.unique(given, return_inverse=True)
    summary = summarize_scores(
        found.scores,
        classes,
        n_top=thresholds.label_examples,
        high=thresholds.kl_high,
        low=thresholds.kl_low,
        n_examples=thresholds.kl_examples,
    )
    _echo(describe_score_summary(summary, thresholds, None if names is None else [str(name) for name in names]))


def report(folder: Path, /, *, output: Path | None = None, overwrite: _Flag = False) -> None:
    """Draw the report of an earlier analysis again, without fitting anything.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    output : Path or None
        Another folder to draw it in.
    overwrite : bool
        Replace an earlier report in that other folder.
    """
    from fastdens.report import check_output, write_report

    analysis = Analysis.load(folder / _ANALYSIS)
    check_output(output or folder, overwrite or output is None)
    _echo(f"Report: {write_report(analysis, output or folder)}")


def compare(a: Path, b: Path, /, *, output: Path = Path("comparison"), overwrite: _Flag = False) -> None:
    """Set two analyses side by side: of two networks, two seeds, two densities or two protocols.

    Parameters
    ----------
    a, b : Path
        Folders of reports, or of saved analyses.
    output : Path
        Folder for comparison.html, its figures and numbers.csv.
    overwrite : bool
        Replace an earlier comparison in that folder.
    """
    from fastdens.report import check_comparison_output, write_comparison

    check_comparison_output(output, overwrite)
    comparison = compare_analyses(_load_analysis(a), _load_analysis(b), (str(a), str(b)))
    _echo(f"Comparison: {write_comparison(comparison, output)}")


def _load_analysis(folder: Path) -> Analysis:
    """The analysis in the folder of a report, or in this folder itself."""
    of_report = folder / _ANALYSIS
    return Analysis.load(of_report if of_report.is_dir() else folder)


def _write_scores(files: ScoreFiles, scores: MemorizationScores, labels: np.ndarray[Any, Any]) -> None:
    """An npz archive as the score files of Feldman & Zhang: ``tr_mem`` and ``tr_labels``, and their standard errors."""
    with atomic_write(files.output, overwrite=files.overwrite) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            tr_mem=scores.score.astype(np.float32),
            tr_labels=labels.astype(np.int32),
            tr_mem_standard_error=scores.standard_error.astype(np.float32),
            n_included=scores.n_included,
            n_left_out=scores.n_left_out,
        )


def _echo(text: str) -> None:
    print(text, flush=True)


def _settle(app: App, commands: tuple[str, ...], arguments: Any) -> None:
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
    return {**protocol.amounts, **protocol.training, **of_data, **protocol.definitions}


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


def _presets_in_words() -> str:
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
        f"and, where networks are trained: {in_words(published.training)}",
        "Defaults are the paper's settings. For the data sets that come with fastdens they are instead:",
    ]
    lines += [f"  {dataset}: {in_words(values)}" for dataset, values in PRESETS.items()]
    lines += [f"  {dataset}, on a GPU: {in_words(values)}" for dataset, values in GPU_PRESETS.items()]
    return "\n\n".join(lines)


def make_app() -> App:
    """The commands and their options."""
    app = App(
        name="fastdens",
        help="Densities of the classes of a network, by layer.",
        help_format="markdown",
        version_flags=[],
        config=_settle,
        # The last value of a repeated option counts, so that the options of a script can be overridden.
        default_parameter=Parameter(
            consume_multiple=True, negative_iterable=(), negative_none=(), allow_repeating=True
        ),
    )
    commands = ((analyze, _presets_in_words()), (memorization, None), (scores, None), (report, None), (compare, None))
    for command, epilogue in commands:
        app.command(command, help_epilogue=epilogue)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0, or 1 with one sentence on stderr.

    Raises
    ------
    SystemExit
        With status 2 if an option does not exist or is out of range.
    """
    try:
        command, bound, _ = make_app().parse_args(arguments or sys.argv[1:], exit_on_error=False, print_error=False)
        command(*bound.args, **bound.kwargs)
    except (CycloptsError, RangeError) as error:
        _complain(_in_flags(error))
        sys.exit(2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        _complain(_in_flags(error))
        return 1
    except MemoryError:
        _complain("there is not enough memory: analyze fewer --layers at a time, or fewer examples.")
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        _complain(
            f"this is a fault of fastdens, please report it ({type(error).__name__}: {error}): set {_DEBUG}=1 to see "
            "where it comes from."
        )
        return FAULT
    return 0


def _complain(text: str) -> None:
    print(f"fastdens: {' '.join(text.split())}", file=sys.stderr)


def _in_flags(error: Exception) -> str:
    """The message, with options as the command spells them."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename} cannot be used ({error.strerror}): check that it is there and that you may use it."
    for name in error.options if isinstance(error, OptionError) else ():
        text = re.sub(rf"(?<![\w-]){name}\b", f"--{name.replace('_', '-')}", text, count=1)
    return text
