"""Many networks trained in parallel, one file each in a folder, so that interrupted work can be resumed."""

from fastdens.training.recipe import Recipe
from fastdens.training.runs.job import train_by_recipe
from fastdens.training.runs.plan import TrainingRun, left_out_runs, subset_runs
from fastdens.training.runs.store import (
    InputShape,
    RunPredictions,
    RunResult,
    load_predictions,
    load_run,
    new_network,
    run_path,
)
from fastdens.training.runs.workers import train_runs

__all__ = [
    "InputShape",
    "Recipe",
    "RunPredictions",
    "RunResult",
    "TrainingRun",
    "left_out_runs",
    "load_predictions",
    "load_run",
    "new_network",
    "run_path",
    "subset_runs",
    "train_by_recipe",
    "train_runs",
]
