"""Log-density of points under mixtures of multivariate Student-t distributions, ragged in their components.

``log t(x | mu, (U U')^-1, nu) = log Gamma((nu + D)/2) - log Gamma(nu/2) - D/2 log(nu pi) + log det U
- (nu + D)/2 log(1 + |(x - mu) U|^2 / nu)`` (Kotz & Nadarajah, Multivariate t Distributions and Their Applications,
2004, eq. 1.1), the predictive density of a Gaussian under a normal-inverse-Wishart prior (Murphy, Conjugate Bayesian
analysis of the Gaussian distribution, 2007, section 9).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from fastdens.kernels import mixture, portable, reference
from fastdens.kernels.gaussian import precision_times_centred
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.log_density import log_density
from fastdens.kernels.mixture import Components
from fastdens.kernels.operation import Backends, check_alike, check_points
from fastdens.kernels.options import MATMUL_PRECISIONS, check_choice
from torch import Tensor


def _log_joint_norm(log_weights: Tensor, scale_precisions_cholesky: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """Log weight plus log normaliser of each component, float64 [G]."""
    d, nu = scale_precisions_cholesky.shape[-1], degrees_of_freedom.double()
    log_det = scale_precisions_cholesky.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    log_gamma = portable.log_gamma if torch.compiler.is_exporting() else torch.lgamma
    log_gammas = log_gamma(0.5 * (nu + d)) - log_gamma(0.5 * nu)
    return log_weights.double() + log_gammas - 0.5 * d * (nu * math.pi).log() + log_det


def _prepare(
    component_offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    *,
    layout: Layout | None,
) -> tuple[Components, Layout | None]:
    factors, dof = scale_precisions_cholesky, degrees_of_freedom
    log_joint_norm = _log_joint_norm(log_weights, factors, dof)
    return Components(component_offsets, log_joint_norm, locations, factors, True, False, dof), layout


_BACKENDS = Backends(
    triton=mixture.log_prob, cpu="mixture:log_prob", reference=reference.student_t_log_prob, prepare=_prepare
)


def _fake(points: Tensor, component_offsets: Tensor, layout: Tensor | None = None, **_: Any) -> Tensor:
    n_points, n_models = points.shape[0], component_offsets.shape[0] - 1
    return points.new_empty((n_points, n_models) if layout is None else (n_points,))


def _gradient(
    grad: Tensor,
    points: Tensor,
    component_offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    layout: Tensor | None,
    **_: Any,
) -> Tensor:
    """``d log p / dx = -sum_g r_g (nu + D)/(nu + |(x - mu) U|^2) U U' (x - mu)``, one component at a time.

    Memory stays at [N, D].
    """
    factors = scale_precisions_cholesky
    n_points, n_features = points.shape
    out = torch.zeros_like(points)
    bounds = [(0, n_points)] * (len(component_offsets) - 1) if layout is None else layout.tolist()
    if layout is not None:
        grad = grad[:, None]
    log_joint_norm = _log_joint_norm(log_weights, factors, degrees_of_freedom).tolist()
    dof, components = degrees_of_freedom.tolist(), component_offsets.tolist()
    for m, (start, stop) in enumerate(bounds):
        x, own_grad = points[start:stop], grad[start:stop, m % grad.shape[1], None]
        if not bool((own_grad != 0).any()):
            continue
        # Sums of exp(joint) and of its product with the slope, both in units of exp(top).
        top = x.new_full((len(x), 1), torch.finfo(x.dtype).min)
        total, pulls = torch.zeros_like(top), torch.zeros_like(x)
        for g in range(components[m], components[m + 1]):
            if log_joint_norm[g] == -math.inf:
                continue
            form = ((x - locations[g]) @ factors[g]).square().sum(1, keepdim=True)
            power = 0.5 * (dof[g] + n_features)
            joint = log_joint_norm[g] - power * torch.log1p(form / dof[g])
            higher = torch.maximum(top, joint)
            rescale, term = torch.exp(top - higher), torch.exp(joint - higher)
            pull = precision_times_centred(x, locations[g], factors[g], "full")
            pulls.mul_(rescale).addcmul_(term * 2 * power / (dof[g] + form), pull)
            total.mul_(rescale).add_(term)
            top = higher
        out[start:stop] -= own_grad * pulls / total
    return out


def _check(
    points: Tensor, component_offsets: Tensor, locations: Tensor, **others: tuple[Tensor, tuple[int, ...]]
) -> None:
    """Check components against points; ``others`` are tensors of one row for each, with the shapes of these rows."""
    check_points(points)
    if locations.ndim != 2 or locations.shape[1] != points.shape[1]:
        raise ValueError(
            f"locations have shape {tuple(locations.shape)}, but points with D = {points.shape[1]} need "
            f"[G, {points.shape[1]}]."
        )
    n_components = len(locations)
    for name, (tensor, shape) in others.items():
        if tuple(tensor.shape) != (n_components, *shape):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but locations {tuple(locations.shape)} need "
                f"{(n_components, *shape)}."
            )
    check_alike(points, locations=locations, **{name: tensor for name, (tensor, _) in others.items()})
    if component_offsets.dtype != torch.int64 or component_offsets.ndim != 1 or len(component_offsets) == 0:
        raise ValueError(
            f"component_offsets are {component_offsets.dtype} of shape {tuple(component_offsets.shape)}, but must be "
            "int64 [M + 1]: the components of model m are component_offsets[m]:component_offsets[m + 1]."
        )
    if component_offsets.device != points.device:
        raise ValueError(
            f"component_offsets are on {component_offsets.device} and points are on {points.device}: move one of them."
        )
    steps = torch.stack([component_offsets[:-1], component_offsets[1:]], 1)
    bad = (steps[:, 0] < 0) | (steps[:, 0] > steps[:, 1]) | (steps[:, 1] > n_components)
    if bool(bad.any()):
        m = int(bad.nonzero()[0])
        raise ValueError(
            f"the components of model {m} are {steps[m].tolist()}, no range of {n_components} components: "
            "component_offsets must not decrease."
        )


@log_density(fake=_fake, gradient=_gradient, prepare=_prepare)
def student_t_log_prob(
    points: Tensor,
    component_offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    *,
    layout: Layout | Tensor | None = None,
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
) -> Tensor:
    """Log-density of each point under each of M Student-t mixtures, or under its own; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64; sorted by model where ``layout`` is given.
    component_offsets : Tensor
        int64 [M + 1]: the components of model m are ``component_offsets[m]:component_offsets[m + 1]``.
    log_weights : Tensor
        [G], of each component. A component of log weight minus infinity adds nothing.
    locations : Tensor
        [G, D].
    scale_precisions_cholesky : Tensor
        [G, D, D], upper-triangular U with ``scale^-1 = U U'``.
    degrees_of_freedom : Tensor
        [G], of each component.
    layout : Layout or Tensor, optional
        The rows of each model, a layout or offsets int64 [M + 1]: each point under its own model.
    backend, matmul_precision : str
        As for :func:`fastdens.kernels.gaussian_log_prob`.

    Returns
    -------
    Tensor
        [N, M], each point under every model; with a layout [N], each under its own, zero for rows that no model owns.
        In nats and in the dtype of the points; NaN for a model without components. Nothing of size N x G is formed.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices, offsets or options do not fit.
    NotImplementedError
        If a parameter requires a gradient.

    References
    ----------
    Kotz & Nadarajah, Multivariate t Distributions and Their Applications, 2004, eq. 1.1.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import student_t_log_prob
    >>> one, offsets = torch.ones(1), torch.tensor([0, 1])  # One component of weight 1: Cauchy's density.
    >>> student_t_log_prob(torch.zeros(1, 1), offsets, 0 * one, torch.zeros(1, 1), one[:, None, None], one).exp()
    tensor([[0.3183]])
    """
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    d = locations.shape[-1]
    _check(
        points,
        component_offsets,
        locations,
        log_weights=(log_weights, ()),
        scale_precisions_cholesky=(scale_precisions_cholesky, (d, d)),
        degrees_of_freedom=(degrees_of_freedom, ()),
    )
    if layout is not None:
        layout = as_layout(layout, len(component_offsets) - 1, len(points))
    arguments = (component_offsets, log_weights, locations, scale_precisions_cholesky, degrees_of_freedom)
    return _BACKENDS.run(backend, points, *arguments, layout=layout, matmul_precision=matmul_precision)
