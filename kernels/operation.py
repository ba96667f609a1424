"""What every operation does first: choose a backend, and check that its tensors belong together."""

from __future__ import annotations

import os

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.options import BACKENDS, COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice
from torch import Tensor


def resolve_backend(backend: str, points: Tensor) -> str:
    """The backend to run: "auto" is triton for CUDA tensors and cpu for CPU tensors.

    Raises
    ------
    ValueError
        If the name is unknown, or "cpu" is asked for on a CUDA tensor.
    RuntimeError
        If "triton" is asked for on a CPU tensor outside the interpreter.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        return "triton" if points.is_cuda else "cpu"
    if backend == "cpu" and points.is_cuda:
        raise ValueError("backend is 'cpu', but the points are on a GPU: move them with x.cpu() or use backend='auto'.")
    if backend == "triton" and not points.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            "backend is 'triton', but the points are on the CPU: move them to a GPU, or set TRITON_INTERPRET=1 before "
            "fastdens is first used to run the kernels in Triton's interpreter."
        )
    return backend


def check_gaussians(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, matmul_precision: str
) -> None:
    """Check Gaussians of shape [..., K, D] against points [N, D].

    Raises
    ------
    TypeError
        If dtypes differ or are not float32 or float64.
    ValueError
        If a shape, a device or an option is wrong.
    """
    check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    if points.ndim != 2 or points.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"points are {points.dtype} of shape {tuple(points.shape)}, but must be float32 or float64 [N, D]."
        )
    *batch, d = means.shape
    if d != points.shape[1]:
        raise ValueError(f"means have D = {d} and points D = {points.shape[1]}: they must agree.")
    shape = {"full": (*batch, d, d), "tied": (*batch[:-1], d, d), "diag": (*batch, d), "spherical": tuple(batch)}
    if tuple(precisions_cholesky.shape) != shape[covariance_type]:
        raise ValueError(
            f"precisions_cholesky has shape {tuple(precisions_cholesky.shape)}, but covariance_type "
            f"{covariance_type!r} with means {tuple(means.shape)} needs {shape[covariance_type]}."
        )
    check_alike(points, means=means, precisions_cholesky=precisions_cholesky)


def check_alike(points: Tensor, **others: Tensor) -> None:
    """Check that tensors have the dtype and the device of the points."""
    for name, tensor in others.items():
        if tensor.dtype != points.dtype:
            raise TypeError(f"{name} is {tensor.dtype} and points are {points.dtype}: convert one of them.")
        if tensor.device != points.device:
            raise ValueError(f"{name} is on {tensor.device} and points are on {points.device}: move one of them.")


def row_ranges(offsets: Layout | Tensor, n_models: int, n_points: int) -> Tensor:
    """Row ranges int64 [M, 2] from a layout, from offsets [M + 1] or from ranges themselves.

    Raises
    ------
    ValueError
        If the shape is wrong or a range lies outside the points.
    """
    if isinstance(offsets, Layout):
        return offsets.ranges
    if offsets.dtype != torch.int64:
        raise TypeError(f"offsets are {offsets.dtype}, but must be int64.")
    if tuple(offsets.shape) == (n_models + 1,):
        offsets = torch.stack([offsets[:-1], offsets[1:]], 1)
    if tuple(offsets.shape) != (n_models, 2):
        raise ValueError(
            f"offsets have shape {tuple(offsets.shape)}, but {n_models} models need [{n_models + 1}], or row ranges "
            f"[{n_models}, 2]."
        )
    inside = (offsets[:, 0] >= 0) & (offsets[:, 0] <= offsets[:, 1]) & (offsets[:, 1] <= n_points)
    if not bool(inside.all()):
        m = int((~inside).nonzero()[0])
        raise ValueError(f"the rows of model {m} are {offsets[m].tolist()}, no range of {n_points} points.")
    return offsets
