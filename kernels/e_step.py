"""The E step: ``r_nk = pi_k N(x_n | k) / sum_j pi_j N(x_n | j)``, each point under its own model.

Bishop, Pattern Recognition and Machine Learning, 2006, eq. 9.23.
"""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels import mixture, reference
from fastdens.kernels.arguments import checked
from fastdens.kernels.gaussian import mixture_components
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.mixture import Components
from fastdens.kernels.operation import Backends, check_mixtures
from torch import Tensor


class Responsibilities(NamedTuple):
    """Responsibilities and log-densities of N points; zero for rows that no model owns.

    Attributes
    ----------
    resp : Tensor
        [N, K], of each component of the point's own model.
    log_prob_norm : Tensor
        [N], log-density under the point's own model, in nats.
    """

    resp: Tensor
    log_prob_norm: Tensor


def _prepare(
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str,
    log_weights: bool,
) -> tuple[Components, Layout]:
    log_pi = weights.double() if log_weights else weights.double().log()
    return mixture_components(log_pi, means, precisions_cholesky, covariance_type), layout


_BACKENDS = Backends(
    triton=mixture.responsibilities,
    cpu="mixture:responsibilities",
    reference=reference.responsibilities,
    prepare=_prepare,
)


@checked
def responsibilities(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
    log_weights: bool = False,
) -> Responsibilities:
    """Responsibilities and log-density of each point under its own model.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    layout : Layout or Tensor
        The rows of each model: a layout, or offsets int64 [M + 1].
    weights, means, precisions_cholesky, covariance_type, backend, matmul_precision : optional
        As for :func:`fastdens.kernels.mixture_log_prob`.
    log_weights : bool
        The weights are given as logarithms. They need not be those of numbers that sum to one, nor of numbers that
        the dtype holds: -3200 is as good as any (variational inference has such, Bishop 2006, eq. 10.46).

    Returns
    -------
    Responsibilities
        ``resp`` [N, K] and ``log_prob_norm`` [N].

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import responsibilities
    >>> points, offsets = torch.tensor([[-1.0], [0.0]]), torch.tensor([0, 2])
    >>> weights, means = torch.tensor([[0.5, 0.5]]), torch.tensor([[[-1.0], [1.0]]])
    >>> responsibilities(points, offsets, weights, means, torch.ones(1, 2, 1, 1)).resp
    tensor([[0.8808, 0.1192],
            [0.5000, 0.5000]])
    """
    check_mixtures(points, weights, means, precisions_cholesky, covariance_type, matmul_precision)
    layout = as_layout(layout, len(means), len(points))
    results = _BACKENDS.run(
        backend,
        points,
        layout,
        weights,
        means,
        precisions_cholesky,
        covariance_type=covariance_type,
        log_weights=log_weights,
        matmul_precision=matmul_precision,
    )
    return Responsibilities(*results)
