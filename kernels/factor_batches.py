"""Mixtures of factor analysers in torch operations over many models at a time, in float64 on any device.

The formulas are those of :mod:`fastdens.kernels.reference.factor_analysers`. Models are cut into tiles of as many rows,
the last tile of each filled up, and a block of tiles goes through one batched product for each component. Blocks are
filled up too, so that every product has a shape that depends on K, D and Q alone: a library may choose another order
of summation for another shape. The sums of tiles are added one after the other. So the other models of a batch change
nothing in the result of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.reference.factor_analysers import FAINT, NEGLIGIBLE, log_normaliser
from torch import Tensor

_TILE_ROWS = 32
# Models whose densities a block of points goes through at a time.
_MODELS_OF_BLOCK = 8
_MOST_COMPONENTS = 1024
# Numbers in a block of points: few launches on a GPU, and what a cache holds on a CPU.
_ELEMENTS_CUDA = 1 << 23
_ELEMENTS_CPU = 1 << 18
# Libraries for CPUs sum in another order at the edge of a matrix, and where one does not begin on a boundary of memory.
_WHOLE = 8
# A column that loses as much to the second pass lies in the span of those before it.
_LOST = 0.1


@dataclass(frozen=True)
class _Block:
    """T tiles of R rows, the first ``n_tiles`` of them of the batch, which are of the models ``models``."""

    n_tiles: int
    models: slice
    model: Tensor  # int64 [T]
    row: Tensor  # int64 [T, R], in the batch
    valid: Tensor  # bool [T, R]
    x: Tensor  # float64 [T, R, D]

    @cached_property
    def of_models(self) -> tuple[Tensor, Tensor]:
        """How many terms each of its models has, one and its tiles, and their order, model by model, int64."""
        everyone = torch.arange(self.models.start, self.models.stop, device=self.model.device)
        model = self.model[: self.n_tiles]
        order = torch.argsort(torch.cat([everyone, model]), stable=True)
        counts = torch.searchsorted(model, everyone, right=True) - torch.searchsorted(model, everyone)
        return counts + 1, order


class _Components(NamedTuple):
    """What densities follow from, float64."""

    log_joint_norm: Tensor  # [M, K]
    means: Tensor  # [M, K, D]
    scale: Tensor  # [M, K, D]
    directions: Tensor  # [M, K, Q, D]
    strengths: Tensor  # [M, K, Q]

    def at(self, models: Tensor, k: int) -> tuple[Tensor, ...]:
        """Component ``k`` of some of the models, by indices [T]."""
        return tuple(value[models, k] for value in self)


def whitened_loadings(loadings: Tensor, noise_variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`fastdens.kernels.reference.factor_analysers.whitened_loadings`.

    Decompositions of matrices [D, Q] are made one after the other on a GPU. An orthonormal basis comes first, and the
    decompositions are of [Q, Q].
    """
    *batch, d, q = loadings.shape
    scale = noise_variances.double().rsqrt()
    whitened = (loadings.double() * scale[..., None]).mT.reshape(-1, q, d)
    known = whitened.isfinite().flatten(1).all(1)
    whitened = torch.where(known[:, None, None], whitened, 0.0)
    directions, strengths = torch.empty_like(whitened), whitened.new_empty(len(whitened), q)
    for begin, end, at in _component_blocks(len(whitened), q * d, whitened.device):
        basis, triangle = _orthonormal(whitened[at])
        # What fills up comes last, or instead of directions that are not there.
        left, singular, _ = torch.linalg.svd(_whole(triangle))
        within, singular = _product(left[:, :q, :q].mT, basis), singular[:, :q]
        at_largest = within.abs().argmax(-1, keepdim=True)
        sign = torch.where(within.gather(-1, at_largest) < 0, -1.0, 1.0) * (singular > 0)[..., None]
        directions[begin:end] = (within * sign)[: end - begin]
        strengths[begin:end] = singular.square()[: end - begin]
    strengths = torch.where(known[:, None], strengths, torch.nan)
    return scale, directions.reshape(*batch, q, d), strengths.reshape(*batch, q)


