"""Many networks trained in processes, one file each in a folder, so that work that was stopped goes on."""

from fastdens.training.runs.training_runs import (
    Recipe,
    RunPredictions,
    RunResult,
    TrainingRun,
    left_out_runs,
    load_predictions,
    load_run,
    subset_runs,
    train_runs,
)

__all__ = [
    "Recipe",
    "RunPredictions",
    "RunResult",
    "TrainingRun",
    "left_out_runs",
    "load_predictions",
    "load_run",
    "subset_runs",
    "train_runs",
]
