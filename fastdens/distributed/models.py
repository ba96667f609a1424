"""Models divided over ranks: each rank fits parts of the batch, and the parts make one fit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributed.costs import assign, cut, operations
from fastdens.io.state_file import SavedState, fingerprint
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures, to_jsonable
from fastdens.mixtures.failures import Failures
from fastdens.mixtures.limited_memory import groups_under
from fastdens.mixtures.parts import PartFit, find_failures, finished_parts, fit_part, join, remove_chains
from fastdens.process_group import Group


def fit_models(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    group: Group,
    everywhere: bool,
    held_out: RaggedBatch | None,
    folder: Path | None,
    max_memory: MemoryLimit | None,
) -> None:
    """Fit an estimator as :func:`fastdens.distributed.fit` describes for ``split="models"``."""
    limit = batch.max_memory if max_memory is None else max_memory
    with group.together():
        groups = [(0, batch.n_models)] if limit is None else groups_under(estimator, batch, limit)
        failures = find_failures(estimator, batch, groups)
    check_agreement(estimator, batch, group)
    if len(failures) == batch.n_models:
        estimator.fit(batch, max_memory=max_memory)
        return
    fits: list[PartFit] = []
    with group.together():
        if folder is not None and group.rank == 0:
            fits = list(finished_parts(estimator, batch, folder, held_out=held_out))
    # What other ranks write from here on is not seen by some and unseen by others.
    finished = group.broadcast(SavedState({"models": _models_of(fits)}, {}) if group.rank == 0 else None)
    with group.together():
        for part in parts_of_rank(estimator, batch, failures, finished.tensors["models"], group):
            for models in _within_groups(part, groups):
                fits.append(fit_part(estimator, batch, models, folder=folder, held_out=held_out))
    if folder is not None and group.rank == 0:
        remove_chains(folder)
    packed = _pack(fits)
    states = group.all_gather(packed) if everywhere else group.gather(packed)
    with group.together():
        if states is not None:
            join(estimator, batch, failures, _unpack(states, batch.offsets.device))


def parts_of_rank(
    estimator: BaseMixtures, batch: RaggedBatch, failures: Failures, finished: Tensor, group: Group
) -> list[Tensor]:
    """The models of each part that a rank fits, int64 [A] on the device of the batch, the most expensive part first.

    Parts do not depend on what is finished, so that a run of as many ranks takes up the chains of one that was killed.
    """
    costs = operations(estimator, batch.sizes.cpu(), batch.n_features)
    fitted = [m for m in range(batch.n_models) if m not in failures]
    done = set(finished.tolist())
    parts = []
    for part in cut(costs[fitted], group.size, batch.offsets.device):
        if rest := [fitted[at] for at in part if fitted[at] not in done]:
            parts.append(rest)
    own = assign([float(costs[part].sum()) for part in parts], group.size)[group.rank]
    return [torch.tensor(parts[number], dtype=torch.int64, device=batch.offsets.device) for number in own]


def _within_groups(models: Tensor, groups: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Models, ascending, in pieces that lie within one of the runs ``begin, end``."""
    pieces = [models[(models >= begin) & (models < end)] for begin, end in groups]
    return [piece for piece in pieces if len(piece)]


def check_agreement(estimator: BaseMixtures, batch: RaggedBatch, group: Group) -> None:
    """Raise a ValueError, on every rank, if one has another estimator or batch than rank 0."""
    parameters: dict[str, Any] = {}
    for name in inspect.signature(type(estimator)).parameters:
        value = getattr(estimator, name, None)
        try:
            parameters[name] = (
                fingerprint([torch.as_tensor(value, device="cpu")]) if hasattr(value, "shape") else to_jsonable(value)
            )
        except (TypeError, ValueError):
            parameters[name] = repr(value)
    parameters.pop("progress", None)
    own = {
        "estimator": type(estimator).__name__,
        "parameters": parameters,
        "dtype": str(batch.dtype),
        "classes": [str(label) for label in batch.classes],
        "points": _identity(batch),
        "weights": "" if batch.weights is None else fingerprint([batch.weights]),
        "parameters of the last fit": _last_fit(estimator),
    }
    states = [state.metadata for state in group.all_gather(SavedState({}, own))]
    for rank, other in enumerate(states):
        for what, value in other.items():
            if value != states[0][what]:
                raise ValueError(
                    f"rank {rank} has other {what} than rank 0: pass the same estimator and the same batch, with its "
                    "rows in the same order, on every rank."
                )


def _identity(batch: RaggedBatch) -> str:
    """What tells the points of a batch; of those on disk, their file and the rows of each model."""
    places = fingerprint([batch.offsets, batch.index])
    return f"{batch!r} {places}" if batch.max_memory is not None else fingerprint([batch.points]) + places


def _last_fit(estimator: BaseMixtures) -> str:
    """What tells the parameters that a warm start goes on from."""
    if not getattr(estimator, "warm_start", False) or not hasattr(estimator, "failed_"):
        return ""
    tensors = estimator.get_state()[0]
    return fingerprint(tensors[name] for name in sorted(tensors))


def _models_of(fits: Sequence[PartFit]) -> Tensor:
    none = torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.cat([none, *(fit.models.cpu() for fit in fits)])


def _pack(fits: Sequence[PartFit]) -> SavedState:
    """Fits as one state."""
    tensors = {}
    for number, fit in enumerate(fits):
        tensors[f"{number}:"] = fit.models
        tensors |= {f"{number}:{name}": value for name, value in fit.tensors.items()}
    return SavedState(tensors, {"fits": [fit.metadata for fit in fits]})


def _unpack(states: Sequence[SavedState], device: torch.device) -> list[PartFit]:
    """The fits of all ranks."""
    fits = []
    for tensors, metadata in states:
        own: list[dict[str, Tensor]] = [{} for _ in metadata["fits"]]
        for name, tensor in tensors.items():
            number, _, of_fit = name.partition(":")
            own[int(number)][of_fit] = tensor.to(device)
        fits += [PartFit(of.pop(""), of, facts) for of, facts in zip(own, metadata["fits"], strict=True)]
    return fits
