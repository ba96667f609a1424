"""Convergence of Markov chains: split R-hat, effective sample size, and draws for ArviZ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.errors import check_integer
from fastdens.f_distribution import f_survival, f_upper_quantile
from fastdens.kernels.optional import require

# With four draws a half chain has two, the fewest that have a variance.
_FEWEST_DRAWS = 4
_CUSTOMARY_THRESHOLD = 1.1
_FALSE_ALARM_PROBABILITY = 1e-3
# Draws looked at together: few enough that what is computed from them stays in a processor's cache.
_BLOCK_SIZE = 1 << 18


def split_rhat(draws: ArrayLike | Tensor) -> Tensor:
    """Potential scale reduction of chains cut in half.

    With m = 2C half chains of n = S // 2 draws, W the mean of their variances and B n times the variance of their
    means: R-hat = sqrt((n - 1) / n + B / (n W)). Of an odd number of draws the middle one is left out.

    Parameters
    ----------
    draws : array or Tensor
        [..., C, S]: C chains of S draws for each index of the leading axes. One chain is enough: its halves are
        compared.

    Returns
    -------
    Tensor
        float64 [...]: 1 for chains that agree. Chains that all stay at one and the same value have R-hat 1, chains
        stuck at different values infinity, and draws that are too few (S < 4), infinite or NaN have NaN.

    Raises
    ------
    ValueError
        If ``draws`` is not [..., C, S] with at least one chain.

    References
    ----------
    Gelman et al., Bayesian Data Analysis, 3rd edition, 2013, section 11.4.
    """
    return _by_blocks(_split_rhat, draws)


def effective_sample_size(draws: ArrayLike | Tensor) -> Tensor:
    """Number of independent draws whose mean would vary as much as that of these chains.

    N / tau with N = 2C (S // 2) draws in half chains and tau = -1 + 2 sum_t rho_t, the autocorrelations rho_t combined
    over the half chains, summed in pairs up to Geyer's initial monotone sequence; tau is at least 1 / log10(N). Of an
    odd number of draws the middle one is left out.

    Parameters
    ----------
    draws : array or Tensor
        [..., C, S], as for :func:`split_rhat`, with the same errors.

    Returns
    -------
    Tensor
        float64 [...], between 0 and N log10(N). Chains that all stay at one and the same value count in full, N; draws
        that are too few (S < 4), infinite or NaN give NaN.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner, Rank-normalization, folding, and localization: an improved R-hat,
    Bayesian Analysis 16, 2021, section 3.2. Geyer, Practical Markov chain Monte Carlo, Statistical Science 7, 1992.
    """
    return _by_blocks(_effective_sample_size, draws)


def rhat_threshold(n_chains: int, n_draws: int) -> float:
    """The split R-hat above which chains are said not to have converged.

    The customary 1.1, or, where few draws exceed that by chance, the value that independent normal draws exceed with
    probability 0.001: their B / W follows F(m - 1, m (n - 1)), so R-hat^2 = (n - 1) / n + F / n, with m = 2C half
    chains of n = S // 2 draws.

    Parameters
    ----------
    n_chains : int
        C, at least 1.
    n_draws : int
        S, at least 1.

    Returns
    -------
    float
        NaN, as R-hat itself, for S < 4.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer.

    References
    ----------
    Gelman & Rubin, Inference from iterative simulation using multiple sequences, Statistical Science 7, 1992.
    """
    m, n = 2 * check_integer("n_chains", n_chains, 1), check_integer("n_draws", n_draws, 1) // 2
    if n_draws < _FEWEST_DRAWS:
        return math.nan
    between, within = m - 1, m * (n - 1)
    if f_survival(n * _CUSTOMARY_THRESHOLD**2 - (n - 1), between, within) <= _FALSE_ALARM_PROBABILITY:
        return _CUSTOMARY_THRESHOLD
    return math.sqrt((n - 1 + f_upper_quantile(_FALSE_ALARM_PROBABILITY, between, within)) / n)


def to_arviz(draws: Mapping[str, Tensor], model_names: Sequence[str]) -> Any:
    """The draws as ArviZ reads them: a posterior group of dimensions chain, draw and model.

    Parameters
    ----------
    draws : mapping of str to Tensor
        [M, C, S] each.
    model_names : sequence of str
        M names, the coordinate ``model``.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The first from ArviZ 0.x, the second from ArviZ 1.x.

    Raises
    ------
    ImportError
        If arviz is missing.
    ValueError
        If ``draws`` is empty or its tensors are not [M, C, S] of one shape.
    """
    arviz = require("arviz", "to_arviz", "diagnostics")
    names = list(model_names)
    shapes = {name: tuple(values.shape) for name, values in draws.items()}
    if not shapes:
        raise ValueError("draws is empty: pass at least one quantity, [M, C, S].")
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if len(shape) != 3 or shape[0] != len(names) or shape != shapes[first]:
            raise ValueError(
                f"the draws of {name!r} have shape {shape}, those of {first!r} {shapes[first]}, and there are "
                f"{len(names)} model names: pass [{len(names)}, C, S] for each quantity."
            )
    posterior = {name: values.detach().cpu().permute(1, 2, 0).numpy() for name, values in draws.items()}
    groups = {"posterior": posterior}
    axes: dict[str, Any] = {"dims": {name: ["model"] for name in posterior}, "coords": {"model": names}}
    # ArviZ 1 takes a mapping of groups, ArviZ 0 each group by its keyword.
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups, **axes)
    return arviz.from_dict(**groups, **axes)


def _by_blocks(statistic: Callable[[Tensor], Tensor], draws: ArrayLike | Tensor) -> Tensor:
    """``statistic`` of the half chains [B, 2C, S // 2] of a block of models at a time."""
    tensor = draws if isinstance(draws, Tensor) else torch.tensor(np.asarray(draws))
    if tensor.ndim < 2 or tensor.shape[-2] == 0:
        raise ValueError(
            f"draws has shape {tuple(tensor.shape)}, but it must be [..., C, S] with at least one chain: pass x[None] "
            "for one chain [S]."
        )
    leading, (n_chains, n_draws) = tensor.shape[:-2], tensor.shape[-2:]
    n_models = math.prod(leading)
    if n_draws < _FEWEST_DRAWS or n_models == 0:
        return torch.full(leading, math.nan, dtype=torch.float64, device=tensor.device)
    tensor = tensor.detach().reshape(n_models, n_chains, n_draws)
    blocks = torch.split(tensor, max(1, _BLOCK_SIZE // (n_chains * n_draws)))
    return torch.cat([statistic(_half_chains(block.double())) for block in blocks]).reshape(leading)


def _half_chains(draws: Tensor) -> Tensor:
    """[B, 2C, S // 2] of [B, C, S], moved and scaled to [-1, 1], to which both statistics are indifferent.

    Centred on one of its draws rather than on its mean, a constant chain becomes exactly zero.
    """
    half = draws.shape[-1] // 2
    halves = torch.cat([draws[..., :half], draws[..., -half:]], -2)
    moved = halves - halves[:, :1, :1]
    largest = moved.abs().amax((-2, -1), keepdim=True)
    return moved / torch.where(largest == 0, 1.0, largest)


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over the last axis; the variance of equal values is exactly zero."""
    deviation = x - x[..., :1]
    shift = deviation.mean(-1, keepdim=True)
    variance = (deviation - shift).square().sum(-1) / (x.shape[-1] - 1)
    return (x[..., :1] + shift)[..., 0], variance


def _split_rhat(halves: Tensor) -> Tensor:
    n = halves.shape[-1]
    means, variances = _mean_and_variance(halves)
    within, between = variances.mean(-1), _mean_and_variance(means)[1]
    rhat = (between / within + (n - 1) / n).sqrt()
    return torch.where((within == 0) & (between == 0), 1.0, rhat)


def _effective_sample_size(halves: Tensor) -> Tensor:
    n_chains, n = halves.shape[-2:]
    n_total = n_chains * n
    covariance = _autocovariance(halves).mean(-2)
    means, _ = _mean_and_variance(halves)
    within = covariance[..., :1] * n / (n - 1)
    pooled = covariance[..., 0] + _mean_and_variance(means)[1]
    rho = 1 - (within - covariance) / pooled[..., None]
    rho[..., 0] = 1
    # Initial positive sequence: pairs rho_2k + rho_2k+1 up to the first that is not positive, or the last but one lag.
    n_pairs = max(0, (n - 3) // 2) + 1
    pairs = rho[..., : 2 * n_pairs].reshape(*rho.shape[:-1], n_pairs, 2).sum(-1)
    positive = (pairs[..., :-1] > 0).long().cumprod(-1)
    last = positive.sum(-1, keepdim=True)
    # Initial monotone sequence: no pair exceeds the one before. Of the last pair only the even lag counts.
    monotone = pairs[..., :-1].cummin(-1).values if n_pairs > 1 else pairs[..., :0]
    even, pair = rho.gather(-1, 2 * last)[..., 0], pairs.gather(-1, last)[..., 0]
    tail = torch.where((even > 0) | (pair >= 0), even, 0)
    tau = (2 * torch.where(positive == 1, monotone, 0).sum(-1) + tail - 1).clamp(min=1 / math.log10(n_total))
    size = torch.where(pooled.isnan(), math.nan, n_total / tau)
    return torch.where(pooled == 0, float(n_total), size)


def _autocovariance(x: Tensor) -> Tensor:
    """Autocovariance at each lag over the last axis, divided by n, through the power spectrum of the padded series."""
    n = x.shape[-1]
    # Zeros to twice the length keep the ends from meeting; a power of two is quick to transform.
    size = 1 << (2 * n - 1).bit_length()
    spectrum = torch.fft.rfft(x - x.mean(-1, keepdim=True), size)
    covariance: Tensor = torch.fft.irfft(spectrum.abs().square(), size)[..., :n] / n
    return covariance
