"""Convergence of Markov chains: R-hat and effective sample size, plain and rank-normalised, and a verdict on models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from fastdens.arrays import as_tensor
from fastdens.errors import check_integer, check_non_negative
from fastdens.f_distribution import f_survival, f_upper_quantile

# With four draws a half chain has two, the fewest that have a variance.
_FEWEST_DRAWS = 4
_CUSTOMARY_THRESHOLD = 1.1
_FALSE_ALARM_PROBABILITY = 1e-3
# Draws looked at together: few enough that what is computed from them stays in a processor's cache.
_BLOCK_SIZE = 1 << 18
_MOST_MODELS_NAMED = 10


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

    Examples
    --------
    >>> import torch
    >>> from fastdens.convergence import split_rhat
    >>> apart = torch.randn(4, 200, dtype=torch.float64) + torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    >>> bool(split_rhat(apart) > 1.5)
    True
    """
    return _by_blocks(_split_rhat, draws)


def rank_normalised_rhat(draws: ArrayLike | Tensor) -> Tensor:
    """Split R-hat of the ranks of the draws, which also sees chains that differ in their spread or have no variance.

    The larger of two values: the split R-hat of the normal scores z = Phi^-1((r - 3/8) / (N + 1/4)) of the ranks r
    among the N = 2C (S // 2) draws in half chains, which compares locations, and that of the normal scores of
    abs(x - median), the folded draws, which compares spreads. Equal draws share their mean rank.

    Parameters
    ----------
    draws : array or Tensor
        [..., C, S], as for :func:`split_rhat`, with the same errors.

    Returns
    -------
    Tensor
        float64 [...]: 1 for chains that agree; the paper asks for less than 1.01. Chains that all stay at one and the
        same value have 1, chains stuck at different values infinity, and draws that are too few (S < 4), infinite or
        NaN have NaN, as for :func:`split_rhat`.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner, Rank-normalization, folding, and localization: an improved R-hat,
    Bayesian Analysis 16, 2021, sections 4.1 and 4.2.

    Examples
    --------
    >>> import torch
    >>> from fastdens.convergence import rank_normalised_rhat
    >>> wider = torch.randn(4, 200) * torch.tensor([[1.0], [1.0], [1.0], [20.0]])
    >>> bool(rank_normalised_rhat(wider) > 1.1)
    True
    """
    return _by_blocks(_rank_normalised_rhat, draws)


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

    Examples
    --------
    >>> import torch
    >>> from fastdens.convergence import effective_sample_size
    >>> independent = torch.randn(4, 500)
    >>> slow = independent.repeat_interleave(10, 1)  # Ten equal draws after one another.
    >>> bool(effective_sample_size(slow) < 5000)
    True
    """
    return _by_blocks(_effective_sample_size, draws)


def bulk_effective_sample_size(draws: ArrayLike | Tensor) -> Tensor:
    """Effective sample size of the normal scores of the ranks: how well the chains know the middle of the distribution.

    :func:`effective_sample_size` of the scores that :func:`rank_normalised_rhat` describes. It exists where the draws
    have no mean or variance, and no monotone change of the quantity alters it.

    Parameters
    ----------
    draws : array or Tensor
        [..., C, S], as for :func:`split_rhat`, with the same errors.

    Returns
    -------
    Tensor
        float64 [...], between 0 and N log10(N), N = 2C (S // 2); the paper asks for 100 a chain. Chains that all stay
        at one and the same value count in full, N; draws that are too few (S < 4), infinite or NaN give NaN.

    References
    ----------
    Vehtari et al., Bayesian Analysis 16, 2021, section 4.1.
    """
    return _by_blocks(_bulk_effective_sample_size, draws)


def tail_effective_sample_size(draws: ArrayLike | Tensor) -> Tensor:
    """The smaller of the effective sample sizes of the 5 % and the 95 % quantile.

    That of a quantile q is :func:`effective_sample_size` of the indicators x <= q; q is the quantile of all C S draws.

    Parameters
    ----------
    draws : array or Tensor
        [..., C, S], as for :func:`split_rhat`, with the same errors.

    Returns
    -------
    Tensor
        float64 [...], as for :func:`bulk_effective_sample_size`. A quantile that no draw exceeds, as is common for
        draws of few values, counts in full, N.

    References
    ----------
    Vehtari et al., Bayesian Analysis 16, 2021, section 4.3.
    """
    return _by_blocks(_tail_effective_sample_size, draws)


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

    Examples
    --------
    >>> from fastdens.convergence import rhat_threshold
    >>> round(rhat_threshold(n_chains=4, n_draws=20), 2), round(rhat_threshold(n_chains=4, n_draws=1000), 2)
    (1.14, 1.1)
    """
    m, n = 2 * check_integer("n_chains", n_chains, 1), check_integer("n_draws", n_draws, 1) // 2
    if n_draws < _FEWEST_DRAWS:
        return math.nan
    between, within = m - 1, m * (n - 1)
    if f_survival(n * _CUSTOMARY_THRESHOLD**2 - (n - 1), between, within) <= _FALSE_ALARM_PROBABILITY:
        return _CUSTOMARY_THRESHOLD
    return math.sqrt((n - 1 + f_upper_quantile(_FALSE_ALARM_PROBABILITY, between, within)) / n)


@dataclass(frozen=True, eq=False)
class ChainConvergence:
    """Whether the chains of each of M models agree, and by how much: what :func:`chain_convergence` returns.

    Attributes
    ----------
    rhat : Tensor
        float64 [M], the largest R-hat of the quantities, rank-normalised or plain.
    effective_sample_size : Tensor
        float64 [M], the smallest bulk or tail effective sample size of the quantities.
    converged : Tensor
        bool [M], whether every quantity meets both limits; False where a number is NaN.
    max_rhat, min_effective_sample_size : float
        The limits.
    rhat_of, effective_sample_size_of : dict of str to Tensor
        float64 [M], the same numbers for each quantity by its name.
    """

    rhat: Tensor
    effective_sample_size: Tensor
    converged: Tensor
    max_rhat: float
    min_effective_sample_size: float
    rhat_of: dict[str, Tensor]
    effective_sample_size_of: dict[str, Tensor]

    def __str__(self) -> str:
        return self.summary([f"model {m}" for m in range(len(self.converged))])

    def summary(self, model_names: Sequence[str]) -> str:
        """One sentence: how many models agree, and which do not.

        Parameters
        ----------
        model_names : sequence of str
            M names.

        Returns
        -------
        str
            "98 of 100 models agree; these do not: cat (R-hat 1.31, 12 effective draws), ...": at most ten, the largest
            R-hat first, before them those that have none.

        Raises
        ------
        ValueError
            If there are not M names.
        """
        n_models, n_agree = len(self.converged), int(self.converged.sum())
        if len(model_names) != n_models:
            raise ValueError(f"there are {len(model_names)} model names for {n_models} models: pass one for each.")
        agree = f"{n_agree} of {n_models} model{'s' * (n_models != 1)} agree{'s' * (n_agree == 1)}"
        if n_agree == n_models:
            return f"{agree}."
        rhats, sizes = self.rhat.tolist(), self.effective_sample_size.tolist()

        def ease(m: int) -> tuple[bool, float, float]:
            return not math.isnan(rhats[m]), -rhats[m], sizes[m]

        def describe(m: int) -> str:
            if math.isnan(rhats[m]):
                return f"{model_names[m]} (too few draws, or draws that are not finite)"
            return f"{model_names[m]} (R-hat {rhats[m]:.2f}, {sizes[m]:.0f} effective draws)"

        worst = sorted(torch.nonzero(~self.converged)[:, 0].tolist(), key=ease)
        named = ", ".join(map(describe, worst[:_MOST_MODELS_NAMED]))
        more = f", and {len(worst) - _MOST_MODELS_NAMED} more" * (len(worst) > _MOST_MODELS_NAMED)
        return f"{agree}; {'these do' if len(worst) > 1 else 'this one does'} not: {named}{more}."


def chain_convergence(
    traces: Mapping[str, Tensor], max_rhat: float, min_effective_sample_size: float
) -> ChainConvergence:
    """Compare the chains of each model in one or several quantities.

    A model has converged where in every quantity R-hat is at most ``max_rhat``, and the bulk and the tail effective
    sample size are at least ``min_effective_sample_size``. R-hat is the larger of the rank-normalised and the plain
    split one: the ranks of few draws bound the first, however far apart the chains are. Quantities that mean the same
    whatever the components are called, such as the log-joint or the density at held-out points, can be compared.

    Parameters
    ----------
    traces : mapping of str to Tensor
        [M, C, S] each, with one M; C and S may differ.
    max_rhat : float
        1.01 is the advice of Vehtari et al. (2021).
    min_effective_sample_size : float
        100 for each chain is theirs.

    Returns
    -------
    ChainConvergence
        The verdict on each model and the figures behind it.

    Raises
    ------
    ValueError
        If ``traces`` is empty, its tensors are not [M, C, S] with one M and at least one chain, or a limit is no
        number of at least 0.

    Examples
    --------
    >>> import torch
    >>> from fastdens.convergence import chain_convergence
    >>> draws = torch.randn(2, 4, 100, dtype=torch.float64)
    >>> draws[1, 0] += 5  # The first chain of the second model is elsewhere.
    >>> chain_convergence({"log-joint": draws}, max_rhat=1.1, min_effective_sample_size=40).converged
    tensor([ True, False])
    """
    check_non_negative("max_rhat", max_rhat)
    check_non_negative("min_effective_sample_size", min_effective_sample_size)
    shapes = {name: tuple(trace.shape) for name, trace in traces.items()}
    if not shapes:
        raise ValueError("traces is empty: pass at least one quantity, [M, C, S].")
    first, n_models = next((name, shape[:1]) for name, shape in shapes.items())
    for name, shape in shapes.items():
        if len(shape) != 3 or shape[:1] != n_models:
            raise ValueError(
                f"the trace of {name!r} has shape {shape} and that of {first!r} {shapes[first]}, but each must be "
                "[M, C, S] with the same number of models M."
            )
    rhat_of = {name: torch.maximum(rank_normalised_rhat(trace), split_rhat(trace)) for name, trace in traces.items()}
    size_of = {
        name: torch.minimum(bulk_effective_sample_size(trace), tail_effective_sample_size(trace))
        for name, trace in traces.items()
    }
    rhat, size = torch.stack([*rhat_of.values()]).amax(0), torch.stack([*size_of.values()]).amin(0)
    converged = (rhat <= max_rhat) & (size >= min_effective_sample_size)
    return ChainConvergence(rhat, size, converged, float(max_rhat), float(min_effective_sample_size), rhat_of, size_of)


def _by_blocks(statistic: Callable[[Tensor], Tensor], draws: ArrayLike | Tensor) -> Tensor:
    """``statistic`` of the draws [B, C, S], in float64, of a block of models at a time."""
    tensor = as_tensor(draws, "draws")
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
    return torch.cat([statistic(block.double()) for block in blocks]).reshape(leading)


def _half_chains(draws: Tensor) -> Tensor:
    """[B, 2C, S // 2] of [B, C, S]."""
    half = draws.shape[-1] // 2
    return torch.cat([draws[..., :half], draws[..., -half:]], -2)


def _where_finite(values: Tensor, draws: Tensor) -> Tensor:
    """``values`` [B, C, S] of the models whose draws are all finite, NaN for the others."""
    return torch.where(draws.isfinite().all(-1).all(-1)[:, None, None], values.double(), math.nan)


def _normal_scores(draws: Tensor) -> Tensor:
    """Phi^-1((r - 3/8) / (N + 1/4)) [B, C, S] of the ranks r of the N = C S draws of each model."""
    rank = _mean_ranks(draws.flatten(1))
    scores = torch.special.ndtri((rank - 3 / 8) / (rank.shape[-1] + 1 / 4))
    return _where_finite(scores.view_as(draws), draws)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 over the last axis of [B, N]; equal values share the mean of theirs."""
    ordered, order = values.sort(-1)
    position = torch.arange(values.shape[-1], device=values.device)
    differs = ordered[:, 1:] != ordered[:, :-1]
    # Positions of the first and the last of the values equal to each.
    first = pad(torch.where(differs, position[1:], 0), (1, 0)).cummax(-1).values
    last = pad(torch.where(differs, position[:-1], position[-1]), (0, 1), value=len(position) - 1)
    last = last.flip(-1).cummin(-1).values.flip(-1)
    return torch.empty_like(values).scatter_(-1, order, (first + last).double() / 2 + 1)


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over the last axis; the variance of equal values is exactly zero."""
    deviation = x - x[..., :1]
    shift = deviation.mean(-1, keepdim=True)
    variance = (deviation - shift).square().sum(-1) / (x.shape[-1] - 1)
    return (x[..., :1] + shift)[..., 0], variance


def _split_rhat(draws: Tensor) -> Tensor:
    return _rhat(_half_chains(draws))


def _rank_normalised_rhat(draws: Tensor) -> Tensor:
    halves = _half_chains(draws)
    ordered = halves.flatten(1).sort(-1).values
    middle = ordered.shape[-1] // 2
    median = (ordered[:, middle - 1] + ordered[:, middle]) / 2
    folded = (halves - median[:, None, None]).abs()
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def _effective_sample_size(draws: Tensor) -> Tensor:
    return _size(_half_chains(draws))


def _bulk_effective_sample_size(draws: Tensor) -> Tensor:
    return _size(_normal_scores(_half_chains(draws)))


def _tail_effective_sample_size(draws: Tensor) -> Tensor:
    ordered = draws.flatten(1).sort(-1).values
    last = ordered.shape[-1] - 1
    # No draw lies between an interpolated quantile and the order statistic below it: the indicators are the same.
    low, high = (ordered[:, k, None, None] for k in (last // 20, 19 * last // 20))
    return torch.minimum(*(_size(_half_chains(_where_finite(draws <= q, draws))) for q in (low, high)))


def _scaled(chains: Tensor) -> Tensor:
    """Moved and scaled to [-1, 1], to which R-hat and effective sample size are indifferent.

    Centred on one of its draws rather than on its mean, a constant chain becomes exactly zero.
    """
    moved = chains - chains[:, :1, :1]
    largest = moved.abs().amax((-2, -1), keepdim=True)
    return moved / torch.where(largest == 0, 1.0, largest)


def _rhat(chains: Tensor) -> Tensor:
    """Potential scale reduction [B] of whole chains [B, C, S]."""
    chains = _scaled(chains)
    n = chains.shape[-1]
    means, variances = _mean_and_variance(chains)
    within, between = variances.mean(-1), _mean_and_variance(means)[1]
    rhat = (between / within + (n - 1) / n).sqrt()
    return torch.where((within == 0) & (between == 0), 1.0, rhat)


def _size(chains: Tensor) -> Tensor:
    """Effective sample size [B] of whole chains [B, C, S]."""
    chains = _scaled(chains)
    n_chains, n = chains.shape[-2:]
    n_total = n_chains * n
    covariance = _autocovariance(chains).mean(-2)
    means, _ = _mean_and_variance(chains)
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
    centred = (x - x.mean(-1, keepdim=True)).cpu().numpy()
    # Bits of torch's transform depend on the number of threads.
    covariance = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[..., :n] / n
    return torch.from_numpy(covariance).to(x)
