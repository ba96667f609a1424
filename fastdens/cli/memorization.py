"""``fastdens memorization``: memorization scores, by networks that each see a share of the images."""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np

from fastdens import distributed
from fastdens.analysis import MemorizationScores
from fastdens.cli import help_groups
from fastdens.cli.interrupts import goes_on
from fastdens.cli.options import ChosenProtocol, DryRun, ScoreFiles, SubsetNetworks
from fastdens.cli.output import Output
from fastdens.io.atomic import atomic_write, check_place
from fastdens.pipeline import AnalysisOptions
from fastdens.pipeline.costs import measure_costs
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.plan import plan_memorization
from fastdens.pipeline.plan_table import describe_plan, plan_in_numbers
from fastdens.pipeline.summaries import describe_scores, scores_in_numbers


def memorization(
    *,
    images: Annotated[ImageOptions, help_groups.IMAGES] = ImageOptions(),
    network: Annotated[NetworkOptions, help_groups.NETWORK] = NetworkOptions(),
    protocol: Annotated[ChosenProtocol, help_groups.NETWORK] = ChosenProtocol(),
    subsets: Annotated[SubsetNetworks, help_groups.MEMORIZATION] = SubsetNetworks(),
    machine: Annotated[MachineOptions, help_groups.MACHINE] = MachineOptions(),
    files: Annotated[ScoreFiles, help_groups.FILES] = ScoreFiles(),
    dry_run: Annotated[DryRun, help_groups.DRY_RUN] = DryRun(),
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
) -> None:
    """Train many networks on shares of the images, and write memorization scores.

    Any number of processes, started at any time with the same options or by torchrun, may work on the same folder of
    runs.
    """
    if dry_run.plan:
        experiment = Experiment.load(images, network, files.runs, machine.seed, outline=True, progress=False)
        plan = plan_memorization(experiment, subsets.networks, subsets.share, machine)
        costs = measure_costs(plan, AnalysisOptions(**vars(machine)))
        prints.line(describe_plan(plan, costs))
        prints.document("memorization --plan", **plan_in_numbers(plan, costs))
        return
    with goes_on(), distributed.job() as group:
        is_first = group.rank == 0
        progress = is_first and prints.progress
        with group.together():
            if files.output.exists() and not files.overwrite:
                raise FileExistsError(f"{files.output} exists already: choose another --output or pass --overwrite.")
            check_place(files.output)
        with group.together():
            experiment = Experiment.load(images, network, files.runs, machine.seed, progress=progress)
        scores = experiment.estimate_scores(subsets.networks, subsets.share, machine, progress=progress)
        with group.together():
            if is_first:
                _write_scores(files, scores, experiment.labels.numpy())
                told = scores, experiment.flipped.numpy(), subsets.networks, subsets.share
                prints.line(f"{experiment.name}: {describe_scores(*told)} Scores: {files.output}")
                prints.document("memorization", scores=files.output, **scores_in_numbers(*told))


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
