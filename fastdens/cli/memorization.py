"""Memorization scores of the training examples, by many networks that each see a share of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdens.analysis.memorization import MemorizationScores, memorization_scores
from fastdens.cli.layer_analysis import auc
from fastdens.cli.network_subject import images_and_labels, recipe_of
from fastdens.cli.options import MemorizationOptions
from fastdens.io.atomic import written_whole
from fastdens.training.datasets import Images
from fastdens.training.recipe import FlippedLabels
from fastdens.training.runs import Recipe, load_predictions, subset_runs, train_runs

# Feldman & Zhang call an example memorized from here on.
_MEMORIZED = 0.25


def memorization(options: MemorizationOptions) -> MemorizationScores:
    """Train the networks that are not in the folder of runs yet, estimate the scores and write them to a file.

    The file is an npz archive of ``tr_mem`` float32 [N], as in the score files of Feldman & Zhang; ``tr_labels`` int32
    [N], the labels that the networks were trained with; ``tr_mem_standard_error`` float32 [N]; and ``n_included`` and
    ``n_left_out`` int64 [N], networks that saw each example and that did not.

    Raises
    ------
    FileExistsError
        If the output exists and may not be replaced; this is found out before training.
    ValueError, OSError
        If an option is wrong, a data set is missing, or the folder has runs of other options.
    """
    options = options.with_defaults()
    if options.output.exists() and not options.overwrite:
        raise FileExistsError(f"{options.output} exists already: choose another --output or pass --overwrite.")
    images, given = images_and_labels(options)
    recipe = recipe_of(options, batch_size=options.batch_size, dtype=options.dtype)
    scores = estimate_scores(
        images,
        given.labels,
        recipe,
        folder=options.runs,
        n_networks=options.networks,
        share=options.share,
        seed=options.seed,
        processes=options.processes or 1,
        device=options.device,
    )
    with written_whole(options.output, overwrite=options.overwrite) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            tr_mem=scores.score.astype(np.float32),
            tr_labels=given.labels.numpy().astype(np.int32),
            tr_mem_standard_error=scores.standard_error.astype(np.float32),
            n_included=scores.n_included,
            n_left_out=scores.n_left_out,
        )
    print(_summary(options, scores, given), flush=True)
    return scores


def estimate_scores(
    images: Images,
    labels: Tensor,
    recipe: Recipe,
    *,
    folder: Path,
    n_networks: int,
    share: float = 0.7,
    seed: int = 0,
    processes: int = 1,
    device: str | None = None,
    progress: bool = True,
) -> MemorizationScores:
    """Memorization score of every training example, by networks in ``folder``, trained where they are not there yet.

    Parameters
    ----------
    images : Images
    labels : Tensor
        int64 [N], the labels that the networks are trained with.
    recipe, folder, processes, device, progress
        As :func:`fastdens.training.runs.training_runs.train_runs` takes them.
    n_networks, share, seed
        As :func:`fastdens.training.runs.training_runs.subset_runs` takes them.
    """
    runs = subset_runs(n_networks, len(labels), share, seed)
    train_runs(folder, images, labels, runs, recipe, processes=processes, device=device, progress=progress)
    correct: NDArray[np.bool_] = np.empty((n_networks, len(labels)), bool)
    for t, run in enumerate(runs):
        correct[t] = load_predictions(folder, run.name).train_predicted == labels
    return memorization_scores(correct, np.stack([run.included.numpy() for run in runs]))


def _summary(options: MemorizationOptions, scores: MemorizationScores, given: FlippedLabels) -> str:
    known = np.isfinite(scores.score)
    sentences = [
        f"{options.dataset}: memorization of {len(known)} training examples, by {options.networks} networks that each "
        f"saw {options.share:.0%} of them."
    ]
    if not known.all():
        sentences.append(
            f"{int((~known).sum())} examples have no score, as all networks saw them or none did: more --networks give "
            "them one."
        )
    if known.any():
        score = scores.score[known]
        sentences.append(
            f"The mean score is {score.mean():.3f}, and {(score > _MEMORIZED).mean():.1%} have one over {_MEMORIZED}; "
            f"the mean standard error of a score is {scores.standard_error[known].mean():.3f}."
        )
        found = auc(scores.score, given.flipped)
        if not np.isnan(found):
            n_flipped = int(given.flipped.numpy()[known].sum())
            sentences.append(f"The score finds the {n_flipped} flipped labels among them with an AUC of {found:.3f}.")
    sentences.append(f"Scores: {options.output}")
    return " ".join(sentences)
