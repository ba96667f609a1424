"""Batched densities in the manner of torch.distributions: ``log_prob``, ``sample``, ``entropy``; modules of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from fastdens.arrays import as_points, as_tensor
from fastdens.batch import RaggedBatch
from fastdens.distributions import divergences
from fastdens.distributions.divergences import MonteCarloEstimate
from fastdens.distributions.module import PreciseModule
from fastdens.errors import check_batch_of

# Points as they are read, in the dtype of the density, centred, and one copy to spare.
_COPIES = 4


class BatchedDensity(PreciseModule, ABC):
    """Densities of M models in D dimensions: checks of arguments, and estimates by Monte Carlo.

    A :class:`torch.nn.Module` whose parameters are buffers: ``to`` moves them, ``state_dict`` holds them, and there is
    nothing to train, for densities are differentiable in the points only. To call it is :meth:`log_prob`. It computes
    in float32 or float64: ``half()`` and its like leave it as it is.

    A program of torch.export holds plain operations, and runs without this library; with a ``backend`` other than
    "auto" it holds the kernels of that name, and is loaded after their import from :mod:`fastdens.kernels`.

    A subclass computes the log-densities of points that are known to fit.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Buffers, each also an argument of the constructor of the subclass.
    options : mapping of str to object
        Attributes, likewise.
    """

    _option_names: tuple[str, ...]
    _is_of_a_fit = False

    def __init__(self, parameters: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
        super().__init__()
        # As register_buffer and setattr do, which cost more than to score a handful of points.
        self._buffers.update(parameters)
        vars(self).update(options, _option_names=tuple(options))

    def extra_repr(self) -> str:
        """The sizes and options, for ``repr``.

        Returns
        -------
        str
            What torch writes between the brackets.
        """
        sizes = {"n_models": self.n_models, "n_features": self.n_features}
        return ", ".join(f"{name}={value!r}" for name, value in {**sizes, **self._options}.items())

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._option_names}

    def _with(self, **parameters: Tensor) -> Self:
        """A density of the same options, and of the parameters that are not given."""
        make: Callable[..., Self] = type(self)
        return make(**{**dict(self.named_buffers(recurse=False)), **parameters}, **self._options)

    @property
    @abstractmethod
    def n_models(self) -> int:
        """Number of models M."""

    @property
    @abstractmethod
    def _locations(self) -> Tensor:
        """Locations of components, [..., D]."""

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self._locations.shape[-1]

    @property
    def device(self) -> torch.device:
        """Device of the parameters, hence of points and draws."""
        return self._locations.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, hence of log-densities and draws."""
        return self._locations.dtype

    @property
    @abstractmethod
    def _row_values(self) -> int:
        """Numbers that scoring a point takes beside its own."""

    @abstractmethod
    def select(self, begin: int, end: int) -> Self:
        """The densities of the models ``begin:end``.

        Parameters
        ----------
        begin, end : int
            The models ``begin`` to ``end - 1``.

        Returns
        -------
        BatchedDensity
            Of the same class and options.
        """

    @abstractmethod
    def _log_prob(self, points: Tensor) -> Tensor:
        """``log_prob`` of points that are known to fit."""

    @abstractmethod
    def own_log_prob(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each (sorted) row under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.

        Returns
        -------
        Tensor
            [N], in nats.
        """

    @abstractmethod
    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw points from every model, with the component that each comes from.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        (Tensor, Tensor)
            Points [M, n, D], and their components int64 [M, n].
        """

    def of_a_fit(self) -> Self:
        """Mark the tensors as those of a fit: a state that is loaded later leaves them as they are.

        Returns
        -------
        BatchedDensity
            Itself.
        """
        self._is_of_a_fit = True
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        if self._is_of_a_fit:
            self._buffers.update({name: tensor.clone() for name, tensor in self.named_buffers(recurse=False)})
            self._is_of_a_fit = False
        super()._load_from_state_dict(*arguments)

    def clone(self) -> Self:
        """The same density with tensors of its own.

        Returns
        -------
        BatchedDensity
            Of the same values, on the same device.
        """
        return self._with(**{name: tensor.clone() for name, tensor in self.named_buffers(recurse=False)})

    def forward(self, x: Tensor) -> Tensor:
        """The same as :meth:`log_prob`, for a density that is called.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the models.

        Returns
        -------
        Tensor
            [N, M].
        """
        return self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each point under every model.

        It is differentiable in ``x`` any number of times: in reverse and in forward mode, with torch.func and under
        torch.vmap.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the models.

        Returns
        -------
        Tensor
            [N, M], in nats.

        Raises
        ------
        ValueError
            If D or the device differ.
        """
        # A tensor as it is: derivatives of any kind may hang on it.
        points = as_tensor(x) if isinstance(x, Tensor) and x.is_floating_point() else as_points(x)
        # Attributes of modules are slow to look up.
        locations = self._locations
        n_features, device = locations.shape[-1], locations.device
        if points.ndim != 2 or points.shape[1] != n_features:
            raise ValueError(
                f"x has shape {tuple(points.shape)}, but the models have D = {n_features}: pass [N, {n_features}]."
            )
        if points.device != device:
            raise ValueError(
                f"x is on {points.device} and the models are on {device}: move x with x.to({str(device)!r})."
            )
        return self._log_prob(points.to(locations.dtype))

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.

        Returns
        -------
        Tensor
            [N], in nats and in the caller's row order.

        Raises
        ------
        TypeError, ValueError
            If it is no batch, or M, D or the device differ.
        """
        checked = check_batch_of(batch, self.n_models, self.n_features, self.device)
        return self.own_values(checked, lambda density, part: density.own_log_prob(part))

    def own_values(self, batch: RaggedBatch, values_of: Callable[[Self, RaggedBatch], Tensor]) -> Tensor:
        """Values of each point under its own model, in the caller's row order.

        Parameters
        ----------
        batch : RaggedBatch
            That is known to fit; ``index`` counts its rows.
        values_of : callable
            Returns the values [n, ...] of the (sorted) rows of a batch in memory, in the dtype of the density, under
            the density of its models: of some at a time, where the batch is on disk.

        Returns
        -------
        Tensor
            [N, ...].
        """
        out = None
        for index, values in self.own_parts(batch, values_of):
            if out is None:
                out = values.new_empty(batch.n_points, *values.shape[1:])
            out[index] = values
        assert out is not None
        return out

    def own_parts(
        self, batch: RaggedBatch, values_of: Callable[[Self, RaggedBatch], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Values as of :meth:`own_values`, some models at a time.

        Parameters
        ----------
        batch : RaggedBatch
            That is known to fit; ``index`` counts its rows.
        values_of : callable
            As for :meth:`own_values`.

        Yields
        ------
        (Tensor, Tensor)
            Rows of the caller, int64 [n], and their values [n, ...].
        """
        row_bytes = 8 * (_COPIES * self.n_features + self._row_values)
        for begin, end in batch.groups(batch.sizes.double() * row_bytes, "scoring"):
            part = batch.part(begin, end)
            own = self if end - begin == self.n_models else self.select(begin, end)
            yield part.index, values_of(own, part.to(dtype=self.dtype))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points from every model.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        Tensor
            [n, M, D]: the sample shape comes first, as in torch.distributions.
        """
        return self.sample_components(n, generator)[0].transpose(0, 1)

    def entropy(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """Differential entropy of every model, by Monte Carlo: :func:`fastdens.analysis.entropy`.

        Parameters
        ----------
        n_samples : int
            Draws from each model, at least 2.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        MonteCarloEstimate
            [M], in nats.
        """
        return divergences.entropy(self, n_samples, generator)

    def relative_entropy(
        self, batch: RaggedBatch, n_samples: int = 100_000, generator: torch.Generator | None = None
    ) -> MonteCarloEstimate:
        """KL divergence from every model to the Gaussian of its points' means and variances, by Monte Carlo.

        See :func:`fastdens.analysis.relative_entropy`.

        Parameters
        ----------
        batch : RaggedBatch
            The points of the same models.
        n_samples : int
            Draws from each model, at least 2.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        MonteCarloEstimate
            [M], in nats.
        """
        return divergences.relative_entropy(self, batch, n_samples, generator)

    def kl_matrix(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """``KL(p_i || p_j)`` of all pairs of models, by Monte Carlo: :func:`fastdens.analysis.kl_matrix`.

        Parameters
        ----------
        n_samples : int
            Draws from each model, at least 2.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        MonteCarloEstimate
            [M, M], in nats: row i, column j.
        """
        return divergences.kl_matrix(self, n_samples, generator)
