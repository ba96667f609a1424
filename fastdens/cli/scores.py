"""``fastdens scores``: what a file of memorization scores says."""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np

from fastdens.analysis import read_memorization_scores, summarize_scores
from fastdens.cli import help_groups
from fastdens.cli.options import Flag
from fastdens.cli.output import Output
from fastdens.io.arrays import read_npy
from fastdens.pipeline.options import ScoreThresholds
from fastdens.pipeline.summaries import describe_score_summary, score_summary_in_numbers


def scores(
    file: Path,
    /,
    *,
    labels: Path | None = None,
    allow_pickle: Flag = False,
    thresholds: Annotated[ScoreThresholds, help_groups.MEMORIZATION] = ScoreThresholds(),
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
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
    told = summary, thresholds, None if names is None else [str(name) for name in names]
    prints.line(describe_score_summary(*told))
    prints.document("scores", file=file, **score_summary_in_numbers(*told))
