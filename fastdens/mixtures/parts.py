"""Fits in parts: some models of a batch at a time, each part fitted by itself, and all joined to one fit.

A model's result does not depend on the models beside it, so that parts of any kind give the bits of one fit. Finished
parts can be kept in a folder, a file each: a fit that was killed goes on from there, in parts of any other kind.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.io.state_file import StateFile, fingerprint
from fastdens.kernels.layout import offsets_of
from fastdens.kernels.surroundings import undisturbed
from fastdens.mixtures.base import BaseMixtures, to_jsonable
from fastdens.mixtures.failures import Failures, raise_failures
from fastdens.mixtures.partition import Partition

Estimator = TypeVar("Estimator", bound=BaseMixtures)

_KIND = "fit of some models"
_SUFFIX, _CHAINS = ".safetensors", ".chains.safetensors"
# The tensor of a file that holds the numbers of its models.
_MODELS = "models_of_part"
_DIFFERENCES = {"data": "other data", "start": "other initial values", "held_out": "other held-out points"}
# Parameters that change no result.
_WITHOUT_EFFECT = ("on_error", "progress")
# The numbers of the fitted models.
_FITTED = "models"
# The points of a fit, which the batch has already.
_OF_BATCH = ("points", "offsets", "order")
# Tensors of a saved fit by their axis: rows in the caller's order, rows of fitted models sorted by model, fitted
# models. All others are of all models.
_ROWS = ("labels_", "sampled_labels_")
_FITTED_ROWS = ("draws_labels",)
_FITTED_MODELS = ("draws_", "variational_")


class PartFit(NamedTuple):
    """The fit of some models of a batch.

    Attributes
    ----------
    models : Tensor
        int64 [A], ascending, their numbers among those of the batch.
    tensors, metadata : dict
        Those of :meth:`fastdens.mixtures.base.BaseMixtures.get_state`, without the points; models and rows count from
        zero within the part.
    """

    models: Tensor
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def find_failures(
    estimator: BaseMixtures, batch: RaggedBatch, groups: Sequence[tuple[int, int]] | None = None
) -> Failures:
    """Models that cannot be fitted, and why, before any is fitted.

    Parameters
    ----------
    estimator : BaseMixtures
    batch : RaggedBatch
        Points of the models to fit.
    groups : sequence of (int, int), optional
        Runs ``begin, end`` of models to look at together; by default all, or as many as the limit of a batch on disk
        allows.

    Raises
    ------
    ModelError
        If there are any and ``on_error`` is "raise".
    TypeError, ValueError
        If a parameter or an initial value is invalid.
    """
    estimator._check_parameters()
    estimator._check_start(batch)
    return estimator._checked_failures(batch, groups)


@undisturbed
def fit_part(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    models: Tensor,
    *,
    folder: Path | None = None,
    held_out: RaggedBatch | None = None,
    checkpoint_every: int = 50,
) -> PartFit:
    """Fit some models of a batch.

    Models that fail while they are fitted are noted in the result, whatever ``on_error`` says.

    Parameters
    ----------
    estimator : BaseMixtures
        With valid parameters; it stays as it is.
    batch : RaggedBatch
        Points of the models to fit.
    models : Tensor
        int64 [A], ascending, none of them among :func:`find_failures`.
    folder : Path, optional
        Receives the fit, in a file of its own, and the state of a sampler's chains while they run.
    held_out : RaggedBatch, optional
        Of the M models of the batch, for estimators whose ``fit`` takes them.
    checkpoint_every : int
        Sweeps of a sampler between two writes of its chains.

    Raises
    ------
    OSError, ValueError
        If a file cannot be written, or the folder holds the chains of another fit.
    """
    estimator._check_each_by_itself()
    own = part_of_batch(batch, models)
    other = None if held_out is None else part_of_batch(held_out, models)
    part = _of_models(estimator, batch, models)
    options: dict[str, Any] = {} if other is None else {"held_out": other}
    file = None if folder is None else _file(part, _path(folder, models), own, other)
    if file is not None and part.has_chains:
        options |= {"checkpoint": file.path.with_suffix(_CHAINS), "checkpoint_every": checkpoint_every}
    with warnings.catch_warnings():
        # The fit of all models warns once.
        warnings.simplefilter("ignore")
        part.fit(own, **options)
    tensors, metadata = part.get_state()
    fit = PartFit(models, {name: value for name, value in tensors.items() if name not in _OF_BATCH}, metadata)
    if file is not None:
        file.write({**fit.tensors, _MODELS: models}, {"fit": fit.metadata})
        if part.has_chains:
            options["checkpoint"].unlink(missing_ok=True)
    return fit


def finished_parts(
    estimator: BaseMixtures, batch: RaggedBatch, folder: Path, *, held_out: RaggedBatch | None = None
) -> Iterator[PartFit]:
    """The parts of this fit in a folder, no model in two of them.

    Parameters
    ----------
    estimator, batch, folder, held_out
        As of :func:`fit_part`.

    Raises
    ------
    ValueError
        If a file of the folder is damaged, or a part of another fit.
    """
    taken = torch.zeros(batch.n_models, dtype=torch.bool, device=batch.offsets.device)
    for path in sorted(folder.glob(f"models-*{_SUFFIX}")):
        if path.name.endswith(_CHAINS):
            continue
        models = StateFile(path, _KIND, {}).read().tensors[_MODELS].to(taken.device)
        if int(models.max()) >= batch.n_models:
            raise ValueError(f"{path} is a {_KIND} of another batch: delete it or pass another path.")
        if bool(taken[models].any()):
            # Fitted twice, by two runs with parts of their own.
            continue
        other = None if held_out is None else part_of_batch(held_out, models)
        part = _of_models(estimator, batch, models)
        tensors, metadata = _file(part, path, part_of_batch(batch, models), other).read()
        tensors = {name: value.to(taken.device) for name, value in tensors.items()}
        taken[models] = True
        yield PartFit(tensors.pop(_MODELS), tensors, metadata["fit"])


def remove_chains(folder: Path) -> None:
    """Remove the states of chains that killed runs have left, once all models of a fit are finished."""
    for path in folder.glob(f"models-*{_CHAINS}"):
        path.unlink(missing_ok=True)


def part_of_fit(estimator: BaseMixtures, batch: RaggedBatch, models: Tensor) -> PartFit:
    """The fit of some models, as :func:`fit_part` would give it, from an estimator that has fitted all.

    Parameters
    ----------
    estimator : BaseMixtures
    batch : RaggedBatch
        With the points of these models that were fitted, and any of others.
    models : Tensor
        int64 [A], ascending, none of which failed.
    """
    tensors, metadata = estimator.get_state()
    rows = fitted_rows = fitted = models
    if _FITTED in tensors:
        fitted = torch.searchsorted(tensors[_FITTED], models)
        begin, sizes = tensors["offsets"][:-1][fitted], tensors["offsets"].diff()[fitted]
        fitted_rows = _runs(begin, sizes)
        rows = tensors["order"][fitted_rows]
    weights = None if batch.weights is None else batch.weights[_rows_of(batch, models)]
    chosen = {}
    for name, value in tensors.items():
        if name in (*_OF_BATCH, _FITTED):
            continue
        axis, positions = _axis_of(name, value), models
        if name in _ROWS:
            positions = rows
        elif name in _FITTED_ROWS:
            positions = fitted_rows
        elif name.startswith(_FITTED_MODELS):
            positions = fitted
        chosen[name] = value.index_select(axis, positions)
        if name in _ROWS and weights is not None:
            # Points of weight zero have no cluster.
            labels = value.new_full((*value.shape[:-1], len(weights)), -1)
            chosen[name] = labels.index_copy_(axis, (weights > 0).nonzero()[:, 0], chosen[name])
    return PartFit(models, chosen, {**metadata, "failures": {}})


def check_alike(fits: Sequence[PartFit]) -> None:
    """Raise a ValueError if parts are of fits whose tensors differ in kind: of other parameters, or another dtype."""

    def kind(fit: PartFit, name: str) -> object:
        value = fit.tensors.get(name)
        if value is None:
            return None
        axis = _axis_of(name, value)
        return value.dtype, value.shape[:axis], value.shape[axis + 1 :]

    for fit in fits[1:]:
        for name in sorted((fits[0].tensors.keys() | fit.tensors.keys()) - {_FITTED}):
            if kind(fit, name) != kind(fits[0], name):
                raise ValueError(
                    f"{name} differs in kind between models: keep the parameters and the dtype of the fit, and pass "
                    "held-out points if it had some, or call fit(batch)."
                )


@undisturbed
def join(estimator: Estimator, batch: RaggedBatch, failures: Failures, fits: Sequence[PartFit]) -> Estimator:
    """Make the fit of all models from those of disjoint parts, in the estimator itself.

    Parameters
    ----------
    estimator : BaseMixtures
    batch : RaggedBatch
        Points of the models to fit.
    failures : dict of int to str
        What :func:`find_failures` found.
    fits : sequence of PartFit
        Of all other models; at least one.

    Returns
    -------
    BaseMixtures
        The estimator, which has the attributes that ``fit(batch)`` gives, bit for bit.

    Raises
    ------
    ModelError
        If a model failed while it was fitted and ``on_error`` is "raise".
    """
    late = {int(fit.models[int(m)]): reason for fit in fits for m, reason in fit.metadata["failures"].items()}
    if estimator.on_error == "raise":
        raise_failures(batch, late, "on_error='skip' keeps all others")
    valid = Partition.of(batch, {**late, **failures})
    estimator._set_failures(valid)
    tensors = {**_join_tensors(batch, valid, fits), _FITTED: valid.models}
    estimator._set_fitted_tensors(tensors, fits[0].metadata, valid.batch)
    return estimator


def warn(estimator: BaseMixtures, batch: RaggedBatch, stacklevel: int = 3) -> None:
    """Warn of models whose fit is in doubt, as ``fit`` does; by default the caller of the function that calls this."""
    estimator._warn(batch, stacklevel + 1)


def part_of_batch(batch: RaggedBatch, models: Tensor) -> RaggedBatch:
    """Some of the models as a batch whose rows count from zero, in the order of the models."""
    own = batch.select(models).load()
    index = torch.arange(len(own.index), device=own.index.device)
    return RaggedBatch(own.points, own.offsets, index, own.classes, own.layer, own.weights)


def _rows_of(batch: RaggedBatch, models: Tensor) -> Tensor:
    """The (sorted) rows of some models, int64 [n]."""
    return _runs(batch.offsets[:-1][models], batch.sizes[models])


def _runs(begin: Tensor, sizes: Tensor) -> Tensor:
    """The numbers from each of ``begin`` on, as many as ``sizes`` says, int64 [n]."""
    shift = begin - offsets_of(sizes)[:-1]
    return torch.arange(int(sizes.sum()), device=sizes.device) + torch.repeat_interleave(shift, sizes)


def _axis_of(name: str, value: Tensor) -> int:
    """The axis of models or rows of a tensor of a saved fit."""
    return value.ndim - 1 if name in (*_ROWS, *_FITTED_ROWS) else 0


def _of_models(estimator: Estimator, batch: RaggedBatch, models: Tensor) -> Estimator:
    """An estimator of the same parameters for some of the models, which leaves failed ones out."""
    part = copy.copy(estimator)
    for name in vars(part).keys() - set(estimator._parameter_names()):
        delattr(part, name)
    vars(part).update(estimator._start_of_models(batch, models))
    part.on_error = "skip"
    part.progress = False
    rows = batch.index[_rows_of(batch, models)]
    for name in estimator._array_parameters:
        value = getattr(estimator, name)
        if value is not None:
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, device=batch.device)
            axis = estimator._row_parameters.get(name)
            chosen = models if axis is None else rows
            setattr(part, name, tensor.index_select(axis or 0, chosen.to(tensor.device)))
    return part


def _path(folder: Path, models: Tensor) -> Path:
    """The path of the file of some models."""
    digest = hashlib.blake2b(models.cpu().numpy().tobytes(), digest_size=6).hexdigest()
    return folder / f"models-{int(models[0]):06d}-{digest}{_SUFFIX}"


def _file(part: BaseMixtures, path: Path, batch: RaggedBatch, held_out: RaggedBatch | None) -> StateFile:
    """The file of a part, which belongs to its parameters and its data."""
    names = [name for name in part._parameter_names() if name not in (*_WITHOUT_EFFECT, *part._array_parameters)]
    start = [value for name in part._array_parameters if (value := getattr(part, name)) is not None]
    every = torch.arange(batch.n_models, device=batch.device)
    start += [value for value in part._start_of_models(batch, every).values() if isinstance(value, Tensor)]
    identity = {
        "estimator": type(part).__name__,
        **{name: to_jsonable(getattr(part, name)) for name in names},
        "data": fingerprint([batch.points, batch.offsets, *([] if batch.weights is None else [batch.weights])]),
        "start": fingerprint(start),
        "held_out": None if held_out is None else fingerprint([held_out.points, held_out.offsets]),
    }
    return StateFile(path, _KIND, identity, _DIFFERENCES)


def _join_tensors(batch: RaggedBatch, valid: Partition, fits: Sequence[PartFit]) -> dict[str, Tensor]:
    """The tensors of all parts, each value in the place of its model or row."""
    joined: dict[str, Tensor] = {}
    place = torch.full((batch.n_models,), -1, device=valid.models.device)
    place[valid.models] = torch.arange(len(valid.models), device=place.device)
    for fit in fits:
        own = fit.models
        fitted = own[~fit.tensors["failed_"]]
        # Rows of failed models are in no batch of fitted models.
        rows_of_fitted = _rows_of(valid.batch, place[fitted])
        rows = batch.index[_rows_of(batch, own)]
        for name, value in fit.tensors.items():
            if name in (_FITTED, "failed_"):
                continue
            axis, positions, length = _axis_of(name, value), own, batch.n_models
            if name in _ROWS:
                positions, length = rows, len(batch.index)
            elif name in _FITTED_ROWS:
                positions, length = rows_of_fitted, len(valid.batch.index)
            elif name.startswith(_FITTED_MODELS):
                positions, length = place[fitted], len(valid.models)
            _place(joined, name, value, axis, positions, length)
    return joined


def _place(joined: dict[str, Tensor], name: str, value: Tensor, axis: int, positions: Tensor, length: int) -> None:
    """Put values at positions along an axis; what no part holds is NaN, 0, or -1 for a label."""
    if name not in joined:
        missing: Mapping[bool, float] = {True: float("nan"), False: -1 if name in _ROWS else 0}
        shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
        joined[name] = value.new_full(shape, missing[value.is_floating_point()])
    joined[name].index_copy_(axis, positions, value)
