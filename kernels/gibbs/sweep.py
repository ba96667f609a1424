"""Collapsed Gibbs sweeps of Dirichlet-process mixtures of Gaussians (Neal 2000, algorithm 3).

A single-site update takes point i out of its cluster, weighs cluster k by ``n_k t_k(x_i)`` and a new one by
``alpha t_0(x_i)``, draws a cluster, and puts the point there. t_k is the Student-t predictive density of a
normal-inverse-Wishart posterior (Murphy 2007, section 8): with the squared Mahalanobis distance
``q = (x - m)' S^-1 (x - m)``,

``log n t(x) = c(n) - 1/2 log det S - (nu + 1) / 2 log(1 + kappa / (kappa + 1) q)``,

where c(n) depends on the count alone. Leaving x out of its own cluster needs no other S: with
``r = 1 - kappa / (kappa - 1) q`` the log-weight is ``c(n - 1) - 1/2 log det S + (nu - 1) / 2 log r``, where m, S, n,
kappa and nu are those of the cluster with x. After each sweep alpha is drawn anew (Escobar & West 1995, section 6).

So a point that stays changes nothing. One that moves costs two rank-one updates of an inverse, and one dot product for
the distances of each other point.

Single-site updates change large clusters slowly: between one cluster and two lie states that are hundreds of nats
worse. Split-merge moves (:mod:`~fastdens.kernels.gibbs.split_merge`) after a sweep change many labels at once. A sweep
at an inverse temperature below one draws from weights to that power, for starts by annealing.

Labels are numbered anew, 0 to K - 1, where a launch begins: the same sweeps in two launches are another chain of the
same law than in one.
"""

from __future__ import annotations

import torch
from fastdens.kernels import reference
from fastdens.kernels.arguments import checked
from fastdens.kernels.gibbs.normalisers import log_alpha_factors
from fastdens.kernels.gibbs.problem import GibbsSweeps, SweepProblem, check_problem
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.operation import on_device_of, resolve_backend
from fastdens.kernels.optional import require
from torch import Tensor


@checked
def gibbs_sweep(
    points: Tensor,
    layout: Layout | Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    *,
    kappa0: float,
    nu0: float,
    alpha_prior: tuple[float, float] | None = (1.0, 1.0),
    first_sweep: int = 0,
    n_sweeps: int = 1,
    thin: int = 1,
    inverse_temperature: Tensor | float = 1.0,
    split_merge: Tensor | int = 0,
    backend: str = "auto",
) -> GibbsSweeps:
    """Sweeps of collapsed Gibbs sampling and split-merge moves, of every chain of every model.

    Statistics of the clusters are computed from the points at the start and updated from then on; they live as long as
    the call.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite, sorted by model.
    layout : Layout or Tensor
        Rows of the M models, or their offsets, int64 [M + 1]; every row belongs to a model.
    labels : Tensor
        Integers [C, N], not negative: the cluster of each point within its model.
    alpha : Tensor
        float64 [M, C], concentration.
    keys : Tensor
        int64 [M, C], not negative: the random stream of each chain.
    prior_mean, prior_scale : Tensor
        float64 [M, D], m0 and the diagonal of S0 of the normal-inverse-Wishart prior.
    kappa0, nu0 : float
        Of the prior; nu0 is greater than D - 1.
    alpha_prior : (float, float) or None
        Shape and rate of the gamma prior of alpha, drawn anew after each sweep; None keeps alpha as it is.
    first_sweep : int
        Number of the first sweep in the random streams.
    n_sweeps, thin : int
        Sweeps W, a multiple of ``thin``, the distance between kept labels.
    inverse_temperature : Tensor or float
        [M, W], [W] or one number, over 0 and at most 1: labels are drawn with weights to this power. Below one the
        draws are not those of the posterior.
    split_merge : Tensor or int
        Integers [M, W], [W] or one number: split-merge moves that follow each sweep. They are moves of the posterior
        whatever the inverse temperature.
    backend : {"auto", "triton", "cpu", "reference"}
        All draw the same chain.

    Returns
    -------
    GibbsSweeps
        The labels that are kept, and numbers of every sweep.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes or options do not fit.
    SingularScatterError
        If rounding leaves the scale matrix of a cluster without a Cholesky factor.

    References
    ----------
    Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. Escobar & West, Bayesian
    density estimation and inference using mixtures, JASA 90, 1995. Murphy, Conjugate Bayesian analysis of the Gaussian
    distribution, 2007. Jain & Neal, A split-merge Markov chain Monte Carlo procedure for the Dirichlet process mixture
    model, JCGS 13, 2004. Kirkpatrick, Gelatt & Vecchi, Optimization by simulated annealing, Science 220, 1983.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import gibbs_sweep
    >>> points, offsets = torch.randn(30, 2), torch.tensor([0, 10, 30])  # Two models, one chain of each.
    >>> labels, alpha, keys = torch.zeros(1, 30, dtype=torch.int64), torch.ones(2, 1).double(), torch.tensor([[0], [1]])
    >>> mean, scale = torch.zeros(2, 2).double(), torch.ones(2, 2).double()
    >>> sweeps = gibbs_sweep(points, offsets, labels, alpha, keys, mean, scale, kappa0=0.01, nu0=4.0, n_sweeps=5)
    >>> sweeps.labels.shape, sweeps.n_components.shape
    (torch.Size([5, 1, 30]), torch.Size([2, 1, 5]))
    """
    chosen = resolve_backend(backend, points)
    problem = SweepProblem(
        points.contiguous(),
        as_layout(layout, len(prior_mean), len(points)),
        keys.contiguous(),
        prior_mean.contiguous(),
        prior_scale.contiguous(),
        kappa0,
        nu0,
        alpha_prior if alpha_prior is not None else (0.0, 0.0),
        first_sweep,
        n_sweeps,
        thin,
        _of_sweeps(inverse_temperature, keys.shape[0], n_sweeps, torch.float64, points.device),
        _of_sweeps(split_merge, keys.shape[0], n_sweeps, torch.int32, points.device),
    )
    check_problem(problem, labels, alpha)
    start = (labels.to(torch.int32).contiguous(), alpha.contiguous())
    if chosen == "reference":
        return reference.gibbs_sweep(problem, *start)
    if chosen == "triton":
        require("triton", "the Triton backend", "gpu")
        from fastdens.kernels.gibbs import launch

        with on_device_of(points):
            sweeps = launch.sweep_chains(problem, *start)
    else:
        from fastdens.kernels.cpu.gibbs import launch as cpu_launch

        sweeps = cpu_launch.sweep_chains(problem, *start)
    # The chains leave out the factors of alpha.
    sweeps.log_joint.add_(
        log_alpha_factors(sweeps.alpha, sweeps.n_components, problem.layout.sizes, problem.alpha_prior)
    )
    return sweeps


def _of_sweeps(value: Tensor | float, n_models: int, n_sweeps: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A value of each sweep of each model [M, W], from those, from values of each sweep, or from one number."""
    is_fraction = value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, float)
    if is_fraction and not dtype.is_floating_point:
        raise TypeError("split_merge must be integers: the number of moves after each sweep.")
    values = torch.as_tensor(value, dtype=dtype, device=device)
    if values.ndim == 0:
        values = values.expand(max(n_sweeps, 0))
    return (values.expand(n_models, -1) if values.ndim == 1 else values).contiguous()