def factor_mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> Tensor:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_mixture_log_prob`."""
    components = _components(weights, means, loadings, noise_variances)
    (n, d), m = points.shape, len(means)
    out = torch.empty(n, m, dtype=torch.float64, device=points.device)
    most = _MODELS_OF_BLOCK * max(d, means.shape[1] * loadings.shape[-1])
    n_rows = max(1, _elements(points.device) // (most * _TILE_ROWS)) * _TILE_ROWS
    for first, last, rows in _filled(n, n_rows, points.device):
        x = points[rows].double()
        for begin, end, models in _filled(m, _MODELS_OF_BLOCK, points.device):
            joint, _ = _joint(x, models, components)
            out[first:last, begin:end] = torch.logsumexp(joint, -1)[: end - begin, : last - first].mT
    return out


def factor_responsibilities(
    points: Tensor, layout: Layout, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_responsibilities`."""
    components = _components(weights, means, loadings, noise_variances)
    n, k = len(points), weights.shape[1]
    # The last row takes what is not of the batch.
    resp = torch.zeros(n + 1, k, dtype=torch.float64, device=points.device)
    log_prob = torch.zeros(n + 1, dtype=torch.float64, device=points.device)
    for block in _blocks(points, layout, k, loadings.shape[-1]):
        joint, _ = _joint(block.x, block.model, components)
        row = torch.where(block.valid, block.row, n)
        log_prob[row] = torch.logsumexp(joint, -1)
        resp[row] = torch.softmax(joint, -1)
    return resp[:n], log_prob[:n]


def factor_statistics(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    sample_weight: Tensor | None,
    resp: Tensor | None,
) -> tuple[Tensor, ...]:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_statistics`."""
    components = _components(weights, means, loadings, noise_variances)
    (m, k, d), q = means.shape, loadings.shape[-1]
    shapes = ((m,), (m, k), (m, k, d), (m, k, d), (m, k, q, d))
    sums = [torch.zeros(shape, dtype=torch.float64, device=points.device) for shape in shapes]
    log_likelihood, nk, moment, squares, cross = sums
    for block in _blocks(points, layout, k, q):
        joint, z = _joint(block.x, block.model, components)
        r = torch.softmax(joint, -1) if resp is None else resp[block.row].double()
        log_prob = torch.logsumexp(joint, -1)
        if sample_weight is not None:
            w = sample_weight[block.row].double()
            log_prob, r = w * log_prob, w[..., None] * r
        _add(log_likelihood, log_prob.masked_fill_(~block.valid, 0.0).sum(1), block)
        r = r.masked_fill_(~block.valid[..., None], 0.0)
        _add(nk, r.sum(1), block)
        for c in range(k):
            centred = (block.x - components.means[block.model, c][:, None]).masked_fill_(~block.valid[..., None], 0.0)
            shares = r[:, None, :, c]
            factors = z[c].masked_fill_(~block.valid[..., None], 0.0).mT * shares
            sums_of_tiles = _product(torch.cat([factors, shares], 1), centred)
            _add(cross[:, c], sums_of_tiles[:, :-1], block)
            _add(moment[:, c], sums_of_tiles[:, -1], block)
            _add(squares[:, c], _product(shares, centred.square_())[:, 0], block)
    return (*sums, components.directions)


