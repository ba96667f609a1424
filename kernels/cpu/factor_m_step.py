"""CPU twin of :mod:`fastdens.kernels.factor_m_step`: loadings in units of the noise, and the M step."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.reference.factor_analysers import FAINT, NEGLIGIBLE
from torch import Tensor

_MOST_SWEEPS = 60
# Cosine of the angle between two directions, and share of an off-diagonal element, that count as zero.
_PRECISION = 1e-15


@kernel
def _orthogonalise(rows, strengths):
    """Rotate rows [Q, D] among each other until they are orthogonal; their squared lengths, descending; then unit rows.

    One-sided Jacobi iterations, which find short rows as precisely as long ones (Demmel & Veselic, Jacobi's method is
    more accurate than QR, SIAM Journal on Matrix Analysis and Applications 13, 1992). The largest element of each row
    becomes positive; a row of zeros stays.
    """
    n_rows, n_columns = rows.shape
    for _ in range(_MOST_SWEEPS):
        rotated = False
        for p in range(n_rows - 1):
            for q in range(p + 1, n_rows):
                alpha = beta = gamma = 0.0
                for d in range(n_columns):
                    a, b = rows[p, d], rows[q, d]
                    alpha += a * a
                    beta += b * b
                    gamma += a * b
                # False where one is NaN, too.
                if abs(gamma) > _PRECISION * n_columns * np.sqrt(alpha) * np.sqrt(beta):
                    rotated = True
                    cosine, sine = _rotation(alpha, beta, gamma)
                    for d in range(n_columns):
                        a, b = rows[p, d], rows[q, d]
                        rows[p, d] = cosine * a - sine * b
                        rows[q, d] = sine * a + cosine * b
        if not rotated:
            break
    for q in range(n_rows):
        total = 0.0
        for d in range(n_columns):
            total += rows[q, d] * rows[q, d]
        strengths[q] = total
    for p in range(n_rows):
        best = p
        for q in range(p + 1, n_rows):
            if strengths[q] > strengths[best]:
                best = q
        length, largest = np.sqrt(strengths[best]), 0.0
        strengths[best], strengths[p] = strengths[p], strengths[best]
        for d in range(n_columns):
            rows[p, d], rows[best, d] = rows[best, d], rows[p, d]
            if abs(rows[p, d]) > abs(largest):
                largest = rows[p, d]
        factor = (1.0 if largest > 0.0 else -1.0) / length if length > 0.0 else 0.0
        for d in range(n_columns):
            rows[p, d] *= factor


@kernel
def _rotation(alpha, beta, gamma):
    """Cosine and sine of the rotation that makes [[alpha, gamma], [gamma, beta]] diagonal."""
    zeta = (beta - alpha) / (2.0 * gamma)
    tangent = (1.0 if zeta >= 0.0 else -1.0) / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
    cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
    return cosine, cosine * tangent


@kernel
def _diagonalise(matrix, rotation):
    """Make a symmetric matrix [Q, Q] diagonal by cyclic Jacobi rotations; ``rotation' matrix rotation`` is the result.

    Golub & Van Loan, Matrix Computations, 2013, section 8.5.
    """
    n = len(matrix)
    rotation[:] = 0.0
    for q in range(n):
        rotation[q, q] = 1.0
    for _ in range(_MOST_SWEEPS):
        rotated = False
        for p in range(n - 1):
            for q in range(p + 1, n):
                gamma = matrix[p, q]
                if abs(gamma) > _PRECISION * np.sqrt(abs(matrix[p, p])) * np.sqrt(abs(matrix[q, q])):
                    rotated = True
                    cosine, sine = _rotation(matrix[p, p], matrix[q, q], gamma)
                    for i in range(n):
                        a, b = matrix[i, p], matrix[i, q]
                        matrix[i, p] = cosine * a - sine * b
                        matrix[i, q] = sine * a + cosine * b
                    for i in range(n):
                        a, b = matrix[p, i], matrix[q, i]
                        matrix[p, i] = cosine * a - sine * b
                        matrix[q, i] = sine * a + cosine * b
                    matrix[p, q] = 0.0
                    matrix[q, p] = 0.0
                    for i in range(n):
                        a, b = rotation[i, p], rotation[i, q]
                        rotation[i, p] = cosine * a - sine * b
                        rotation[i, q] = sine * a + cosine * b
        if not rotated:
            break


@kernel
def _whiten(begin, end, loadings, noise_variances, scale, directions, strengths):
    n_features, n_factors = loadings.shape[1:]
    for g in range(begin, end):
        for d in range(n_features):
            scale[g, d] = 1.0 / np.sqrt(noise_variances[g, d])
            for q in range(n_factors):
                directions[g, q, d] = loadings[g, d, q] * scale[g, d]
        _orthogonalise(directions[g], strengths[g])


def whitened(loadings: Tensor, noise_variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`fastdens.kernels.reference.factor_analysers.whitened_loadings`."""
    *batch, d, q = loadings.shape
    shapes = ((*batch, d), (*batch, q, d), (*batch, q))
    scale, directions, strengths = (torch.empty(shape, dtype=torch.float64, device="cpu") for shape in shapes)
    parallel_for(
        _whiten,
        loadings[..., 0, 0].numel(),
        as_array(loadings.double()).reshape(-1, d, q),
        as_array(noise_variances.double()).reshape(-1, d),
        scale.numpy().reshape(-1, d),
        directions.numpy().reshape(-1, q, d),
        strengths.numpy().reshape(-1, q),
    )
    return scale, directions, strengths


