"""Steps of EM in many models at once, each model until its own lower bound settles.

A step is the E step under the parameters that stand (Bishop 2006, eq. 9.23), the sums of the M step
(:mod:`~fastdens.kernels.m_step`), and the parameters that follow from them (eqs. 9.24 to 9.27). A model that has
converged, or whose covariance has lost its Cholesky factor, stays as its last step left it while the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fastdens.kernels import mixture, reference, tiny_em_steps
from fastdens.kernels.arguments import checked
from fastdens.kernels.cholesky import factor_covariances
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.m_step import MStep
from fastdens.kernels.operation import Backends, check_mixtures, check_sample_weight
from fastdens.kernels.optional_triton import tl, triton
from fastdens.kernels.parameters import GaussianParameters
from fastdens.kernels.replay import take_steps
from torch import Tensor

# Constants of the kernels that go through the parameters of a model.
PARAMETER_BLOCKS = {"HALF_LOG_TWO_PI": 0.5 * math.log(2 * math.pi), "BLOCK_K": 16, "BLOCK_D": 64}


class EMSteps(NamedTuple):
    """Where M models stand after steps of EM.

    Attributes
    ----------
    weights, means, covariances, precisions_cholesky, bad : Tensor
        As in :class:`GaussianParameters`.
    lower_bound : Tensor
        float64 [M], mean log-likelihood per point at the E step of each model's last step.
    n_steps : Tensor
        int64 [M], steps that each model took.
    converged : Tensor
        bool [M], True where the lower bound changed by less than ``tol`` and the model is not bad.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    lower_bound: Tensor
    n_steps: Tensor
    converged: Tensor
    bad: Tensor


