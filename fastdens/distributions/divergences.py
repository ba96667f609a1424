"""Entropy and Kullback-Leibler divergences of densities that can be drawn from, by Monte Carlo.

``E_p[f(x)]`` is the mean of f over draws x from p, and its standard error the standard deviation over the root of the
number of draws (Robert & Casella, Monte Carlo Statistical Methods, 2004, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import check_batch_of, check_integer

_MAX_ELEMENTS = 1 << 24


class MonteCarloEstimate(NamedTuple):
    """Estimates by Monte Carlo, in nats, and their standard errors.

    Attributes
    ----------
    value : Tensor
        float64, of any shape.
    standard_error : Tensor
        float64, of the same shape.
    """

    value: Tensor
    standard_error: Tensor


class Density(Protocol):
    """The interface that the estimates need: M densities in D dimensions."""

    @property
    def n_models(self) -> int:
        """Number of models M."""

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""

    @property
    def device(self) -> torch.device:
        """Where points belong and draws come from."""

    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points [M, n, D] drawn from every model, and the component of each."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of points [N, D] under every model, [N, M]."""

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point of a batch under its own model, [N]."""


def entropy(density: Density, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
    """Differential entropy ``-E_p[log p(x)]`` of every model (Cover & Thomas 2006, eq. 8.1).

    Parameters
    ----------
    density : Density
        M models.
    n_samples : int
        Draws from each model, at least 2.
    generator : torch.Generator, optional
        On the device of the density.

    Returns
    -------
    MonteCarloEstimate
        [M]; NaN for a model of which a draw is NaN.

    Raises
    ------
    TypeError, ValueError
        If ``n_samples`` is no integer of at least 2.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> density = fd.GaussianMixtureDensity(torch.ones(1, 1), torch.zeros(1, 1, 2), torch.eye(2)[None, None])
    >>> fd.analysis.entropy(density).value.round()  # Of a standard normal in the plane: 1 + log 2 pi, which is 2.84.
    tensor([3.], dtype=torch.float64)
    """
    moments = _Moments()
    for drawn in _blocks(density, n_samples, density.n_features, generator):
        moments.add(-_own_log_prob(density, drawn))
    return moments.estimate()


def relative_entropy(
    density: Density, batch: RaggedBatch, n_samples: int = 100_000, generator: torch.Generator | None = None
) -> MonteCarloEstimate:
    """``KL(p || q)`` of every model, q the Gaussian of independent features with the means and variances of its points.

    It measures how much more a density says about its class than the means and variances of the features do (Jamroz &
    Kurdziel, AAAI 2023).

    Parameters
    ----------
    density : Density
        M models.
    batch : RaggedBatch
        The points of the same models, perhaps with weights. Variances are about the mean, with divisor n.
    n_samples, generator : optional
        As for :func:`entropy`.

    Returns
    -------
    MonteCarloEstimate
        [M]. Infinite with a standard error of NaN where a feature is constant, for q is then no density; NaN for a
        model without points, or of which a draw is NaN.

    Raises
    ------
    TypeError, ValueError
        If the batch is not of the same models, or ``n_samples`` no integer of at least 2.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_list([torch.cat([torch.randn(500, 1) - 9, torch.randn(500, 1) + 9])])
    >>> density = fd.GaussianMixtures(2).fit(batch).density()
    >>> bool(fd.analysis.relative_entropy(density, batch).value > 1)  # Two clusters are far from one Gaussian.
    True
    """
    checked = check_batch_of(batch, density.n_models, density.n_features, density.device)
    mean, variance = _class_moments(checked)
    # A constant feature makes q no density and the divergence infinite; its variance is left out of the sums.
    constant = variance == 0
    variance = variance.masked_fill(constant, 1.0)
    log_norm = -0.5 * (2 * math.pi * variance).log().sum(1)
    moments = _Moments()
    for drawn in _blocks(density, n_samples, density.n_features, generator):
        squares = (drawn.double() - mean[:, None]).square_()
        log_q = log_norm[:, None] - 0.5 * (squares @ variance.reciprocal()[..., None])[..., 0]
        moments.add(_own_log_prob(density, drawn) - log_q)
    value, standard_error = moments.estimate()
    degenerate = constant.any(1)
    return MonteCarloEstimate(
        value + torch.where(degenerate, math.inf, 0.0), standard_error.masked_fill(degenerate, math.nan)
    )


def kl_matrix(
    density: Density, n_samples: int = 10_000, generator: torch.Generator | None = None
) -> MonteCarloEstimate:
    """``KL(p_i || p_j) = E_{p_i}[log p_i(x) - log p_j(x)]`` of all pairs (Kullback & Leibler 1951).

    Parameters
    ----------
    density : Density
        M models.
    n_samples : int
        Draws from each model, at least 2; all pairs of a row use the same.
    generator : torch.Generator, optional
        On the device of the density.

    Returns
    -------
    MonteCarloEstimate
        [M, M]. The diagonal is exactly zero, with a standard error of zero. Rows and columns of a model that is NaN are
        NaN; a value is infinite, and its standard error NaN, where a draw from p_i has no density under p_j.

    Raises
    ------
    TypeError, ValueError
        If ``n_samples`` is no integer of at least 2.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> means = torch.tensor([[[0.0]], [[1.0]]])
    >>> density = fd.GaussianMixtureDensity(torch.ones(2, 1), means, torch.ones(2, 1, 1, 1))
    >>> fd.analysis.kl_matrix(density, 40000).value.round(decimals=1).abs()  # Half the squared distance.
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]], dtype=torch.float64)
    """
    moments = _Moments()
    for drawn in _blocks(density, n_samples, max(density.n_models, density.n_features), generator):
        n_models, n, n_features = drawn.shape
        log_prob = density.log_prob(drawn.reshape(-1, n_features)).double().reshape(n_models, n, n_models)
        own = log_prob.diagonal(dim1=0, dim2=2).T
        moments.add(own[..., None] - log_prob)
    return moments.estimate()


def mean_over_draws(estimates: Iterable[MonteCarloEstimate]) -> MonteCarloEstimate:
    """Mean of the same quantity of several densities, such as those of the kept draws of a sampler.

    ``mean_over_draws(relative_entropy(density, batch, 1000) for density in models.draw_densities())`` is what the code
    published with Jamroz & Kurdziel (AAAI 2023) computes, with ``draw_densities("published")``. KL is convex: this is
    at least the divergence of the averaged density.

    Parameters
    ----------
    estimates : iterable of MonteCarloEstimate
        At least one, of one shape, from independent Monte Carlo draws.

    Returns
    -------
    MonteCarloEstimate
        Of the same shape. The standard error is that of Monte Carlo, given the densities.

    Raises
    ------
    ValueError
        If there is no estimate.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> draws = [fd.MonteCarloEstimate(torch.tensor(v), torch.tensor(0.1)) for v in (1.0, 2.0)]
    >>> fd.analysis.mean_over_draws(draws).value
    tensor(1.5000, dtype=torch.float64)
    """
    count = 0
    value = variance = torch.zeros((), dtype=torch.float64, device="cpu")
    for count, own in enumerate(estimates, start=1):  # noqa: B007
        value, variance = value + own.value, variance + own.standard_error.square()
    if not count:
        raise ValueError("there is no estimate to average: pass those of at least one density.")
    return MonteCarloEstimate(value / count, variance.sqrt() / count)


class _Moments:
    """Mean and sum of squares about it of values that come in blocks [M, n, ...], over their second axis.

    Blocks are combined as in Chan, Golub & LeVeque, Algorithms for computing the sample variance, 1983, eq. 2.1.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64, device="cpu")

    def add(self, values: Tensor) -> None:
        n = values.shape[1]
        mean = values.mean(1)
        squares = (values - mean[:, None]).square_().sum(1)
        total = self.count + n
        if self.count:
            squares += self.squares + (mean - self.mean).square() * (self.count * n / total)
            # A weighted mean, unlike a step from the old mean to the new, leaves infinity as it is.
            mean = self.mean * (self.count / total) + mean * (n / total)
        self.count, self.mean, self.squares = total, mean, squares

    def estimate(self) -> MonteCarloEstimate:
        return MonteCarloEstimate(self.mean, (self.squares / (self.count - 1) / self.count).sqrt())


