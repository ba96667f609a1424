"""What a fit over many ranks sends, and how long it takes, before it is started."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import torch

from fastdens.batch import RaggedBatch
from fastdens.distributed.costs import assign, cut, operations
from fastdens.errors import check_batch, check_integer, check_positive
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.parts import find_failures, fit_part


@dataclass(frozen=True)
class FitPlan:
    """Terms of a fit with ``split="models"``; ``print(plan)`` shows them.

    Attributes
    ----------
    n_ranks, n_parts : int
        Ranks, and parts into which the models are cut.
    one_process_seconds : float
        Of all models on one rank.
    fit_seconds : float
        Of the rank with the most to do.
    result_bytes : int
        Of the fits of all models, which every rank has in the end.
    sent_bytes : int
        That each rank sends: at most as much as all others receive.
    exchange_seconds : float
        Of what is sent, at the bandwidth and latency.
    """

    n_ranks: int
    n_parts: int
    one_process_seconds: float
    fit_seconds: float
    result_bytes: int
    sent_bytes: int
    exchange_seconds: float

    @property
    def efficiency(self) -> float:
        """The share of all ranks' time that is spent on fits that one process would make too."""
        return self.one_process_seconds / (self.n_ranks * (self.fit_seconds + self.exchange_seconds))

    def __str__(self) -> str:
        return (
            f"{self.n_ranks} ranks, {self.n_parts} parts: fits {self.fit_seconds:.3g} s "
            f"(one process {self.one_process_seconds:.3g} s), exchange of {self.result_bytes / 1e6:.3g} MB "
            f"{self.exchange_seconds:.3g} s, efficiency {100 * self.efficiency:.0f} %"
        )


def plan(
    estimator: BaseMixtures,
    batch: RaggedBatch,
    n_ranks: int,
    *,
    bandwidth: float = 1.25e9,
    latency: float = 5e-5,
    n_measured: int = 4,
) -> FitPlan:
    """What :func:`fit` with ``split="models"`` would cost on some number of ranks, from fits of a few models here.

    With P ranks, result bytes B, bandwidth W and latency L, the exchange takes ``(P - 1) (B / (P W) + L)`` for each of
    its rounds: a ring, in which each rank passes on what it has received.

    Parameters
    ----------
    estimator : GaussianMixtures, FactorAnalyserMixtures or a Dirichlet-process mixture
        What :func:`fit` would be given; it stays as it is.
    batch : RaggedBatch
        Points of the models to fit.
    n_ranks : int
        Processes of the job.
    bandwidth : float
        Bytes a second between two ranks; 1.25e9 is 10 Gbit/s.
    latency : float
        Seconds of an exchange of nothing between two ranks.
    n_measured : int
        Models that are fitted here, of about the mean cost, to learn how long one takes.

    Returns
    -------
    FitPlan
        Seconds and bytes; ``print`` shows them.

    Raises
    ------
    ModelError, TypeError, ValueError
        As of ``estimator.fit``, and if an argument is out of its range.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(400, 4), torch.arange(400) % 8)
    >>> fd.distributed.plan(fd.GaussianMixtures(2, max_iter=5, tol=0), batch, n_ranks=4).n_ranks
    4
    """
    check_batch(batch)
    n_ranks, n_measured = check_integer("n_ranks", n_ranks, 1), check_integer("n_measured", n_measured, 1)
    bandwidth, latency = check_positive("bandwidth", bandwidth), check_positive("latency", latency)
    failures = find_failures(estimator, batch)
    fitted = [m for m in range(batch.n_models) if m not in failures]
    costs = operations(estimator, batch.sizes.cpu(), batch.n_features)[fitted]
    near_mean = (costs - costs.mean()).abs().argsort(stable=True)[:n_measured].sort().values
    models = torch.tensor(fitted, dtype=torch.int64, device=batch.offsets.device)[near_mean.to(batch.offsets.device)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The first fit compiles what is not compiled yet.
        fit_part(estimator, batch, models[:1])
        begin = time.perf_counter()
        measured = fit_part(estimator, batch, models)
        seconds_of_unit = (time.perf_counter() - begin) / float(costs[near_mean].sum())
    n_bytes = sum(tensor.nbytes for tensor in measured.tensors.values()) * len(fitted) // len(models)
    parts = cut(costs, n_ranks, batch.offsets.device)
    parts_of_ranks = assign([float(costs[part].sum()) for part in parts], n_ranks)
    largest = max(sum(float(costs[parts[number]].sum()) for number in own) for own in parts_of_ranks)
    sent = n_bytes * (n_ranks - 1) // n_ranks
    # Lengths, headers and contents are exchanged one after the other.
    rounds = 3
    exchange = sent / bandwidth + rounds * (n_ranks - 1) * latency
    return FitPlan(
        n_ranks,
        len(parts),
        float(costs.sum()) * seconds_of_unit,
        largest * seconds_of_unit,
        n_bytes,
        sent,
        exchange if math.isfinite(exchange) else math.inf,
    )
