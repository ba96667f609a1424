"""Derivatives of log-densities in the points, in float64 and plain torch, which differentiates them again.

With the responsibilities r_k of the components k of a model, and the slopes ``s_k = d log joint_k / dx``, the gradient
of its log-density is ``g = sum_k r_k s_k``, and its Hessian is ``sum_k r_k (s_k s_k' + d s_k / dx) - g g'``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.mixture import Components
from fastdens.kernels.surroundings import outside_transforms
from torch import Tensor

# Numbers of a block of rows under the components of one model.
_MAX_ELEMENTS = 1 << 22


class _Model(NamedTuple):
    """Some rows and the components of one model, in float64."""

    rows: slice
    column: int  # of log-densities [N, M]
    log_joint_norm: Tensor  # [K]
    means: Tensor  # [K, D]
    factors: Tensor  # U [K, D, D], or its diagonal [K, D]
    degrees_of_freedom: Tensor | None  # [K]
    directions: Tensor | None  # A [K, D, Q] where U is its diagonal times I - A A'

    def precision_times(self, vectors: Tensor) -> Tensor:
        """``U_k U_k' v`` [n, K, D] of vectors [n, K, D] or [n, 1, D]."""
        return self.transposed_factor_times(self.factor_times(vectors))

    def factor_times(self, vectors: Tensor) -> Tensor:
        """``U_k' v`` [n, K, D]."""
        if self.factors.ndim == 2:
            return self._outside_directions(vectors * self.factors)
        return (vectors.transpose(0, 1) @ self.factors).transpose(0, 1)

    def transposed_factor_times(self, vectors: Tensor) -> Tensor:
        """``U_k v`` [n, K, D]."""
        if self.factors.ndim == 2:
            return self._outside_directions(vectors) * self.factors
        return (vectors.transpose(0, 1) @ self.factors.mT).transpose(0, 1)

    def _outside_directions(self, vectors: Tensor) -> Tensor:
        """``(I - A_k A_k') v`` [n, K, D]; v itself where there is no A."""
        if self.directions is None:
            return vectors
        inside = vectors.transpose(0, 1) @ self.directions @ self.directions.mT
        return vectors - inside.transpose(0, 1)

    def terms(self, points: Tensor) -> _Terms:
        x = points[self.rows].double()
        y = self.factor_times(x[:, None] - self.means)
        pull = self.transposed_factor_times(y)
        form = y.square().sum(-1)
        if self.degrees_of_freedom is None:
            joint = self.log_joint_norm - 0.5 * form
            weight, bend = torch.ones_like(form), torch.zeros_like(form)
        else:
            nu = self.degrees_of_freedom
            power = nu + x.shape[1]
            joint = self.log_joint_norm - 0.5 * power * torch.log1p(form / nu)
            weight, bend = power / (nu + form), 2 * power / (nu + form).square()
        return _Terms(torch.softmax(joint, 1), -weight[..., None] * pull, weight, bend, pull)


class _Terms(NamedTuple):
    """Of each row and component, [n, K] and [n, K, D]: ``d s_k / dx = bend pull pull' - weight U U'``."""

    resp: Tensor
    slope: Tensor
    weight: Tensor
    bend: Tensor
    pull: Tensor  # U U' (x - mu)


def directional(points: Tensor, tangent: Tensor, components: Components, layout: Layout | None) -> Tensor:
    """Derivatives of the log-densities along ``tangent`` [N, D]: [N, M], with a layout [N]."""
    blocks = []
    for model in _models(points, components, layout):
        terms = model.terms(points)
        along = (terms.slope * tangent[model.rows].double()[:, None]).sum(-1)
        blocks.append((model, (terms.resp * along).sum(1)))
    return _assembled(points, blocks, components.n_models if layout is None else None)


def gradient(points: Tensor, cotangent: Tensor, components: Components, layout: Layout | None) -> Tensor:
    """``sum_m c_m g_m`` [N, D] of cotangents c [N, M], with a layout [N]."""
    blocks = []
    for model in _models(points, components, layout):
        resp, slope, *_ = model.terms(points)
        blocks.append((model, _weighed(cotangent, model, (resp[..., None] * slope).sum(1))))
    return _summed(points, blocks)


