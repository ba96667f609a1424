"""The default products of a GPU, emulated: their error against that of IEEE float32, both measured against float64.

Triton makes a float32 product of ``tf32x3`` from three on tensor cores, ``small big + big small + big big``, where big
is the operand rounded to TF32 (half away from zero) and small the rest, of which the tensor core drops what TF32 does
not hold. A tensor core takes eight products at a time, aligns them and the sum so far to the largest of the nine with
two bits to spare, cuts off what is below, adds, and cuts the sum to float32 (Fasi, Higham, Mikaitis & Pranesh,
"Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 2021).
"""

from __future__ import annotations

import numpy as np
import pytest

PRODUCTS_AT_A_TIME = 8


def cut_to(a, n_bits):
    """Float32 or float64 cut to a significand of so many bits, towards zero."""
    significand, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.trunc(np.ldexp(significand, n_bits)), exponent - n_bits)


def to_tf32(a):
    """Rounded to the 11 bits of TF32, half away from zero, as ``cvt.rna.tf32.f32`` does."""
    significand, exponent = np.frexp(np.asarray(a, np.float64))
    scaled = np.ldexp(significand, 11)
    return np.ldexp(np.trunc(scaled + np.copysign(0.5, scaled)), exponent - 11)


def tensor_core(a, b, total):
    """``total + a b`` of matrices that TF32 holds."""
    for first in range(0, a.shape[1], PRODUCTS_AT_A_TIME):
        run = slice(first, first + PRODUCTS_AT_A_TIME)
        terms = np.concatenate([total[None], a[:, run].T[:, :, None] * b[run][:, None, :]])
        unit = np.ldexp(1.0, np.frexp(np.abs(terms).max(0))[1] - 26)
        total = cut_to((np.trunc(terms / unit) * unit).sum(0), 24)
    return total


def dot_tf32x3(a, b, total):
    """``total + a b`` as ``tl.dot(a, b, total, input_precision="tf32x3")``."""
    a_big, b_big = to_tf32(a), to_tf32(b)
    a_small, b_small = cut_to(a - a_big, 11), cut_to(b - b_big, 11)
    product = tensor_core(a_small, b_big, np.zeros(total.shape))
    product = tensor_core(a_big, b_big, tensor_core(a_big, b_small, product))
    return (product.astype(np.float32) + total.astype(np.float32)).astype(np.float64)


def dot_tf32(a, b, total):
    """``total + a b`` as with ``input_precision="tf32"``."""
    return tensor_core(to_tf32(a), to_tf32(b), total)


def dot_ieee(a, b, total):
    """``total + a b`` by fused multiply-adds in float32, one after the other."""
    for k in range(a.shape[1]):
        total = (total + a[:, k, None] * b[k]).astype(np.float32).astype(np.float64)
    return total


def gaussian(rng, n_features, condition):
    """Points [500, D] of a Gaussian whose covariance has that condition number, its mean and U, in float32."""
    axes, _ = np.linalg.qr(rng.normal(size=(n_features, n_features)))
    scales = np.sqrt(np.geomspace(1, 1 / condition, n_features))
    covariance = (axes * scales**2) @ axes.T
    mean = rng.normal(size=n_features)
    points = mean + (rng.normal(size=(500, n_features)) * scales) @ axes.T
    factor = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return points.astype(np.float32), mean.astype(np.float32), np.triu(factor).astype(np.float32)


def error(value, expected):
    return np.sqrt(np.square(value - expected).mean() / np.square(expected).mean())


def errors(rng, dot, n_features, condition, block_n=64, block_d=32):
    """Relative errors of the log-density and of the scatter, the two results of products in EM."""
    points, mean, factor = gaussian(rng, n_features, condition)
    resp = rng.uniform(size=(len(points), 1)).astype(np.float32)
    centred = points - mean
    y = np.zeros(points.shape)
    for j in range(0, n_features, block_d):
        columns = slice(j, j + block_d)
        for i in range(0, j + 1, block_d):
            rows = slice(i, i + block_d)
            z, u = centred[:, rows].astype(np.float64), factor[rows, columns].astype(np.float64)
            y[:, columns] = dot(z, u, y[:, columns])
    scatter = np.zeros((n_features, n_features))
    for first in range(0, len(points), block_n):
        rows = slice(first, first + block_n)
        scatter = dot((centred * resp)[rows].astype(np.float64).T, centred[rows].astype(np.float64), scatter)
    norm = np.log(factor.diagonal().astype(np.float64)).sum() - n_features / 2 * np.log(2 * np.pi)
    log_prob = np.float32(norm) - np.square(y.astype(np.float32)).sum(1) / 2
    exact = points.astype(np.float64) - mean
    return np.array(
        [
            error(log_prob, norm - np.square(exact @ factor).sum(1) / 2),
            error(scatter, (exact * resp).T @ exact),
        ]
    )


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("n_features", [33, 64])
def test_error_is_at_most_twice_that_of_float32(seed, n_features, condition):
    tf32x3, ieee, tf32 = (
        errors(np.random.default_rng(seed), dot, n_features, condition) for dot in (dot_tf32x3, dot_ieee, dot_tf32)
    )
    print("tf32x3", tf32x3, "ieee", ieee, "tf32", tf32)
    assert (tf32x3 < 2 * ieee).all()
    assert (ieee < 1e-6).all()
    # TF32 alone has three digits: the emulation sees what there is to see.
    assert (tf32 > 50 * ieee).all()
