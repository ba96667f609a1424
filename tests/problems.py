"""Random problems for the tests: ragged batches and well-conditioned mixtures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from fastdens.kernels import reference
from fastdens.kernels.layout import Layout
from torch import Tensor

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}

# Backends and the devices they run on, as parameters of tests.
CPU = pytest.param("cpu", "cpu", id="cpu")
INTERPRETER = pytest.param("triton", "cpu", id="triton-interpreter")
GPU = pytest.param("triton", "cuda", id="triton-gpu", marks=pytest.mark.gpu)
REFERENCE = pytest.param("reference", "cpu", id="reference")


class Problem(NamedTuple):
    points: Tensor
    offsets: Tensor
    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor


def mixture_problem(
    rng: np.random.Generator,
    sizes: list[int],
    n_features: int,
    n_components: int,
    covariance_type: str,
    dtype: torch.dtype = torch.float64,
    shift: float = 0.0,
    device: str = "cpu",
) -> Problem:
    """Points and unrelated mixtures whose components overlap, so that responsibilities are neither 0 nor 1."""
    m, k, d = len(sizes), n_components, n_features
    x = torch.from_numpy(rng.normal(size=(sum(sizes), d)) + shift)
    root = torch.from_numpy(rng.normal(size=(m, k, d, 2 * d + 1)) / np.sqrt(2 * d + 1))
    covariance = root @ root.mT
    covariance = {
        "full": covariance,
        "tied": covariance[:, 0],
        "diag": covariance.diagonal(dim1=-2, dim2=-1),
        "spherical": covariance[..., 0, 0],
    }[covariance_type]
    factor, _ = reference.precision_cholesky(covariance, covariance_type=covariance_type)
    means = torch.from_numpy(0.3 * rng.normal(size=(m, k, d)) + shift)
    weights = torch.from_numpy(rng.dirichlet(np.ones(k), size=m))
    offsets = torch.tensor([0, *sizes]).cumsum(0).to(device)
    return Problem(x.to(device, dtype), offsets, *(t.to(device, dtype).contiguous() for t in (weights, means, factor)))


def ranges_of(offsets: Tensor) -> Tensor:
    return torch.stack([offsets[:-1], offsets[1:]], 1)


def layout_of(offsets: Tensor) -> Layout:
    return Layout.from_offsets(offsets, int(offsets[-1]))


def relative_error(value: Tensor, expected: Tensor, floor: float = 1.0) -> float:
    """Largest difference, relative to the largest expected magnitude; NaN never passes a comparison.

    Problems have unit variance: a magnitude under ``floor``, as the scatter of a single point, is one of rounding.
    """
    value, expected = value.detach().double().cpu(), expected.detach().double().cpu()
    assert value.shape == expected.shape
    if value.numel() == 0:
        return 0.0
    return float((value - expected).abs().max() / expected.abs().max().clamp_min(floor))


class StudentTProblem(NamedTuple):
    points: Tensor
    offsets: Tensor
    log_weights: Tensor
    locations: Tensor
    scale_precisions_cholesky: Tensor
    degrees_of_freedom: Tensor


def student_t_problem(
    rng: np.random.Generator,
    n_points: int,
    n_features: int,
    n_components: list[int],
    dtype: torch.dtype = torch.float64,
    shift: float = 0.0,
    device: str = "cpu",
) -> StudentTProblem:
    """Points and unrelated mixtures of overlapping Student-t distributions, one for each entry of ``n_components``."""
    d, g = n_features, sum(n_components)
    x = torch.from_numpy(rng.normal(size=(n_points, d)) + shift)
    root = torch.from_numpy(rng.normal(size=(g, d, 2 * d + 1)) / np.sqrt(2 * d + 1))
    factor, _ = reference.precision_cholesky(root @ root.mT)
    locations = torch.from_numpy(0.3 * rng.normal(size=(g, d)) + shift)
    log_weights = torch.from_numpy(np.log(np.concatenate([rng.dirichlet(np.ones(k)) for k in n_components if k])))
    dof = torch.from_numpy(rng.uniform(3, 30, size=g))
    offsets = torch.tensor([0, *n_components]).cumsum(0).to(device)
    parameters = (t.to(device, dtype).contiguous() for t in (log_weights, locations, factor, dof))
    return StudentTProblem(x.to(device, dtype), offsets, *parameters)
