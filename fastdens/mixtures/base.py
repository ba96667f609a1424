"""What the estimators share: checks of parameters and batches, failed models, warnings, saved fits."""

from __future__ import annotations

import inspect
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import (
    ConvergenceWarning,
    NotFittedError,
    check_batch,
    check_batch_of,
    check_integer,
    check_non_negative,
)
from fastdens.io.expected import check_tensors
from fastdens.io.state_file import write_state
from fastdens.kernels.options import BACKENDS, MATMUL_PRECISIONS, check_choice
from fastdens.kernels.races import most_copies
from fastdens.kernels.surroundings import Undisturbed
from fastdens.memory import MemoryLimit
from fastdens.mixtures.failures import Failures, failures_of, non_finite, raise_failures, without_weight
from fastdens.mixtures.partition import Partition

# Parameters that saved fits may hold under an earlier name.
_RENAMED = {"precision": "matmul_precision"}

AUTO = "auto"
# Of what races in place of weighted points at the start.
_BYTES_OF_COPY = 80

# Raises an error that names the parameter if its value is not allowed.
Constraint = Callable[[str, Any], object]


def integer(minimum: int) -> Constraint:
    """An integer of at least ``minimum``."""
    return lambda name, value: check_integer(name, value, minimum)


def boolean(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, but it must be True or False.")


def one_of(choices: Sequence[str]) -> Constraint:
    """One of some strings."""
    return lambda name, value: check_choice(name, value, choices)


def optional(constraint: Constraint) -> Constraint:
    """None, or what the constraint allows."""
    return lambda name, value: None if value is None else constraint(name, value)


def auto_or_non_negative(name: str, value: Any) -> None:
    """A number of at least 0, or "auto"."""
    if value != AUTO:
        check_non_negative(name, value)


def share(name: str, value: Any) -> None:
    """A share of the burn-in."""
    check_non_negative(name, value)
    if value > 1:
        raise ValueError(f"{name} is {value}, but it must be a share of the burn-in, from 0 to 1.")


def floating_dtype(name: str, value: object) -> None:
    """torch.float32, torch.float64 or None."""
    if value not in (None, torch.float32, torch.float64):
        raise ValueError(f"{name} is {value}, but it must be torch.float32, torch.float64 or None.")


class Doubt(NamedTuple):
    """Models of a fit that the caller is warned of, bool [M]; the sentence about them, and what to do."""

    models: Tensor
    problem: str
    remedy: str
    category: type[Warning] = ConvergenceWarning


class BaseMixtures(Undisturbed, ABC):
    """Base of the estimators: ``fit`` parts the batch, fits the models that can be fitted, and scatters the results.

    A subclass keeps its parameters in attributes of their names, declares what they may be in
    ``_parameter_constraints``, and after ``fit`` calls :meth:`_set_failures`. Parameters in ``_array_parameters`` are
    left out of saved fits; those in ``_row_parameters`` have the caller's rows as an axis, the others the models.
    """

    _parameter_constraints: ClassVar[dict[str, Constraint]] = {
        "random_state": integer(0),
        "backend": one_of(BACKENDS),
        "on_error": one_of(("raise", "skip")),
        "progress": boolean,
        "matmul_precision": one_of(MATMUL_PRECISIONS),
        "dtype": floating_dtype,
    }
    _array_parameters: ClassVar[tuple[str, ...]] = ()
    # Of each, the axis of rows.
    _row_parameters: ClassVar[Mapping[str, int]] = MappingProxyType({})
    # Whether ``fit`` samples, and takes held-out points and a checkpoint.
    has_chains: ClassVar[bool] = False

    # What compiling takes beside what code does that is compiled.
    _compiling_bytes: ClassVar[int] = 0

    on_error: str
    progress: bool
    backend: str
    matmul_precision: str
    dtype: torch.dtype | None
    random_state: int
    failed_: Tensor
    failures_: Failures
    # None of a fit that was saved without them.
    classes_: tuple[Hashable, ...] | None

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of the constructor, its ``locals()``, in attributes of their names."""
        vars(self).update({name: value for name, value in arguments.items() if name not in ("self", "__class__")})

    @abstractmethod
    def fit(
        self,
        batch: RaggedBatch,
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
    ) -> BaseMixtures:
        """Fit every model of the batch."""

    @abstractmethod
    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model, [N], in the caller's row order; NaN for failed models."""

    @abstractmethod
    def _fit_bytes(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """Upper estimates of the memory in bytes of the fit of each model, its points included, and of its results.

        Two of float64 [M].
        """

    @abstractmethod
    def _find_failures(self, batch: RaggedBatch) -> Failures:
        """Models that cannot be fitted, and why."""

    @property
    @abstractmethod
    def _fitted_features(self) -> tuple[int, torch.device]:
        """D and the device of the fitted models."""

    @abstractmethod
    def _fitted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and metadata of a fit, beside parameters and failures, for :meth:`get_state`."""

    @abstractmethod
    def _expected_tensors(self, names: Collection[str]) -> dict[str, str]:
        """Kinds and shapes of :meth:`_fitted_tensors`, of those of other versions as far as they are among ``names``.

        As :func:`~fastdens.io.expected.check_tensors` takes them.
        """

    @abstractmethod
    def _set_fitted_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], batch: RaggedBatch | None = None
    ) -> None:
        """Take back what :meth:`_fitted_tensors` gave; ``batch`` is that of the fitted models, if it is at hand."""

    @abstractmethod
    def _doubts(self) -> list[Doubt]:
        """What the caller of ``fit`` is warned of."""

    def _weight_bytes(self, batch: RaggedBatch) -> Tensor | float:
        """Upper estimates of the memory in bytes that the weights of each model's points take; zero without weights."""
        if batch.weights is None:
            return 0.0
        copies = torch.minimum(batch.total_weights.maximum(batch.sizes), most_copies(batch.sizes))
        return 32 * batch.sizes + _BYTES_OF_COPY * copies

    def _check_start(self, batch: RaggedBatch) -> None:
        """Raise a ValueError if initial values that are given as arrays do not fit the batch."""

    def _check_unchanged(self, batch: RaggedBatch, models: Tensor) -> None:
        """Raise a ValueError if some models, int64 [A], do not have the points of the fit, as far as it knows them."""

    def _start_of_models(self, batch: RaggedBatch, models: Tensor) -> dict[str, Any]:
        """Attributes from which ``fit`` goes on in an estimator of some of the models, int64 [A], if it does."""
        return {}

    def _check_each_by_itself(self) -> None:
        """Raise a ValueError if models depend on each other, so that some of them are no part of a fit of all."""

    def _check_parameters(self) -> None:
        for name, constraint in self._parameter_constraints.items():
            constraint(name, getattr(self, name))

    def _in_dtype(self, batch: RaggedBatch) -> RaggedBatch:
        """The batch in the dtype in which its models are checked."""
        return batch

    def _checked_failures(self, batch: RaggedBatch, groups: Sequence[tuple[int, int]] | None = None) -> Failures:
        """Models that cannot be fitted; raises if there are some and ``on_error`` is "raise"."""
        failures = failures_of(batch, lambda part: self._find_failures(self._in_dtype(part)), groups)
        failures |= without_weight(batch)
        if self.on_error == "raise":
            raise_failures(batch, failures, "on_error='skip' fits all others")
        return failures

    def _partition(self, batch: RaggedBatch) -> Partition:
        """The models to fit; raises if some cannot be fitted and ``on_error`` is "raise"."""
        return Partition.of(batch, self._checked_failures(batch))

    def _leave_out(self, valid: Partition, bad: Tensor, reason: str) -> Partition:
        """The partition without models that failed while they were fitted; ``bad`` is bool [A]."""
        failures = dict.fromkeys(valid.models[bad].tolist(), reason)
        if self.on_error == "raise":
            raise_failures(valid.whole, failures, "on_error='skip' keeps all others")
        return Partition.of(valid.whole, {**valid.failures, **failures})

    def _set_failures(self, valid: Partition) -> None:
        self.failed_ = valid.failed
        self.failures_ = valid.failures
        self.classes_ = valid.whole.classes

    def _warn(self, batch: RaggedBatch, stacklevel: int = 4) -> None:
        """Warn of models whose fit is in doubt; by default the caller of ``fit``, if ``fit`` itself calls this."""
        for models, problem, remedy, category in self._doubts():
            named = torch.nonzero(models)[:, 0].tolist()
            if named:
                names = ", ".join(batch.describe(m) for m in named[:5]) + (", ..." if len(named) > 5 else "")
                message = f"{len(named)} of {batch.n_models} models {problem} ({names}): {remedy}."
                # Past this method, fit, and what keeps it undisturbed.
                warnings.warn(message, category, stacklevel=stacklevel)

    def _check_fitted(self) -> None:
        if not hasattr(self, "failed_"):
            raise NotFittedError(self, "fit(batch)")

    def _check_models(self, batch: object) -> RaggedBatch:
        """``batch`` if it is one of the fitted models; raises a ValueError if it is one of others."""
        self._check_fitted()
        checked = check_batch_of(batch, len(self.failed_), *self._fitted_features)
        if self.classes_ is not None:
            # A saved fit has the names of dates and the like.
            pairs = zip(map(str, self.classes_), map(str, checked.classes), strict=True)
            for m in (m for m, (fitted, given) in enumerate(pairs) if fitted != given):
                raise ValueError(
                    f"model {m} was fitted to class {self.classes_[m]!r}, but in the batch it is class "
                    f"{checked.classes[m]!r}: pass the classes_ of the fit to from_labels(x, y, classes=...) or to "
                    "from_list(arrays, labels=...)."
                )
        return checked

    def _check_scored(self, batch: object) -> RaggedBatch:
        """``batch`` if it holds points of the fitted models; raises for NaN and infinity if ``on_error`` is "raise"."""
        checked = self._check_models(batch)
        if self.on_error == "raise":
            raise_failures(checked, failures_of(checked, non_finite), "on_error='skip' gives NaN for such rows")
        return checked

    def _weighted(self, batch: object, sample_weight: ArrayLike | Tensor | None) -> RaggedBatch:
        """``batch`` if it is one, with weights if they are given here."""
        checked = check_batch(batch)
        if sample_weight is None:
            return checked
        if checked.weights is not None:
            raise ValueError("sample_weight is given, but the batch has weights: pass one of them.")
        return checked.weighted(sample_weight)

    def score(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Tensor:
        """Mean log-density of the points of each model, weighted if they have weights.

        Parameters
        ----------
        batch : RaggedBatch
            Of the fitted models.
        sample_weight : array or Tensor, optional
            [N], as for :meth:`fastdens.RaggedBatch.weighted`; by default the weights of the batch, if it has some.

        Returns
        -------
        Tensor
            float64 [M]; NaN for a model that failed, or has no points of positive weight.
        """
        weighted = self._weighted(batch, sample_weight)
        log_prob = self.score_samples(weighted)[weighted.index].double()
        if weighted.weights is not None:
            # Even a density of zero does not count where the weight is zero.
            log_prob = torch.where(weighted.weights > 0, weighted.weights * log_prob, 0.0)
        return torch.segment_reduce(log_prob, "sum", offsets=weighted.offsets) / weighted.total_weights

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a fitted estimator knows, as tensors and metadata.

        Initial values given as arrays (``labels_init`` and its like) are not part of it.

        Returns
        -------
        (dict of str to Tensor, dict)
            What :meth:`from_state` takes; the metadata are what JSON can hold.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        self._check_fitted()
        tensors, metadata = self._fitted_tensors()
        saved = [name for name in self._parameter_names() if name not in self._array_parameters]
        parameters = {name: to_jsonable(getattr(self, name)) for name in saved}
        if self.classes_ is not None:
            metadata["classes"] = [c if isinstance(c, bool | int | float | str) else str(c) for c in self.classes_]
        metadata |= {
            "estimator": type(self).__name__,
            "parameters": parameters,
            "failures": {str(m): reason for m, reason in self.failures_.items()},
        }
        return {**tensors, "failed_": self.failed_}, metadata

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state") -> Self:
        """The fitted estimator of a state that :meth:`get_state` returned.

        Parameters
        ----------
        tensors, metadata : mapping
            The two parts of the state.
        where : str
            A name for messages, such as that of a file.

        Returns
        -------
        BaseMixtures
            Of the class on which the method is called.

        Raises
        ------
        ValueError
            If something is missing, the tensors are not those of such an estimator, or a newer version made it.
        """
        saved = metadata.get("parameters")
        for name in saved if isinstance(saved, Mapping) else ():
            if _RENAMED.get(name, name) not in cls._parameter_names():
                raise ValueError(
                    f"{where} has the parameter {name!r}, which this {cls.__name__} lacks: upgrade fastdens."
                )
        try:
            estimator = cls._with_parameters(metadata["parameters"])
            estimator.failures_ = {int(m): str(reason) for m, reason in metadata["failures"].items()}
            estimator.classes_ = tuple(metadata["classes"]) if "classes" in metadata else None
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{where} has no parameters of {cls.__name__} ({reason}): save the fit again.") from None
        estimator._check_state(where, tensors, metadata)
        estimator.failed_ = tensors["failed_"]
        estimator._set_fitted_tensors(tensors, metadata)
        return estimator

    @classmethod
    def _with_parameters(cls, saved: Mapping[str, Any]) -> Self:
        """An estimator of parameters as :func:`to_jsonable` writes them."""
        parameters = {_RENAMED.get(name, name): value for name, value in saved.items()}
        for name, value in parameters.items():
            if isinstance(value, list):
                parameters[name] = tuple(value)
        parameters["dtype"] = getattr(torch, parameters["dtype"]) if parameters["dtype"] else None
        estimator = cls(**parameters)
        estimator._check_parameters()
        return estimator

    def _check_state(self, where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
        """Check the tensors and metadata of a state, with errors as of :meth:`from_state`; the lengths of its axes."""
        lengths = check_tensors(where, tensors, {"failed_": "bool M", **self._expected_tensors(tensors)})
        if self.classes_ is not None and len(self.classes_) != lengths["M"]:
            raise ValueError(f"{where} has {len(self.classes_)} classes of {lengths['M']} models: save the fit again.")
        return lengths

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return list(inspect.signature(cls.__init__).parameters)[1:]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fit to one safetensors file with a JSON header; :func:`fastdens.load` reads it.

        Parameters
        ----------
        path : path-like
            The file to write.
        overwrite : bool
            Replace a file of that name.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        write_state(path, "fit", *self.get_state(), overwrite=overwrite)


def to_jsonable(value: Any) -> Any:
    """A parameter as JSON holds it: the name of a dtype, a list of floats for a tuple."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return [float(v) for v in value] if isinstance(value, tuple | list) else value
