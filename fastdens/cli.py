"""The command ``fastdens``: options become data, an analysis and a report.

Each option is a field of a dataclass, in :mod:`fastdens.cli_options` or :mod:`fastdens.pipeline.options`, with its
default and, below it, its help; cyclopts makes the arguments from them. An option that the user leaves out has the
value of the protocol, of the preset of the data set, or else the default of the field;
:mod:`fastdens.pipeline.protocols` says which wins.
"""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np

try:
    from cyclopts import App, CycloptsError, Group, Parameter
except ImportError:
    sys.exit("fastdens: the command needs cyclopts, which is not installed: pip install 'fastdens[analysis]'.")

from fastdens import distributed
from fastdens.analysis import MemorizationScores, read_memorization_scores, summarize_scores
from fastdens.cli_inputs import Inputs
from fastdens.cli_options import (
    ActivationFiles,
    AnalyzedNetwork,
    ChosenProtocol,
    DryRun,
    Flag,
    ReportFiles,
    ScoreFile,
    ScoreFiles,
    SubsetNetworks,
    presets_in_words,
    settle,
)
from fastdens.io.arrays import read_npy
from fastdens.io.atomic import atomic_write, check_place
from fastdens.io.locks import alone_in
from fastdens.pipeline import Analysis, AnalysisOptions, OptionError
from fastdens.pipeline import analyze as run_analysis
from fastdens.pipeline import compare as compare_analyses
from fastdens.pipeline.costs import measure_costs
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import (
    DefinitionOptions,
    DensityOptions,
    MachineOptions,
    MemorizationOptions,
    RangeError,
    RobustnessOptions,
    ScoreThresholds,
)
from fastdens.pipeline.plan import plan_analysis, plan_memorization
from fastdens.pipeline.plan_table import describe_plan
from fastdens.pipeline.summaries import describe_data, describe_layer, describe_score_summary, describe_scores
from fastdens.printable import printable
from fastdens.process_group import Group as Ranks
from fastdens.process_group import RankEndedError
from fastdens.progress import Stages

# Exit status of an error that nobody foresaw, and the variable that shows it whole.
FAULT = 70
_DEBUG = "FASTDENS_TRACEBACK"

