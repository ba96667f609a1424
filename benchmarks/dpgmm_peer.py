"""dpgmm 0.2.0, the package closest to the published sampler: its collapsed Gibbs sweeps, one point at a time."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_CLUSTERS = 6


class PeerSweep(NamedTuple):
    """What a sweep left: labels int64 [N], the trace that dpgmm would save, and seconds of the wall clock and of the
    main thread's CPU time, on which it computes."""

    labels: Tensor
    trace: dict[str, Any]
    seconds: float
    cpu_seconds: float


def dpgmm_sweeps(points: Tensor, n_sweeps: int, labels: Tensor | None = None, seed: int = 0) -> list[PeerSweep]:
    """Sweeps of one model of points [N, D] on the CPU, from the given labels or its own start of six random clusters.

    The time of the first sweep includes the set-up.
    """
    from dpgmm.samplers import FullCovarianceCollapsedGibbsSampler
    from loguru import logger

    sweeps: list[PeerSweep] = []
    clocks = [time.perf_counter(), time.thread_time()]

    class Kept(FullCovarianceCollapsedGibbsSampler):
        def get_initial_assignment(self, data: np.ndarray) -> tuple[list[set[int]], list[int]]:
            if labels is None:
                return super().get_initial_assignment(data)
            of_point = torch.unique(labels, return_inverse=True)[1].tolist()
            members: list[set[int]] = [set() for _ in range(max(of_point) + 1)]
            for i, k in enumerate(of_point):
                members[k].add(i)
            return members, of_point

        def _init_wandb(self) -> None:
            """Benchmarks report to nobody."""

        def data_log_likelihood(self, *arguments: Any) -> float:
            # For its log alone; it fails where rounding leaves a scatter asymmetric.
            return 0.0

        def save_model(
            self, out_dir: Any, params: Any, assignment: Any, data: Any, i: int, alpha: float, ll: Any
        ) -> None:
            wall, cpu = time.perf_counter() - clocks[0], time.thread_time() - clocks[1]
            trace = {
                "cluster_params": {name: [value.clone() for value in values] for name, values in params.items()},
                "cluster_assignment": [set(members) for members in assignment],
                "alpha": float(alpha),
            }
            sweeps.append(PeerSweep(torch.tensor(self.get_examples_assignment(assignment)), trace, wall, cpu))
            clocks[:] = time.perf_counter(), time.thread_time()

    logger.disable("dpgmm")
    # It calls a name that newer versions of torch have removed; what it computes is the same.
    torch.cholesky = torch.linalg.cholesky
    # It draws from the global generators of both.
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    sampler = Kept("init_data_stats", MAX_CLUSTERS, 1, torch.device("cpu"), verbose=False)
    sampler.fit(n_sweeps, points.float(), out_dir="kept in memory")
    return sweeps


def dpgmm_log_prob(traces: list[dict[str, Any]], x: Tensor) -> Tensor:
    """Log of the mean over traces of the predictive mixture that dpgmm makes of each, float64 [N], at x [N, D].

    The mixture is that of its ``FullCovTraceReader``, with its weights alpha + n_k and its float32 parameters,
    evaluated in float64. (``DPGMM.density`` takes the scatter of a cluster, which grows with n, for its covariance.)
    """
    from dpgmm.metrics.cgs_trace.full_cov import FullCovTraceReader
    from dpgmm.utils.distributions.multivariate_student_t import MultivariateStudentT

    logs = []
    for trace in traces:
        mixture = FullCovTraceReader(trace).prepare_t_student_mixture()
        part = mixture.component_distribution
        student = MultivariateStudentT(part.loc.double(), part.scale_tril.double(), part.df.double())
        log_weights = mixture.mixture_distribution.probs.double().log()
        logs.append(torch.logsumexp(log_weights + student.log_prob(x.double()), 1))
    return torch.logsumexp(torch.stack(logs), 0) - float(np.log(len(logs)))