@triton.jit
def _store_log_joint_norms(
    weights_ptr,  # [K]
    factors_ptr,  # MATRICES: [K, D, D], TIED: [D, D]; else [K, D]
    log_joint_norm_ptr,  # [K]
    n_features,
    n_components,
    MATRICES: tl.constexpr,
    TIED: tl.constexpr,
    HALF_LOG_TWO_PI: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """``log pi_k + log det U_k - D/2 log 2 pi`` of the components of one model."""
    width = tl.cast(n_features, tl.int64)
    for first_k in range(0, n_components, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        factor = k.to(tl.int64)[:, None] * (0 if TIED else 1)
        log_det = tl.zeros([BLOCK_K], tl.float64)
        for first_d in range(0, n_features, BLOCK_D):
            d = first_d + tl.arange(0, BLOCK_D)[None, :]
            entry = factor * width * width + d * (width + 1) if MATRICES else factor * width + d
            mask = (k < n_components)[:, None] & (d < n_features)
            log_det += tl.sum(tl.log(tl.load(factors_ptr + entry, mask=mask, other=1.0).to(tl.float64)), 1)
        weight = tl.load(weights_ptr + k, mask=k < n_components, other=1.0).to(tl.float64)
        norm = tl.where(weight > 0.0, tl.log(weight), float("-inf")) + log_det - width.to(tl.float64) * HALF_LOG_TWO_PI
        tl.store(log_joint_norm_ptr + k, norm, mask=k < n_components)


@triton.jit
def _begin_kernel(
    weights_ptr,  # [M, K]
    factors_ptr,  # MATRICES: [M, K, D, D], TIED: [M, D, D]; else [M, K, D]
    log_joint_norm_ptr,  # [M, K]
    n_features,
    n_components,
    MATRICES: tl.constexpr,
    TIED: tl.constexpr,
    HALF_LOG_TWO_PI: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: what the E step reads of the parameters that one model starts from."""
    model = tl.program_id(0).to(tl.int64)
    n_factors = 1 if TIED else n_components
    _store_log_joint_norms(
        weights_ptr + model * n_components,
        factors_ptr + model * n_factors * n_features * (n_features if MATRICES else 1),
        log_joint_norm_ptr + model * n_components,
        n_features,
        n_components,
        MATRICES,
        TIED,
        HALF_LOG_TWO_PI,
        BLOCK_K,
        BLOCK_D,
    )


@triton.jit
def _end_kernel(
    nk_ptr,  # [M, K]
    chunk_log_likelihood_ptr,  # float64 [C]
    first_ptr,  # int64 [M + 1]: the chunks of model m are first[m]:first[m + 1]
    ranges_ptr,  # int64 [M, 2]
    total_weight_ptr,  # float64 [M], or None: the number of rows
    covariances_ptr,  # [M, K, D], SPHERICAL: [M, K]; not read if MATRICES
    factors_ptr,  # MATRICES: [M, K, D, D], TIED: [M, D, D]; else [M, K, D], written here
    lost_ptr,  # int8 [M, K], TIED: [M]: matrices that have no factor; not read unless MATRICES
    tol_ptr,  # float64 [1]
    weights_ptr,  # [M, K]
    log_joint_norm_ptr,  # [M, K]
    lower_bound_ptr,  # float64 [M]
    n_steps_ptr,  # int64 [M]
    converged_ptr,  # int8 [M]
    bad_ptr,  # int8 [M]
    done_ptr,  # int8 [M]
    n_features,
    n_components,
    MATRICES: tl.constexpr,
    TIED: tl.constexpr,
    HALF_LOG_TWO_PI: tl.constexpr,
    SPHERICAL: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: the end of one model's step, which is its weights, its lower bound, and whether it goes on."""
    model = tl.program_id(0).to(tl.int64)
    if tl.load(done_ptr + model) != 0:
        return
    n_factors = 1 if TIED else n_components
    own_weights_ptr, own_nk_ptr = weights_ptr + model * n_components, nk_ptr + model * n_components
    own_factors_ptr = factors_ptr + model * n_factors * n_features * (n_features if MATRICES else 1)
    width = tl.cast(n_features, tl.int64)

    count = tl.zeros([BLOCK_K], tl.float64)
    for first_k in range(0, n_components, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        count += tl.load(own_nk_ptr + k, mask=k < n_components, other=0.0)
    total = tl.sum(count, 0)
    lost = tl.zeros([BLOCK_K], tl.int32)
    for first_k in range(0, n_components, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        inside = k < n_components
        tl.store(own_weights_ptr + k, tl.load(own_nk_ptr + k, mask=inside, other=0.0) / total, mask=inside)
        if MATRICES:
            lost |= tl.load(lost_ptr + model * n_factors + k, mask=k < n_factors, other=0).to(tl.int32)
        else:
            g = model * n_components + k.to(tl.int64)
            for first_d in range(0, n_features, BLOCK_D):
                d = first_d + tl.arange(0, BLOCK_D)[None, :]
                mask = inside[:, None] & (d < n_features)
                entry = g[:, None] + d * 0 if SPHERICAL else g[:, None] * width + d
                variance = tl.load(covariances_ptr + entry, mask=mask, other=1.0).to(tl.float64)
                tl.store(own_factors_ptr + k.to(tl.int64)[:, None] * width + d, 1.0 / tl.sqrt(variance), mask=mask)
                # NaN is not positive.
                lost |= tl.max(tl.where(variance > 0.0, 0, 1), 1)
    # Weights and factors are read back by other threads than wrote them.
    tl.debug_barrier()
    _store_log_joint_norms(
        own_weights_ptr,
        own_factors_ptr,
        log_joint_norm_ptr + model * n_components,
        n_features,
        n_components,
        MATRICES,
        TIED,
        HALF_LOG_TWO_PI,
        BLOCK_K,
        BLOCK_D,
    )

    log_likelihood = tl.full([], 0.0, tl.float64)
    for chunk in range(tl.load(first_ptr + model), tl.load(first_ptr + model + 1)):
        log_likelihood += tl.load(chunk_log_likelihood_ptr + chunk)
    if total_weight_ptr is not None:
        bound = log_likelihood / tl.load(total_weight_ptr + model)
    else:
        size = tl.load(ranges_ptr + 2 * model + 1) - tl.load(ranges_ptr + 2 * model)
        bound = log_likelihood / size.to(tl.float64)
    change = tl.abs(bound - tl.load(lower_bound_ptr + model))
    bad = tl.max(lost, 0)
    converged = tl.where((change < tl.load(tol_ptr)) & (bad == 0), 1, 0)
    steps = tl.load(n_steps_ptr + model) + 1
    # The flags and the bound are written by whichever thread comes first, after all have read them.
    tl.debug_barrier()
    tl.store(lower_bound_ptr + model, bound)
    tl.store(n_steps_ptr + model, steps)
    tl.store(converged_ptr + model, converged.to(tl.int8))
    tl.store(bad_ptr + model, bad.to(tl.int8))
    tl.store(done_ptr + model, (converged | bad).to(tl.int8))


def _large_steps(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    covariance_type: str,
    reg_covar: float,
    tol: float,
    n_steps: int,
    sample_weight: Tensor | None,
    matmul_precision: str,
) -> EMSteps:
    """Steps in place, over buffers that are made once: a step is six or seven launches, and nothing for the host."""
    (m, k, d), device = means.shape, points.device
    matrices, tied, spherical = (covariance_type in types for types in (("full", "tied"), ("tied",), ("spherical",)))
    points = points.contiguous()
    if spherical:
        precisions_cholesky = precisions_cholesky[..., None].expand(m, k, d)
    weights, means, factors, lower_bound = _copies(weights, means, precisions_cholesky, lower_bound)
    done, converged, bad = torch.zeros(3, m, dtype=torch.int8, device=device)
    lost = torch.zeros(factors.shape[: 2 - tied] if matrices else (m, 0), dtype=torch.int8, device=device)
    taken = torch.zeros(m, dtype=torch.int64, device=device)
    tolerance, regularization = _numbers(device, tol, reg_covar)
    m_step = MStep(points, layout, k, covariance_type=covariance_type, matmul_precision=matmul_precision, done=done)
    log_joint_norm, log_prob, resp = (
        weights.new_empty(m, k),
        points.new_empty(len(points)),
        points.new_empty(len(points), k),
    )
    offsets = torch.arange(0, (m + 1) * k, k, device=device)
    components = mixture.Components(offsets, log_joint_norm, means, factors, matrices, tied, None)
    total_weight = None if sample_weight is None else layout.sum(sample_weight)
    constants = {"MATRICES": matrices, "TIED": tied, **PARAMETER_BLOCKS}

    def step() -> None:
        mixture.launch(points, components, layout, log_prob, resp, done, matmul_precision=matmul_precision)
        if sample_weight is not None:
            # What the rows of finished models come to, nobody reads.
            resp.mul_(sample_weight[:, None])
            log_prob.mul_(sample_weight)
        m_step.set_means(resp, means, means, log_prob)
        m_step.set_covariances(resp, means, regularization)
        if matrices:
            factor_covariances(
                m_step.covariances.reshape(-1, d, d), factors.view(-1, d, d), lost.view(-1), done, 1 if tied else k
            )
        _end_kernel[(m,)](
            m_step.nk,
            m_step.log_likelihood,
            m_step.chunks.first,
            layout.ranges,
            total_weight,
            m_step.covariances,
            factors,
            lost,
            tolerance,
            weights,
            log_joint_norm,
            lower_bound,
            taken,
            converged,
            bad,
            done,
            d,
            k,
            SPHERICAL=spherical,
            **constants,
        )

    if m:
        _begin_kernel[(m,)](weights, factors, log_joint_norm, d, k, **constants)
        take_steps(step, n_steps, done)
    if spherical:
        factors = factors[..., 0].contiguous()
    return EMSteps(
        weights,
        means,
        m_step.covariances,
        factors,
        lower_bound,
        taken,
        converged.view(torch.bool),
        bad.view(torch.bool),
    )


def _tiny_steps(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    covariance_type: str,
    reg_covar: float,
    tol: float,
    n_steps: int,
    sample_weight: Tensor | None,
    matmul_precision: str,
) -> EMSteps:
    """All steps of tiny models in one launch, which forms no matrix product."""
    weights, means, factors, lower_bound = _copies(weights, means, precisions_cholesky, lower_bound)
    covariances, taken = torch.empty_like(factors), torch.zeros_like(layout.sizes)
    converged, bad = torch.zeros(2, len(means), dtype=torch.int8, device=points.device)
    state = weights, means, covariances, factors, lower_bound, taken, converged, bad
    numbers, options = _numbers(points.device, tol, reg_covar), (covariance_type, n_steps)
    tiny_em_steps.launch(points.contiguous(), layout, *options, sample_weight, *numbers, *state)
    return EMSteps(*state[:6], converged.view(torch.bool), bad.view(torch.bool))


def _copies(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors)


def _numbers(device: torch.device, *numbers: float) -> tuple[Tensor, ...]:
    """Numbers as float64 [1] on a device: a launch would hand them over as float32."""
    return tuple(torch.full((1,), number, dtype=torch.float64, device=device) for number in numbers)


def steps_by_size(
    is_small: Tensor,
    small: Callable[..., EMSteps],
    large: Callable[..., EMSteps],
    points: Tensor,
    layout: Layout,
    *state: Tensor,
    **options: Any,
) -> EMSteps:
    """Steps of each model by the function for its size, whatever else is in the batch; ``is_small`` is bool [M]."""
    n_small = int(is_small.sum())
    if n_small == len(is_small):
        return small(points, layout, *state, **options)
    if n_small == 0:
        return large(points, layout, *state, **options)
    parts = []
    for own, steps in ((is_small, small), (~is_small, large)):
        models = own.nonzero()[:, 0]
        of_models = steps(points, layout.select(models), *(value[models] for value in state), **options)
        parts.append((models, of_models))
    return joined(parts)


def joined(parts: list[tuple[Tensor, EMSteps]]) -> EMSteps:
    """The steps of all models, from those of some: each with the numbers of its models, int64 [A], in order."""
    if len(parts) == 1:
        return parts[0][1]
    models, steps = zip(*parts, strict=True)
    order = torch.argsort(torch.cat(models))
    return EMSteps(*(torch.cat(column)[order] for column in zip(*steps, strict=True)))


def _launch(points: Tensor, layout: Layout, *state: Tensor, **options: Any) -> EMSteps:
    tiny = tiny_em_steps.are_tiny(layout, *state[1].shape[1:])
    if tiny is None:
        return _large_steps(points, layout, *state, **options)
    return steps_by_size(tiny, _tiny_steps, _large_steps, points, layout, *state, **options)


def _reference(points: Tensor, *arguments: Any, **options: Any) -> EMSteps:
    steps = EMSteps(*reference.em_steps(points, *arguments, **options))
    return steps._replace(**{name: getattr(steps, name).to(points.dtype) for name in GaussianParameters._fields[:4]})


# The lower bound is float64 whatever the points are.
_BACKENDS = Backends(
    triton=_launch, cpu="expectation_maximization:em_steps", reference=_reference, in_dtype_of_points=False
)


@checked
def em_steps(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    n_steps: int,
    tol: float,
    reg_covar: float,
    sample_weight: Tensor | None = None,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
) -> EMSteps:
    """Steps of EM, in each model until its lower bound changes by less than ``tol``.

    ``n_steps`` steps in one call give what as many calls of one step give, bit for bit.

    Parameters
    ----------
    points, layout, weights, means, precisions_cholesky : Tensor
        As for :func:`fastdens.kernels.responsibilities`.
    lower_bound : Tensor
        float64 [M], mean log-likelihood per point at the step before the first; minus infinity where there was none.
    n_steps : int
        Steps at most, one or more.
    tol : float
        A model has converged when its lower bound changes by less than this; with zero it takes all the steps.
    reg_covar : float
        Added to the variances.
    sample_weight : Tensor, optional
        [N], positive, in the dtype of the points: what a point contributes to the sums and to the mean log-likelihood
        is multiplied by its weight.
    covariance_type, backend, matmul_precision : str
        As for :func:`fastdens.kernels.responsibilities`.

    Returns
    -------
    EMSteps
        The parameters after the last step of each model, and what is known of it.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2.2.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import em_steps
    >>> points, offsets = torch.cat([torch.randn(50, 1) - 9, torch.randn(50, 1) + 9]), torch.tensor([0, 100])
    >>> start = torch.tensor([[0.5, 0.5]]), torch.tensor([[[-1.0], [1.0]]]), torch.ones(1, 2, 1, 1)
    >>> nothing_yet = torch.full((1,), float("-inf"), dtype=torch.float64)
    >>> steps = em_steps(points, offsets, *start, nothing_yet, n_steps=20, tol=1e-3, reg_covar=1e-6)
    >>> steps.means[0, :, 0].round(), steps.converged
    (tensor([-9.,  9.]), tensor([True]))
    """
    check_mixtures(points, weights, means, precisions_cholesky, covariance_type, matmul_precision)
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}, but must be at least 1.")
    if lower_bound.dtype != torch.float64 or lower_bound.shape != means.shape[:1]:
        raise ValueError(
            f"lower_bound is {lower_bound.dtype} of shape {tuple(lower_bound.shape)}, but must be float64 "
            f"[{len(means)}], one for each model."
        )
    layout = as_layout(layout, len(means), len(points))
    if sample_weight is not None:
        sample_weight = check_sample_weight(points, sample_weight)
    return _BACKENDS.run(
        backend,
        points,
        layout,
        weights,
        means,
        precisions_cholesky,
        lower_bound,
        covariance_type=covariance_type,
        reg_covar=reg_covar,
        tol=tol,
        n_steps=n_steps,
        sample_weight=sample_weight,
        matmul_precision=matmul_precision,
    )