# Folders in that of the report: the analysis that it was drawn from; what an analysis has finished so far, and the
# activations among that.
_ANALYSIS, _UNFINISHED, _EXTRACTED = "analysis", "unfinished", "activations"


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

    Started by torchrun, its processes divide the work, whatever their number.

    An analysis that was interrupted or killed goes on when it is called again with the same options: networks already
    in the folder of runs are not trained again, and what else is finished lies in the folder "unfinished" of the
    report, which goes when the report is written.
    """
    parts = (densities, definitions, estimation, robustness, machine)
    options = AnalysisOptions(**{name: value for part in parts for name, value in vars(part).items()})
    inputs = Inputs(source, images, network, score_file, machine, files.runs or files.output / "runs")
    if dry_run.plan:
        plan = plan_analysis(inputs.outline(inputs.open(outline=True, progress=False)), options)
        _echo(describe_plan(plan, measure_costs(plan, options)))
        return
    with distributed.job() as group:
        _analyze(inputs, options, files, group)


def _analyze(inputs: Inputs, options: AnalysisOptions, files: ReportFiles, group: Ranks) -> None:
    """Analyze, on all ranks of a job; rank 0 shows progress and writes."""
    from fastdens.report import check_output, write_report

    is_first = group.rank == 0
    with ExitStack() as stack:
        with group.together():
            if is_first:
                stack.enter_context(alone_in(files.output))
                check_output(files.output, files.overwrite)
        with group.together():
            opened = inputs.open(progress=is_first)
            stages = Stages(plan_analysis(inputs.outline(opened), options).stages, shown=is_first)
        unfinished = files.output / _UNFINISHED
        data = inputs.data(opened, stages, unfinished / _EXTRACTED, progress=is_first)
        if is_first:
            _echo(describe_data(data))
        analysis = run_analysis(
            data,
            options,
            is_first,
            on_layer=(lambda layer: _echo(describe_layer(layer))) if is_first else None,
            stages=stages,
            checkpoint=unfinished,
        )
        with group.together():
            if is_first:
                analysis.save(files.output / _ANALYSIS, overwrite=True)
                page = write_report(analysis, files.output)
                shutil.rmtree(unfinished, ignore_errors=True)
                _echo(f"Report: {page}")


def memorization(
    *,
    images: Annotated[ImageOptions, _IMAGES] = ImageOptions(),
    network: Annotated[NetworkOptions, _NETWORK] = NetworkOptions(),
    protocol: Annotated[ChosenProtocol, _NETWORK] = ChosenProtocol(),
    subsets: Annotated[SubsetNetworks, _MEMORIZATION] = SubsetNetworks(),
    machine: Annotated[MachineOptions, _MACHINE] = MachineOptions(),
    files: Annotated[ScoreFiles, _FILES] = ScoreFiles(),
    dry_run: Annotated[DryRun, _DRY_RUN] = DryRun(),
) -> None:
    """Train many networks on shares of the images, and write memorization scores.

    Any number of processes, started at any time with the same options or by torchrun, may work on the same folder of
    runs.
    """
    if dry_run.plan:
        experiment = Experiment.load(images, network, files.runs, machine.seed, outline=True, progress=False)
        plan = plan_memorization(experiment, subsets.networks, subsets.share, machine)
        _echo(describe_plan(plan, measure_costs(plan, AnalysisOptions(**vars(machine)))))
        return
    with distributed.job() as group:
        is_first = group.rank == 0
        with group.together():
            if files.output.exists() and not files.overwrite:
                raise FileExistsError(f"{files.output} exists already: choose another --output or pass --overwrite.")
            check_place(files.output)
        with group.together():
            experiment = Experiment.load(images, network, files.runs, machine.seed, progress=is_first)
        scores = experiment.estimate_scores(subsets.networks, subsets.share, machine, progress=is_first)
        with group.together():
            if is_first:
                _write_scores(files, scores, experiment.labels.numpy())
                summary = describe_scores(scores, experiment.flipped.numpy(), subsets.networks, subsets.share)
                _echo(f"{experiment.name}: {summary} Scores: {files.output}")


def scores(
    file: Path,
    /,
    *,
    labels: Path | None = None,
    allow_pickle: Flag = False,
    thresholds: Annotated[ScoreThresholds, _MEMORIZATION] = ScoreThresholds(),
) -> None:
    """Print what a file of memorization scores says, without images or activations.

    Parameters
    ----------
    file : Path
        .npz with tr_mem and, if it has them, tr_labels, or .npy.
    labels : Path or None
        .npy with the labels of the training examples; those of the file must agree with them.
    allow_pickle : bool
        Read Python objects in the file, by a reader that makes arrays, numbers and text of them and runs nothing.
    """
    own = None if labels is None else read_npy(labels)
    found = read_memorization_scores(file, labels=own, allow_pickle=allow_pickle)
    given = found.labels if own is None else own
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


def report(folder: Path, /, *, output: Path | None = None, overwrite: Flag = False) -> None:
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
    with alone_in(output or folder):
        check_output(output or folder, overwrite or output is None)
        _echo(f"Report: {write_report(analysis, output or folder)}")


def compare(a: Path, b: Path, /, *, output: Path = Path("comparison"), overwrite: Flag = False) -> None:
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

    with alone_in(output):
        check_comparison_output(output, overwrite)
        comparison = compare_analyses(_load_analysis(a), _load_analysis(b), (str(a), str(b)))
        _echo(f"Comparison: {write_comparison(comparison, output)}")


def _load_analysis(folder: Path) -> Analysis:
    """The analysis in the folder of a report, or in this folder itself."""
    of_report = folder / _ANALYSIS
    return Analysis.load(of_report if of_report.is_dir() else folder)


def _write_scores(files: ScoreFiles, scores: MemorizationScores, labels: np.ndarray[Any, Any]) -> None:
    """An npz archive as the score files of Feldman & Zhang: ``tr_mem`` and ``tr_labels``, and their standard errors.

    Another process of the same command may have written the same scores since this one began.
    """
    archive = io.BytesIO()
    np.savez(
        archive,
        tr_mem=scores.score.astype(np.float32),
        tr_labels=labels.astype(np.int32),
        tr_mem_standard_error=scores.standard_error.astype(np.float32),
        n_included=scores.n_included,
        n_left_out=scores.n_left_out,
    )
    content = archive.getvalue()
    if files.output.is_file() and files.output.read_bytes() == content:
        return
    with atomic_write(files.output, overwrite=files.overwrite) as partial:
        partial.write_bytes(content)


def _echo(text: str) -> None:
    print(printable(text), flush=True)


def make_app() -> App:
    """The commands and their options."""
    app = App(
        name="fastdens",
        help="Densities of the classes of a network, by layer.",
        help_format="markdown",
        version_flags=[],
        config=settle,
        # The last value of a repeated option counts, so that the options of a script can be overridden.
        default_parameter=Parameter(
            consume_multiple=True, negative_iterable=(), negative_none=(), allow_repeating=True
        ),
    )
    commands = ((analyze, presets_in_words()), (memorization, None), (scores, None), (report, None), (compare, None))
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
    except (ValueError, TypeError, OSError, ImportError, RankEndedError) as error:
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
    print(f"fastdens: {printable(' '.join(text.split()))}", file=sys.stderr)


def _in_flags(error: Exception) -> str:
    """The message, with options as the command spells them."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename} cannot be used ({error.strerror}): check that it is there and that you may use it."
    for name in error.options if isinstance(error, OptionError) else ():
        text = re.sub(rf"(?<![\w-]){name}\b", f"--{name.replace('_', '-')}", text, count=1)
    return text