def _blocks(density: Density, n_samples: int, width: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Draws from every model, [M, n, D], in blocks for which M x n x width stays bounded."""
    check_integer("n_samples", n_samples, 2)
    step = max(1, _MAX_ELEMENTS // max(1, density.n_models * width))
    for begin in range(0, n_samples, step):
        yield density.sample_components(min(step, n_samples - begin), generator)[0]


def _own_log_prob(density: Density, drawn: Tensor) -> Tensor:
    """Log-density of draws [M, n, D] under the model of each, float64 [M, n]."""
    n_models, n, n_features = drawn.shape
    offsets = n * torch.arange(n_models + 1, device=drawn.device)
    index = torch.arange(n_models * n, device=drawn.device)
    batch = RaggedBatch(drawn.reshape(-1, n_features), offsets, index, tuple(range(n_models)))
    return density.score_samples(batch).double().reshape(n_models, n)


def _class_moments(batch: RaggedBatch) -> tuple[Tensor, Tensor]:
    """Mean and variance (divisor n) of each feature in each class, float64 [M, D]; NaN for a class without points.

    A point of weight w counts as w equal ones.
    """
    shape = (batch.n_models, batch.n_features)
    mean, variance = (torch.full(shape, math.nan, dtype=torch.float64, device=batch.device) for _ in range(2))
    for m in torch.nonzero(batch.total_weights)[:, 0].tolist():
        part = batch.part(m, m + 1).without_zero_weights()
        points = part.points.double()
        if part.weights is None:
            variance[m], mean[m] = torch.var_mean(points, 0, correction=0)
        else:
            share = part.weights / part.weights.sum()
            mean[m] = share @ points
            variance[m] = share @ (points - mean[m]).square()
    return mean, variance
