"""Densities inside networks: a head that scores features under all classes, and learns from them while they train."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Hashable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastdens.batch import RaggedBatch
from fastdens.distributions.base import BatchedDensity
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.distributions.module import PreciseModule
from fastdens.errors import NotFittedError, check_integer
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.reduction import UncentredSVD


class DensityHead(PreciseModule):
    """Log-densities of features under every class: the last module of a network, or one beside its last.

    A forward pass is differentiable in the features, any number of times; it trains no parameters, and computes in
    float32 or float64, also of features that autocast has made in half precision. The mixtures are buffers, in
    ``state_dict``, and learn by :meth:`partial_fit`. A class that is not known yet, for it had too few points, scores
    minus infinity: neither softmax nor argmax chooses it.

    Parameters
    ----------
    n_features : int
        Number of features D.
    classes : int or sequence
        The classes 0, ..., M - 1, or their labels, in the order of the scores.
    n_components : int
        Components of each class.
    covariance_type : {"full", "diag", "spherical", "tied"}
    log_prior : array or Tensor, optional
        [M], added to the log-densities: softmax of their sum is the probability of each class.
    projection : UncentredSVD or Tensor, optional
        A fitted one, or its matrix [P, D]: densities are those of the P coordinates of the features.
    device, dtype : optional
        Of the buffers, as for the modules of torch.
    **options
        Further parameters of :class:`~fastdens.GaussianMixtures`, such as ``reg_covar`` and ``step_power``.

    Attributes
    ----------
    density : BatchedDensity
        The module that scores.
    classes : tuple
        The label of each score.
    estimator : GaussianMixtures or None
        What learns; None of a head that only scores. ``failed_`` are the classes that are not known.

    Notes
    -----
    ``state_dict`` also holds the estimator with its parameters, as the bytes of ``_extra_state``: learning goes on
    after ``load_state_dict`` as if it had never stopped. DistributedDataParallel sends the buffers of rank 0 to all
    others: let that rank learn, from the features of all.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> head = fd.nn.DensityHead(8, 3, covariance_type="diag")
    >>> x, y = torch.randn(60, 8), torch.arange(60) % 3
    >>> head.partial_fit(x, y)(x).shape
    torch.Size([60, 3])
    """

    density: BatchedDensity
    classes: tuple[Hashable, ...]
    log_prior: Tensor | None
    projection: Tensor | None

    def __init__(
        self,
        n_features: int,
        classes: int | Sequence[Hashable],
        *,
        n_components: int = 1,
        covariance_type: str = "full",
        log_prior: ArrayLike | Tensor | None = None,
        projection: UncentredSVD | Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_integer("n_features", n_features, 1)
        labels = tuple(range(check_integer("classes", classes, 1)) if isinstance(classes, int) else classes)
        estimator = GaussianMixtures(n_components, covariance_type=covariance_type, **options)
        matrix = _matrix(projection)
        if matrix is not None and matrix.shape[1] != n_features:
            raise ValueError(f"projection has D = {matrix.shape[1]}, but n_features is {n_features}: they must agree.")
        density = GaussianMixtureDensity.unknown(
            len(labels),
            n_components,
            n_features if matrix is None else len(matrix),
            covariance_type,
            estimator.backend,
            estimator.matmul_precision,
            device=device,
            dtype=dtype,
        )
        self._set_up(density, labels, estimator, log_prior, matrix)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMixtures,
        *,
        log_prior: ArrayLike | Tensor | None = None,
        projection: UncentredSVD | Tensor | None = None,
    ) -> Self:
        """A head of fitted models, which it copies; that of Gaussian mixtures goes on learning from where they stand.

        Parameters
        ----------
        estimator : GaussianMixtures, DirichletProcessMixtures or another
            Fitted, to the coordinates of ``projection`` if there is one.
        log_prior, projection : optional
            As for the class.

        Returns
        -------
        DensityHead
            With buffers of its own.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        density: BatchedDensity = estimator.density().clone()  # type: ignore[attr-defined]
        classes = estimator.classes_ or tuple(range(density.n_models))
        learning = copy.copy(estimator) if isinstance(estimator, GaussianMixtures) else None
        return cls._of(density, classes, learning, log_prior, projection)

    @classmethod
    def from_density(
        cls,
        density: BatchedDensity,
        *,
        log_prior: ArrayLike | Tensor | None = None,
        projection: UncentredSVD | Tensor | None = None,
    ) -> Self:
        """A head that only scores, under a density that it copies.

        Parameters
        ----------
        density : GaussianMixtureDensity, StudentTMixtureDensity or another
            Of the coordinates of ``projection``, if there is one.
        log_prior, projection : optional
            As for the class.

        Returns
        -------
        DensityHead
            With buffers of its own; :meth:`partial_fit` is an error.
        """
        return cls._of(density.clone(), tuple(range(density.n_models)), None, log_prior, projection)

    @classmethod
    def _of(
        cls,
        density: BatchedDensity,
        classes: tuple[Hashable, ...],
        estimator: GaussianMixtures | None,
        log_prior: ArrayLike | Tensor | None,
        projection: UncentredSVD | Tensor | None,
    ) -> Self:
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head._set_up(density, classes, estimator, log_prior, _matrix(projection))
        return head

    def _set_up(
        self,
        density: BatchedDensity,
        classes: tuple[Hashable, ...],
        estimator: GaussianMixtures | None,
        log_prior: ArrayLike | Tensor | None,
        matrix: Tensor | None,
    ) -> None:
        if matrix is not None and len(matrix) != density.n_features:
            raise ValueError(
                f"projection has {len(matrix)} coordinates, but the models have D = {density.n_features}: fit them to "
                "what it gives."
            )
        prior = (
            None
            if log_prior is None
            else torch.as_tensor(log_prior, dtype=density.dtype, device=density.device).clone()
        )
        if prior is not None and tuple(prior.shape) != (density.n_models,):
            raise ValueError(f"log_prior has shape {tuple(prior.shape)}, but there are {density.n_models} classes.")
        self.density, self.classes, self.estimator = density, classes, estimator
        self.register_buffer("log_prior", prior)
        matrix = None if matrix is None else matrix.detach().to(density.device, density.dtype, copy=True)
        self.register_buffer("projection", matrix)

    def extra_repr(self) -> str:
        """Number of features and whether it learns, for ``repr``.

        Returns
        -------
        str
            What torch writes between the brackets.
        """
        return f"n_features={self.n_features}, learns={self.estimator is not None}"

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.density.n_features if self.projection is None else self.projection.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Log-density of features under every class, plus the log-prior if there is one.

        Parameters
        ----------
        features : Tensor
            [..., D], before the projection.

        Returns
        -------
        Tensor
            [..., M]; differentiable in the features.

        Raises
        ------
        ValueError
            If D or the device differ.
        """
        points = self._points(features)
        # Backward needs the density of the forward pass, which may have learned in between.
        density = self.density.clone() if self.training and points.requires_grad else self.density
        scores: Tensor = density(points)
        unknown = scores.isnan() & points.isfinite().all(1, keepdim=True)
        scores = scores.masked_fill(unknown, -torch.inf)
        if self.log_prior is not None:
            scores = scores + self.log_prior
        return scores.reshape(*features.shape[:-1], scores.shape[1])

    @torch.no_grad()
    def partial_fit(
        self, features: Tensor, labels: ArrayLike | Tensor, sample_weight: ArrayLike | Tensor | None = None
    ) -> Self:
        """Learn from one batch, by a step of stepwise EM in each class that has points in it.

        Gradients do not flow through it, and the buffers change in place. See
        :meth:`fastdens.GaussianMixtures.partial_fit`.

        Parameters
        ----------
        features : Tensor
            [..., D].
        labels : array or Tensor
            [...], among ``classes``; some may be missing in a batch.
        sample_weight : array or Tensor, optional
            [...].

        Returns
        -------
        DensityHead
            Itself.

        Raises
        ------
        ModelError
            If a class has NaN or infinity in the batch, which leaves the head as it was; not with
            ``on_error="skip"``, which leaves out the points of that class.
        TypeError, ValueError
            If the head only scores, or shapes or labels do not fit.
        """
        if self.estimator is None:
            raise TypeError(
                f"this head scores under a {type(self.density).__name__}, and does not learn: make one with "
                "DensityHead(n_features, classes), or from fitted GaussianMixtures."
            )
        batch = RaggedBatch.from_labels(self._points(features), _flat(labels), classes=self.classes)
        self.estimator = _on_device(self.estimator, batch.device)
        self.estimator.partial_fit(batch, None if sample_weight is None else _flat(sample_weight))
        learned = dict(self.estimator.density().named_buffers())
        for name, buffer in self.density.named_buffers():
            buffer.copy_(learned[name])
        return self

    def _points(self, features: Tensor) -> Tensor:
        """Features [..., D] as points [N, P], in the dtype of the density."""
        if features.ndim == 0 or features.shape[-1] != self.n_features:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, but the head takes [..., {self.n_features}]: put their "
                "axis last."
            )
        points = features.reshape(-1, features.shape[-1]).to(self.density.dtype)
        return points if self.projection is None else points @ self.projection.mT

    def get_extra_state(self) -> Tensor:
        """The estimator with its parameters, as bytes: uint8, none before it has learned.

        Returns
        -------
        Tensor
            uint8, the bytes; empty before it has learned.
        """
        stream = io.BytesIO()
        if self.estimator is not None:
            with contextlib.suppress(NotFittedError):
                torch.save(self.estimator.get_state(), stream)
        return torch.from_numpy(np.frombuffer(stream.getvalue(), np.uint8).copy())

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what :meth:`get_extra_state` gave.

        Parameters
        ----------
        state : Tensor
            The bytes.

        Raises
        ------
        ValueError
            If the state is not one of an estimator of these classes.
        """
        if not len(state):
            self.estimator = None if self.estimator is None else _anew(self.estimator)
        else:
            stream = io.BytesIO(state.cpu().numpy().tobytes())
            tensors, metadata = torch.load(stream, weights_only=True, map_location=self.density.device)
            self.estimator = GaussianMixtures.from_state(tensors, metadata, "the state of the head")


def _matrix(projection: UncentredSVD | Tensor | None) -> Tensor | None:
    """The matrix [P, D] of a projection."""
    if isinstance(projection, UncentredSVD):
        if not hasattr(projection, "components_"):
            raise NotFittedError(projection, "fit(x)")
        return projection.components_
    if projection is not None and projection.ndim != 2:
        raise ValueError(f"projection has shape {tuple(projection.shape)}, but it must be [P, D].")
    return projection


def _flat(values: ArrayLike | Tensor) -> Any:
    """Values [...] of rows as [N], if they are an array."""
    return values.reshape(-1) if hasattr(values, "reshape") else values


def _anew(estimator: GaussianMixtures) -> GaussianMixtures:
    """An estimator of the same parameters that has seen nothing."""
    return GaussianMixtures(**{name: getattr(estimator, name) for name in estimator._parameter_names()})


def _on_device(estimator: GaussianMixtures, device: torch.device) -> GaussianMixtures:
    """An estimator that goes on from where another stands, on a device."""
    if not hasattr(estimator, "failed_") or estimator.failed_.device == device:
        return estimator
    tensors, metadata = estimator.get_state()
    return GaussianMixtures.from_state({name: tensor.to(device) for name, tensor in tensors.items()}, metadata)
