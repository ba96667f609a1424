"""Cholesky factors of precisions against numpy, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import cholesky
from fastdens.kernels.cholesky import factor_covariances

from fastdens import kernels
from tests.problems import CPU, GPU, INTERPRETER, REFERENCE, relative_error


def inverse_factor(covariance: np.ndarray) -> np.ndarray:
    """Upper-triangular ``L^-T`` of ``covariance = L L'``."""
    return np.linalg.inv(np.linalg.cholesky(covariance)).swapaxes(-1, -2)


@pytest.mark.parametrize("d", [1, 2, 5, 8, 17, 33])
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


def covariances_of(rng, n_matrices: int, d: int, condition: float = 100.0) -> torch.Tensor:
    """Random covariances whose eigenvalues fall evenly from 1 to 1 / condition."""
    rotation = np.linalg.qr(rng.normal(size=(n_matrices, d, d))).Q
    covariance = torch.from_numpy((rotation * np.logspace(0, -np.log10(condition), d)) @ rotation.swapaxes(-1, -2))
    return (covariance + covariance.mT) / 2


def factor(covariances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.full_like(covariances, torch.nan)
    bad = torch.full(covariances.shape[:1], 2, dtype=torch.int8, device=covariances.device)
    factor_covariances(covariances, out, bad, None, 1)
    return out, bad


@pytest.mark.parametrize("d", [3, 16, 20, 35, 70, 130])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_the_kernel_is_as_precise_as_lapack(rng, backend, device, d):
    n_matrices = 2 if d > 64 else 3
    for condition in (10.0, 1e12) if d < 64 else (1e9,):
        covariance = covariances_of(rng, n_matrices, d, condition)
        u, bad = factor(covariance.to(device))
        assert bad.tolist() == [0] * n_matrices
        want = inverse_factor(covariance.numpy())
        # Relative to the largest element, the error of the inverse of a factor is of the order of its condition.
        assert relative_error(u, torch.from_numpy(want), 0.0) < 1e-15 * d * condition**0.5 + 1e-16 * d * condition
        own, lapack = (float((f.mT @ covariance @ f - torch.eye(d)).norm()) for f in (u.cpu(), torch.from_numpy(want)))
        # Inverses of diagonal blocks in the place of substitution cost a factor of two or three.
        assert own < 30 * lapack + 1e-14 * d
        # Float32 has an input of its own, whose factor is rounded at the end alone.
        if condition < 1e4:
            single = covariance.float().to(device)
            assert torch.equal(factor(single)[0], factor(single.double())[0].float())


@pytest.mark.parametrize("d", [4, 16, 20, 40])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_a_factor_does_not_depend_on_the_other_matrices(rng, monkeypatch, backend, device, d):
    covariance = covariances_of(rng, 5, d).to(device)
    together, bad = factor(covariance)
    # Working memory for fewer programs than matrices: each takes several, one after the other.
    monkeypatch.setattr(cholesky, "_MAX_PROGRAMS", 2)
    assert torch.equal(together, factor(covariance)[0])
    for g in range(5):
        assert torch.equal(together[g : g + 1], factor(covariance[g : g + 1])[0])
    skip = torch.tensor([True, False, True, True, False], device=device)
    out, told = torch.full_like(covariance, 7.0), torch.full_like(bad, 7)
    covariance[skip] = torch.nan
    for mask in (skip, skip.to(torch.int8)):
        factor_covariances(covariance, out, told, mask, 1)
        assert torch.equal(out[~skip], together[~skip]) and bool((out[skip] == 7.0).all())
        assert told.tolist() == [7, 0, 7, 7, 0]


@pytest.mark.parametrize("d", [2, 16, 33])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_matrices_without_a_factor_are_told_one_by_one(rng, backend, device, d):
    covariance = covariances_of(rng, 7, d)
    covariance[1] = torch.diag(torch.arange(d).double())
    covariance[2, 0, d - 1] = covariance[2, d - 1, 0] = torch.nan
    covariance[3, d - 1, d - 1] = torch.inf
    covariance[4, 0, 1] = covariance[4, 1, 0] = torch.inf
    covariance[5, d - 1, d - 1] *= -1
    u, bad = factor(covariance.to(device))
    assert bad.tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert relative_error(u[[0, 6]], torch.from_numpy(inverse_factor(covariance[[0, 6]].numpy()))) < 1e-12
    told = kernels.precision_cholesky(covariance.reshape(7, 1, d, d).to(device), backend=backend)[1]
    assert told.tolist() == bad.bool().tolist()
    skip = torch.tensor([True, False], device=device)
    told = torch.full((6,), 7, dtype=torch.int8, device=device)
    factor_covariances(
        covariance[:6].to(device), torch.empty(6, d, d, dtype=torch.float64, device=device), told, skip, 3
    )
    assert told.tolist() == [7, 7, 7, 1, 1, 1]