def factor_update(
    nk: Tensor,
    moment: Tensor,
    squares: Tensor,
    cross: Tensor,
    directions: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    min_noise_variance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_update`."""
    q, d = directions.shape[-2:]
    values = nk, moment, squares, cross, directions, means, loadings, noise_variances
    flat = [value.flatten(0, 1) for value in values]
    new = [torch.empty_like(value, memory_format=torch.contiguous_format) for value in flat[5:]]
    for begin, end, at in _component_blocks(nk.numel(), q * d, nk.device):
        updated = _updated(min_noise_variance, *(value[at] for value in flat))
        for value, block in zip(new, updated, strict=True):
            value[begin:end] = block[: end - begin]
    new_means, new_loadings, new_noise = new
    return new_means.reshape(means.shape), new_loadings.reshape(loadings.shape), new_noise.reshape(means.shape)


def _updated(
    min_noise_variance: float,
    nk: Tensor,
    moment: Tensor,
    squares: Tensor,
    cross: Tensor,
    directions: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The next parameters of components [C]; one without points keeps its own."""
    q, occupied = directions.shape[1], (nk > 0)[:, None]
    counts = torch.where(occupied, nk[:, None], 1.0)
    sigma, shift = noise_variances.sqrt(), moment / counts
    variances = squares / counts - shift.square()
    within = _product(directions, (shift / sigma)[..., None])
    image = (cross / counts[..., None] - within * shift[:, None]) / sigma[:, None]
    inner = _product(directions, image.mT)
    known = inner.isfinite().flatten(1).all(1)
    inner = torch.where(known[:, None, None], inner, 0.0)
    # Eigenvalues ascend: what fills up comes first, or instead of those that are not usable.
    ritz, rotation = torch.linalg.eigh(_whole(0.5 * (inner + inner.mT)))
    ritz, rotation = ritz[:, -q:], rotation[:, :q, -q:]
    # A component that failed is NaN, and fails alone.
    ritz = torch.where(known[:, None], ritz, torch.nan)
    usable = ~(ritz <= NEGLIGIBLE * ritz.amax(-1, keepdim=True))
    share = torch.where(usable, (ritz - 1).clamp_min(FAINT).sqrt() / ritz, 0.0)
    image = share[..., None] * _product(rotation.mT, image)
    explained = image.square().sum(1) * noise_variances
    return (
        torch.where(occupied, means + shift, means),
        torch.where(occupied[..., None], image.mT * sigma[..., None], loadings),
        torch.where(occupied, (variances - explained).clamp_min(min_noise_variance), noise_variances),
    )


def _orthonormal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows [C, Q, D] and upper triangles R [C, Q, Q] with ``rows = R' basis``; a row that others span is 0.

    Gram-Schmidt, twice (Giraud, Langou & Rozloznik, The loss of orthogonality in the Gram-Schmidt orthogonalization
    process, Computers & Mathematics with Applications 50, 2005).
    """
    n, q, _ = rows.shape
    basis, triangle = torch.zeros_like(rows), rows.new_zeros(n, q, q)
    for i in range(q):
        row, length = rows[:, i : i + 1], rows.new_zeros(n, 1)
        for _ in range(2):
            part = (row * basis).sum(-1)
            row = row - (part[..., None] * basis).sum(1, keepdim=True)
            triangle[:, :, i] += part
            before, length = length, torch.linalg.vector_norm(row, dim=-1)
        kept = length > _LOST * before
        triangle[:, i, i : i + 1] += torch.where(kept, length, 0.0)
        basis[:, i] = torch.where(kept, row[:, 0] / length, 0.0)
    return basis, triangle


def _components(weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor) -> _Components:
    scale, directions, strengths = whitened_loadings(loadings, noise_variances)
    log_joint_norm = weights.double().log() + log_normaliser(scale, strengths)
    return _Components(log_joint_norm, means.double(), scale, directions, strengths)


def _joint(x: Tensor, models: Tensor, components: _Components) -> tuple[Tensor, list[Tensor]]:
    """``log pi_k N(x | k)`` [T, R, K] of points [T, R, D], or [R, D] for all, under models [T]; z [T, R, Q] of each."""
    joint, factors = [], []
    for k in range(components.means.shape[1]):
        norm, mean, scale, directions, strengths = components.at(models, k)
        y = (x - mean[:, None]) * scale[:, None]
        z = _product(y, directions.mT)
        form = (y - _product(z, directions)).square_().sum(-1)
        form += (z.square() / (1 + strengths[:, None])).sum(-1)
        joint.append(norm[:, None] - 0.5 * form)
        factors.append(z)
    return torch.stack(joint, -1), factors


def _blocks(points: Tensor, layout: Layout, n_components: int, n_factors: int) -> Iterator[_Block]:
    """The points of all models in blocks of tiles; models without points have none."""
    d, device = points.shape[1], points.device
    model, start, stop, _ = layout.tiles(_TILE_ROWS)
    tiles = (start < stop).nonzero()[:, 0]
    model, start, stop = model[tiles], start[tiles, None], stop[tiles, None]
    most = max(_TILE_ROWS * d, n_factors * d, _TILE_ROWS * n_components * n_factors)
    blocks = list(_filled(len(tiles), max(1, _elements(device) // most), device))
    # The one look at the models, which waits for the device.
    ends = model[[place for begin, end, _ in blocks for place in (begin, end - 1)]].reshape(-1, 2).tolist()
    for (begin, end, at), (first, last) in zip(blocks, ends, strict=True):
        row = start[at] + torch.arange(_TILE_ROWS, device=device)
        valid = row < stop[at]
        row = torch.minimum(row, stop[at] - 1)
        yield _Block(end - begin, slice(first, last + 1), model[at], row, valid, points[row].double())


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of matrices [T, ...], the bits of which depend neither on their place nor on that of a row."""
    rows, columns = a.shape[1], b.shape[2]
    return torch.bmm(_whole(a), _whole(b))[:, :rows, :columns]


def _whole(a: Tensor) -> Tensor:
    """Matrices whose sides are multiples of eight, filled up with zeros."""
    below, right = (-size % _WHOLE for size in a.shape[1:])
    return torch.nn.functional.pad(a, (0, right, 0, below)) if below or right else a


def _add(sums: Tensor, of_tiles: Tensor, block: _Block) -> None:
    """Add [T, ...] to the sums [M, ...] of the models, one tile after the other."""
    # On a GPU index_add_ adds in any order. What a model has is the first of its terms.
    own, (lengths, order) = sums[block.models], block.of_models
    terms = torch.cat([own, of_tiles[: block.n_tiles]])[order].reshape(len(order), -1)
    own.copy_(torch.segment_reduce(terms, "sum", lengths=lengths, unsafe=True).reshape(own.shape))


def _component_blocks(n: int, size: int, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
    """Blocks of components of ``size`` numbers each, as :func:`_filled`."""
    return _filled(n, min(_MOST_COMPONENTS, max(1, _elements(device) // size)), device)


def _filled(n: int, size: int, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
    """Runs ``begin:end`` of 0 to n, with ``size`` indices for each: those of the run, the last one repeated."""
    for begin in range(0, n, size):
        yield begin, min(begin + size, n), torch.arange(begin, begin + size, device=device).clamp_max_(n - 1)


def _elements(device: torch.device) -> int:
    return _ELEMENTS_CUDA if device.type == "cuda" else _ELEMENTS_CPU
