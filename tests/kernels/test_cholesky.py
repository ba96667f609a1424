"""Cholesky factors of precisions against numpy, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens import kernels
from tests.problems import CPU, GPU, INTERPRETER, REFERENCE, relative_error


def inverse_factor(covariance: np.ndarray) -> np.ndarray:
    """Upper-triangular ``L^-T`` of ``covariance = L L'``."""
    return np.linalg.inv(np.linalg.cholesky(covariance)).swapaxes(-1, -2)


@pytest.mark.parametrize("d", [1, 2, 5, 8, 17, 64])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_factors_are_those_of_numpy(rng, backend, device, d):
    root = rng.normal(size=(3, 2, d, d + 3))
    covariance = root @ root.swapaxes(-1, -2)
    on_device = torch.from_numpy(covariance).to(device)
    for covariance_type, given, want in (
        ("full", on_device, inverse_factor(covariance)),
        ("tied", on_device[:, 0], inverse_factor(covariance[:, 0])),
        ("diag", on_device[..., 0].abs(), np.abs(covariance[..., 0]) ** -0.5),
        ("spherical", on_device[..., 0, 0], covariance[..., 0, 0] ** -0.5),
    ):
        factor, bad = kernels.precision_cholesky(given, covariance_type=covariance_type, backend=backend)
        assert not bad.any()
        assert relative_error(factor, torch.from_numpy(want)) < 1e-8
        if covariance_type in ("full", "tied"):
            assert torch.equal(factor, factor.triu())
    single, _ = kernels.precision_cholesky(on_device.float(), backend=backend)
    assert single.dtype == torch.float32


@pytest.mark.parametrize("d", [1, 5, 17])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_models_without_a_factor_are_told(rng, backend, device, d, value):
    root = torch.from_numpy(rng.normal(size=(3, 2, d, d + 3))).to(device)
    covariance = root @ root.mT
    covariance[1, 1, 0, 0] = value
    assert kernels.precision_cholesky(covariance, backend=backend)[1].tolist() == [False, True, False]
