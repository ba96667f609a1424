"""The parameters of a start, in the shapes of the four types of covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdens.bench.cases import Parameters


def parameters_of(start: Parameters | None, covariance_type: str) -> Parameters:
    """What a fit with that type of covariance starts from.

    "tied" takes the average of the components' covariances by weight, "diag" their diagonals, "spherical" the means of
    their diagonals.
    """
    if start is None:
        raise ValueError("This operation needs a start: a case without one cannot be run.")
    covariances = start.covariances
    if covariance_type == "tied":
        covariances = torch.einsum("mk,mkde->mde", start.weights / start.weights.sum(1, keepdim=True), covariances)
    elif covariance_type == "diag":
        covariances = covariances.diagonal(dim1=2, dim2=3)
    elif covariance_type == "spherical":
        covariances = covariances.diagonal(dim1=2, dim2=3).mean(2)
    elif covariance_type != "full":
        raise ValueError(f"covariance_type is 'full', 'tied', 'diag' or 'spherical', not {covariance_type!r}.")
    return Parameters(start.weights.contiguous(), start.means.contiguous(), covariances.contiguous())


def full_covariances(parameters: Parameters) -> Tensor:
    """[M, K, D, D], whatever the type of covariance was."""
    m, k, d = parameters.means.shape
    covariances = parameters.covariances
    if covariances.shape == (m, k, d, d):
        return covariances
    if covariances.shape == (m, k, d):
        return covariances.diag_embed()
    if covariances.shape == (m, k):
        return covariances[:, :, None].expand(m, k, d).diag_embed()
    return covariances[:, None].expand(m, k, d, d)


def precisions_cholesky(covariances: Tensor) -> Tensor:
    """Upper triangular U [..., D, D] with ``U U'`` the inverse of the covariances [..., D, D], computed in float64."""
    lower = torch.linalg.cholesky(covariances.double())
    identity = torch.eye(lower.shape[-1], device=lower.device, dtype=lower.dtype)
    upper: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).mT
    return upper.to(covariances.dtype)
