"""Fits of groups of models after each other, joined to the bits of one fit: below a limit on memory, or in view."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from fastdens.batch import RaggedBatch
from fastdens.errors import check_batch
from fastdens.memory import MemoryLimit, code_bytes, parse_bytes
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.partition import Partition
from fastdens.mixtures.parts import PartFit, find_failures, finished_parts, fit_part, join
from fastdens.mixtures.sampled import SampledMixtures
from fastdens.progress import progress_bar

# Of the groups in which models are fitted in view.
_MODELS_OF_THREAD, _SECONDS = 32, 1.0


def groups_under(estimator: BaseMixtures, batch: RaggedBatch, max_memory: MemoryLimit) -> list[tuple[int, int]]:
    """Runs ``begin, end`` of models that may be fitted at a time while the process holds at most so much memory.

    A group is as large as fits into the limit beside what the process holds already, the results of all models twice
    (in parts, and joined), and the code that a first fit loads. What the fit of a model takes, and its results, each
    estimator estimates in ``_fit_bytes``.

    Parameters
    ----------
    estimator, batch, max_memory
        As of :func:`fit_within`.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid, or the limit is too little for a model, which the message names.
    """
    limit = parse_bytes("max_memory", max_memory)
    estimator._check_parameters()
    fitting, results = estimator._fit_bytes(check_batch(batch))
    reserved = code_bytes() + estimator._compiling_bytes + 2 * int(results.sum())
    return batch.groups_within(limit, fitting, "fitting", reserved)


def groups_in_memory(
    estimator: BaseMixtures, batch: RaggedBatch, max_memory: MemoryLimit | None
) -> list[tuple[int, int]]:
    """Runs ``begin, end`` of models to fit at a time: all, or those of :func:`groups_under` where there is a limit.

    It is the one that is given, or that of a batch on disk.
    """
    limit = batch.max_memory if max_memory is None else max_memory
    return [(0, batch.n_models)] if limit is None else groups_under(estimator, batch, limit)


def fit_in_memory(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    max_memory: MemoryLimit | None,
    fit_at_once: Callable[[RaggedBatch], None],
) -> None:
    """Fit all models at once, or within a limit on memory: the one that is given, or that of a batch on disk.

    With progress they are fitted in groups that take about a second each, unless a GPU fits them, which is kept full.
    """
    limit = batch.max_memory if max_memory is None else max_memory
    if limit is not None:
        fit_within(estimator, batch, limit)
    elif not estimator.progress:
        fit_at_once(batch)
    elif batch.device.type == "cpu":
        _fit_groups(estimator, batch, _growing_groups(batch.n_models))
    else:
        with progress_bar("Models", batch.n_models) as advance:
            fit_at_once(batch)
            advance(batch.n_models)


def fit_within(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    max_memory: MemoryLimit,
    *,
    folder: Path | None = None,
    held_out: RaggedBatch | None = None,
    checkpoint_every: int = 50,
) -> None:
    """Fit every model of a batch while the process holds at most so much memory: one of :func:`groups_under` at a time.

    Parameters
    ----------
    estimator : BaseMixtures
        Becomes the fit.
    batch : RaggedBatch
        In memory or on disk.
    max_memory : int or str
        Bytes, or a text such as "4GiB".
    folder : Path, optional
        Keeps the groups that are done, and a sampler's chains: the same fit goes on from them.
    held_out : RaggedBatch, optional
        For a sampler.
    checkpoint_every : int
        Sweeps of a sampler between two writes of its chains.

    Raises
    ------
    ModelError, TypeError, ValueError
        As ``fit``; and if the limit is too little for a model, which the message names.
    """
    groups = groups_under(estimator, batch, max_memory)
    _fit_groups(estimator, batch, groups, folder=folder, held_out=held_out, checkpoint_every=checkpoint_every)


def _fit_groups(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    groups: Iterable[tuple[int, int]],
    *,
    folder: Path | None = None,
    held_out: RaggedBatch | None = None,
    checkpoint_every: int = 50,
) -> None:
    """Fit runs ``begin, end`` of models after each other, and join them; the rest as of :func:`fit_within`."""
    failures = find_failures(estimator, batch, groups if isinstance(groups, list) else None)
    if isinstance(estimator, SampledMixtures) and held_out is not None:
        estimator._check_held_out(Partition.of(batch, failures), held_out)
    fits: list[PartFit] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        fits += finished_parts(estimator, batch, folder, held_out=held_out)
    done = {m for fit in fits for m in fit.models.tolist()} | failures.keys()
    with progress_bar("Models", batch.n_models, done=len(done), shown=estimator.progress) as advance:
        for begin, end in groups:
            models = [m for m in range(begin, end) if m not in done]
            if models:
                numbers = torch.tensor(models, device=batch.device)
                fits.append(
                    fit_part(
                        estimator,
                        batch,
                        numbers,
                        folder=folder,
                        held_out=held_out,
                        checkpoint_every=checkpoint_every,
                    )
                )
                advance(len(models))
    if not fits:
        # All models failed: one of them gives the shapes.
        fits.append(fit_part(estimator, batch, torch.zeros(1, dtype=torch.int64, device=batch.device)))
    join(estimator, batch, failures, fits)


def _growing_groups(n_models: int) -> Iterator[tuple[int, int]]:
    """Runs ``begin, end`` of models, which grow until the work between two of them takes a second.

    The first keeps all threads busy.
    """
    size, begin = _MODELS_OF_THREAD * torch.get_num_threads(), 0
    while begin < n_models:
        end, start = min(begin + size, n_models), time.perf_counter()
        yield begin, end
        begin = end
        if time.perf_counter() - start < _SECONDS:
            size *= 2