@kernel
def _update(begin, end, nk, moment, squares, cross, directions, floor, means, loadings, noise_variances):
    """The M step of components ``begin:end`` of all, in place; one that no point belongs to stays as it is."""
    n_factors, n_features = directions.shape[1:]
    image = np.empty((n_factors, n_features))
    inner = np.empty((n_factors, n_factors))
    rotation = np.empty((n_factors, n_factors))
    shift_within = np.empty(n_factors)
    row = np.empty(n_factors)
    share = np.empty(n_factors)
    for g in range(begin, end):
        if not nk[g] > 0.0:
            continue
        for q in range(n_factors):
            total = 0.0
            for d in range(n_features):
                total += directions[g, q, d] * (moment[g, d] / nk[g]) / np.sqrt(noise_variances[g, d])
            shift_within[q] = total
        # S V of the covariance S of the component's points in units of the noise.
        for q in range(n_factors):
            for d in range(n_features):
                covariance = cross[g, q, d] / nk[g] - shift_within[q] * (moment[g, d] / nk[g])
                image[q, d] = covariance / np.sqrt(noise_variances[g, d])
        for p in range(n_factors):
            for q in range(n_factors):
                total = 0.0
                for d in range(n_features):
                    total += directions[g, p, d] * image[q, d]
                inner[p, q] = total
        for p in range(n_factors):
            for q in range(p):
                mean = 0.5 * (inner[p, q] + inner[q, p])
                inner[p, q] = mean
                inner[q, p] = mean
        _diagonalise(inner, rotation)
        largest = 0.0
        for q in range(n_factors):
            largest = max(largest, inner[q, q])
        for q in range(n_factors):
            ritz = inner[q, q]
            share[q] = np.sqrt(max(ritz - 1.0, FAINT)) / ritz if ritz > NEGLIGIBLE * largest else 0.0
        for d in range(n_features):
            sigma, shift = np.sqrt(noise_variances[g, d]), moment[g, d] / nk[g]
            row[:] = 0.0
            for p in range(n_factors):
                for q in range(n_factors):
                    row[q] += rotation[p, q] * image[p, d]
            explained = 0.0
            for q in range(n_factors):
                loading = share[q] * row[q] * sigma
                loadings[g, d, q] = loading
                explained += loading * loading
            noise = squares[g, d] / nk[g] - shift * shift - explained
            # NaN stays visible.
            noise_variances[g, d] = floor if noise < floor else noise
            means[g, d] += shift


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
    shapes = ((-1,), (-1, d), (-1, d), (-1, q, d), (-1, q, d), (-1, d), (-1, d, q), (-1, d))
    old = means, loadings, noise_variances
    new = [value.clone(memory_format=torch.contiguous_format) for value in old]
    arrays = [
        as_array(value).reshape(shape)
        for value, shape in zip((nk, moment, squares, cross, directions, *new), shapes, strict=True)
    ]
    parallel_for(_update, nk.numel(), *arrays[:5], min_noise_variance, *arrays[5:])
    new_means, new_loadings, new_noise = new
    return new_means, new_loadings, new_noise
