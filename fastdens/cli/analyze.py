"""``fastdens analyze``: from images or activations to a report."""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import Annotated

from fastdens import distributed
from fastdens.cli import help_groups
from fastdens.cli.inputs import Inputs
from fastdens.cli.interrupts import goes_on
from fastdens.cli.options import (
    ActivationFiles,
    AnalyzedNetwork,
    ChosenProtocol,
    DryRun,
    ReportFiles,
    ScoreFile,
)
from fastdens.cli.output import Output
from fastdens.io.locks import alone_in
from fastdens.pipeline import AnalysisOptions
from fastdens.pipeline import analyze as run_analysis
from fastdens.pipeline.costs import measure_costs
from fastdens.pipeline.experiment_options import ImageOptions
from fastdens.pipeline.options import (
    DefinitionOptions,
    DensityOptions,
    MachineOptions,
    MemorizationOptions,
    RobustnessOptions,
)
from fastdens.pipeline.plan import plan_analysis
from fastdens.pipeline.plan_table import describe_plan, plan_in_numbers
from fastdens.pipeline.summaries import describe_data, describe_layer
from fastdens.process_group import Group
from fastdens.progress import Stages

ANALYSIS = "analysis"
"""Folder in that of the report: the analysis that it was drawn from."""

# Folders there: what an analysis has finished so far, and the activations among that.
_UNFINISHED, _EXTRACTED = "unfinished", "activations"


def analyze(
    *,
    source: Annotated[ActivationFiles, help_groups.ACTIVATIONS] = ActivationFiles(),
    images: Annotated[ImageOptions, help_groups.IMAGES] = ImageOptions(),
    network: Annotated[AnalyzedNetwork, help_groups.NETWORK] = AnalyzedNetwork(),
    densities: Annotated[DensityOptions, help_groups.DENSITIES] = DensityOptions(),
    protocol: Annotated[ChosenProtocol, help_groups.DEFINITIONS] = ChosenProtocol(),
    definitions: Annotated[DefinitionOptions, help_groups.DEFINITIONS] = DefinitionOptions(),
    score_file: Annotated[ScoreFile, help_groups.MEMORIZATION] = ScoreFile(),
    estimation: Annotated[MemorizationOptions, help_groups.MEMORIZATION] = MemorizationOptions(),
    robustness: Annotated[RobustnessOptions, help_groups.ROBUSTNESS] = RobustnessOptions(),
    machine: Annotated[MachineOptions, help_groups.MACHINE] = MachineOptions(),
    files: Annotated[ReportFiles, help_groups.FILES] = ReportFiles(),
    dry_run: Annotated[DryRun, help_groups.DRY_RUN] = DryRun(),
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
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
        costs = measure_costs(plan, options)
        prints.line(describe_plan(plan, costs))
        prints.document("analyze --plan", **plan_in_numbers(plan, costs))
        return
    with goes_on(), distributed.job() as group:
        _analyze(inputs, options, files, group, prints)


def _analyze(inputs: Inputs, options: AnalysisOptions, files: ReportFiles, group: Group, prints: Output) -> None:
    """Analyze, on all ranks of a job; rank 0 shows progress, prints and writes."""
    from fastdens.report import check_output, metrics_of, write_report

    is_first = group.rank == 0
    progress = is_first and prints.progress
    with ExitStack() as stack:
        with group.together():
            if is_first:
                stack.enter_context(alone_in(files.output))
                check_output(files.output, files.overwrite)
        with group.together():
            opened = inputs.open(progress=progress)
            stages = Stages(plan_analysis(inputs.outline(opened), options).stages, shown=progress)
        unfinished = files.output / _UNFINISHED
        data = inputs.data(opened, stages, unfinished / _EXTRACTED, progress=progress)
        if is_first:
            prints.line(describe_data(data))
        analysis = run_analysis(
            data,
            options,
            progress,
            on_layer=(lambda layer: prints.line(describe_layer(layer))) if is_first else None,
            stages=stages,
            checkpoint=unfinished,
        )
        with group.together():
            if is_first:
                analysis.save(files.output / ANALYSIS, overwrite=True)
                page = write_report(analysis, files.output)
                shutil.rmtree(unfinished, ignore_errors=True)
                prints.line(f"Report: {page}")
                prints.document("analyze", report=page, numbers=metrics_of(analysis).in_numbers())