def hessian_product(
    points: Tensor, cotangent: Tensor, vector: Tensor, components: Components, layout: Layout | None
) -> Tensor:
    """``sum_m c_m H_m v`` [N, D] of cotangents c [N, M], with a layout [N], and a vector v [N, D], H the Hessian."""
    blocks = []
    for model in _models(points, components, layout):
        resp, slope, weight, bend, pull = model.terms(points)
        v = vector[model.rows].double()[:, None]
        along = (slope * v).sum(-1, keepdim=True)
        mean_along = (resp[..., None] * along).sum(1, keepdim=True)
        turn = (bend * (pull * v).sum(-1))[..., None] * pull - weight[..., None] * model.precision_times(v)
        product = (resp[..., None] * ((along - mean_along) * slope + turn)).sum(1)
        blocks.append((model, _weighed(cotangent, model, product)))
    return _summed(points, blocks)


def _models(points: Tensor, components: Components, layout: Layout | None) -> Iterator[_Model]:
    """Blocks of rows, of bounded size, under the model that owns them, or under every model."""
    n_points, d = points.shape
    # Inside a transform torch 2.9 has no lists of tensors.
    with outside_transforms():
        offsets = components.offsets.tolist()
        ranges = [[0, n_points]] * components.n_models if layout is None else layout.ranges.tolist()
    log_joint_norm = components.log_joint_norm.reshape(-1)
    # A component of weight zero adds nothing, whatever its parameters are.
    dead = log_joint_norm == -torch.inf
    means = components.means.double().reshape(-1, d).masked_fill(dead[:, None], 0)
    dof, directions = components.degrees_of_freedom, components.directions
    if directions is not None:
        directions = directions.reshape(-1, *directions.shape[-2:]).masked_fill(dead[:, None, None], 0)
    for m, (start, stop) in enumerate(ranges):
        own = slice(offsets[m], offsets[m + 1])
        n_components = offsets[m + 1] - offsets[m]
        if components.tied:
            factors = components.factors[m].double().expand(n_components, d, d)
        else:
            shape = (-1, d, d) if components.triangular else (-1, d)
            factors = components.factors.reshape(shape)[own].double()
            factors = factors.masked_fill(dead[own].reshape(-1, *[1] * (factors.ndim - 1)), 0)
        step = max(1, _MAX_ELEMENTS // max(1, n_components * d))
        for begin in range(start, stop, step) if n_components else ():
            yield _Model(
                slice(begin, min(stop, begin + step)),
                m if layout is None else 0,
                log_joint_norm[own],
                means[own],
                factors,
                None if dof is None else dof[own].double(),
                None if directions is None else directions[own],
            )


def _weighed(cotangent: Tensor, model: _Model, vectors: Tensor) -> Tensor:
    """Vectors [n, D] times the cotangent of their row and model."""
    own = cotangent[model.rows] if cotangent.ndim == 1 else cotangent[model.rows, model.column]
    return own.double()[:, None] * vectors


def _assembled(points: Tensor, blocks: list[tuple[_Model, Tensor]], n_columns: int | None) -> Tensor:
    """Values [n] of blocks of rows as [N, M], or [N] where ``n_columns`` is None; zero where there are none."""
    n_points = points.shape[0]
    out = torch.zeros(n_points * (n_columns or 1), dtype=torch.float64, device=points.device)
    for model, values in blocks:
        rows = torch.arange(model.rows.start, model.rows.stop, device=points.device)
        out = out.index_add(0, rows if n_columns is None else rows * n_columns + model.column, values)
    return out.to(points.dtype).reshape((n_points,) if n_columns is None else (n_points, n_columns))


def _summed(points: Tensor, blocks: list[tuple[_Model, Tensor]]) -> Tensor:
    """Sum of vectors [n, D] of blocks of rows, [N, D]."""
    out = torch.zeros(points.shape, dtype=torch.float64, device=points.device)
    for model, vectors in blocks:
        rows = torch.arange(model.rows.start, model.rows.stop, device=points.device)
        out = out.index_add(0, rows, vectors)
    return out.to(points.dtype)
