"""dpgmm, the package closest to the published sampler: its collapsed Gibbs sweeps, one point at a time."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.peers.given import labels_of
from fastdens.bench.peers.global_generators import seeded

MAX_CLUSTERS = 6


def gibbs(case: Case) -> Run:
    """Without what it can leave out: the log-likelihood of each sweep, and files."""
    labels, k = labels_of(case), case.problem.n_components

    def work() -> list[list[PeerSweep]]:
        return [
            dpgmm_sweeps(x, case.n_iter, own, init_components=k) for x, own in zip(case.points, labels, strict=True)
        ]

    def outcome(models: list[list[PeerSweep]]) -> Tensor:
        counts = [[len(sweep.trace["cluster_assignment"]) for sweep in sweeps[len(sweeps) // 2 :]] for sweeps in models]
        return torch.tensor(counts, device="cpu", dtype=torch.float64).mean(1)

    return Run(work, outcome, note="draws the concentration anew at every point, the indicator the wrong way round")


class PeerSweep(NamedTuple):
    """What a sweep left.

    Attributes
    ----------
    labels : Tensor
        int64 [N].
    trace : dict
        What dpgmm would save.
    seconds, cpu_seconds : float
        Of the wall clock, and of the CPU time of the main thread, on which it computes.
    """

    labels: Tensor
    trace: dict[str, Any]
    seconds: float
    cpu_seconds: float


def dpgmm_sweeps(
    points: Tensor, n_sweeps: int, labels: Tensor | None = None, seed: int = 0, init_components: int | None = None
) -> list[PeerSweep]:
    """Sweeps of one model of points [N, D] on the CPU, from the given labels or its own start of six random clusters.

    The time of the first sweep includes the set-up.
    """
    from dpgmm.samplers import FullCovarianceCollapsedGibbsSampler
    from loguru import logger

    sweeps: list[PeerSweep] = []
    clocks = [time.perf_counter(), time.thread_time()]

    class Kept(FullCovarianceCollapsedGibbsSampler):  # type: ignore[misc, unused-ignore]
        def get_initial_assignment(self, data: np.ndarray) -> Any:
            if labels is None:
                return super().get_initial_assignment(data)
            of_point = torch.unique(labels, return_inverse=True)[1].tolist()
            members: list[set[int]] = [set() for _ in range(max(of_point) + 1)]
            for i, k in enumerate(of_point):
                members[k].add(i)
            return members, of_point

        def compute_prior_params(self, data: Tensor, components_num: int) -> Any:
            return super().compute_prior_params(data, init_components or components_num)

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
            of_point = torch.tensor(self.get_examples_assignment(assignment), device="cpu", dtype=torch.int64)
            sweeps.append(PeerSweep(of_point, trace, wall, cpu))
            clocks[:] = time.perf_counter(), time.thread_time()

    logger.disable("dpgmm")
    # It calls a name that newer versions of torch have removed; what it computes is the same.
    torch.cholesky = torch.linalg.cholesky  # type: ignore[attr-defined]
    with seeded(seed):
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


PEER = Peer(
    name="dpgmm",
    distribution="dpgmm==0.2.0",
    module="dpgmm",
    beyond=(
        "The package closest to the code of the paper. It also samples mixtures with diagonal covariances, has "
        "Triton kernels for a single model in up to thousands of dimensions, and follows a chain in Weights & "
        "Biases. It measures the complexity and the entanglement of representations from saved chains, and draws "
        "clusters."
    ),
    operations={"gibbs": gibbs},
)
