"""One fit by all ranks of a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from fastdens.batch import RaggedBatch
from fastdens.distributed.models import check_agreement, fit_models
from fastdens.errors import check_batch
from fastdens.kernels.options import check_choice
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.parts import warn
from fastdens.mixtures.split_points import fit_points
from fastdens.process_group import RankEndedError, current_group

Estimator = TypeVar("Estimator", bound=BaseMixtures)

SPLITS = ("models", "points")
GATHERS = ("all", "rank0")


def fit(
    estimator: Estimator,
    batch: RaggedBatch,
    *,
    split: str = "models",
    gather: str = "all",
    held_out: RaggedBatch | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    max_memory: MemoryLimit | None = None,
) -> Estimator:
    """Fit every model of a batch, the work divided over the ranks of the torch.distributed job.

    All ranks call it with the same estimator and the same batch, each on a device of its own; whoever started the job
    (torchrun, Slurm, Ray, Lightning) has set up the process group, with gloo or nccl. In a process without a group it
    fits alone.

    Parameters
    ----------
    estimator : GaussianMixtures, FactorAnalyserMixtures or a Dirichlet-process mixture
        The same on all ranks.
    batch : RaggedBatch
        The whole batch on every rank; each reads its own models of one on disk, whose files all ranks see.
    split : {"models", "points"}
        "models": each rank fits some of the models, and the result has the bits of ``estimator.fit(batch)``.
        "points": all ranks fit one model after the other, each with the sums over its own rows, for models with many
        points. The bits do not depend on the number of ranks, and differ from those of ``estimator.fit(batch)`` by
        rounding. Not for Gibbs sampling.
    gather : {"all", "rank0"}
        Which ranks have the fitted estimator; on the others it stays as it is. A warm start needs it on all.
    held_out : RaggedBatch, optional
        As of :meth:`fastdens.DirichletProcessMixtures.fit`.
    checkpoint : path-like, optional
        A folder that all ranks see, for finished models: the same fit, by any number of ranks, does not repeat them.
        For ``split="models"``.
    max_memory : int or str, optional
        The most that each rank may hold, as of ``estimator.fit``; by default the limit of a batch on disk. For
        ``split="models"``; ``split="points"`` takes points in memory.

    Returns
    -------
    Estimator
        The estimator itself.

    Raises
    ------
    ModelError
        As of ``estimator.fit``, with all models that failed, on every rank.
    RankEndedError
        If a rank ends before the fit is done; at the latest within a minute, the others being stopped.
    TypeError, ValueError
        If a parameter is invalid, or the ranks have different batches or estimators.

    Warns
    -----
    ConvergenceWarning, ConstantFeatureWarning
        As of ``estimator.fit``, on rank 0.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(1000, 8), torch.arange(1000) % 10)
    >>> gm = fd.distributed.fit(fd.GaussianMixtures(2, max_iter=5, tol=0), batch)
    >>> gm.means_.shape
    torch.Size([10, 2, 8])
    """
    check_batch(batch)
    check_choice("split", split, SPLITS)
    check_choice("gather", gather, GATHERS)
    estimator._check_each_by_itself()
    if split == "points" and getattr(estimator, "shrinkage", None) is not None:
        raise ValueError("split is 'points', which shrinks no covariances: use split='models', or leave shrinkage out.")
    folder = None if checkpoint is None else Path(checkpoint)
    if split == "points" and any(given is not None for given in (folder, held_out, max_memory)):
        raise ValueError("split is 'points', which has no use for checkpoint, held_out and max_memory: leave them out.")
    if split == "points" and batch.max_memory is not None:
        raise ValueError("split is 'points', which takes a batch in memory: pass batch.load().")
    group = current_group()
    everywhere = gather == "all"
    try:
        if split == "points":
            check_agreement(estimator, batch, group)
            with group.exchanging():
                fitted = fit_points(estimator, batch, group)
            if everywhere or group.rank == 0:
                vars(estimator).update(vars(fitted))
        else:
            fit_models(estimator, batch, group, everywhere, held_out, folder, max_memory)
    except RankEndedError as error:
        remedy = "start again, with any number of ranks"
        if folder is not None:
            remedy += f"; finished models are kept in {folder}"
        elif split == "models":
            remedy += "; checkpoint=folder keeps finished models"
        raise error.with_remedy(remedy) from None
    if group.rank == 0:
        warn(estimator, batch)
    return estimator
