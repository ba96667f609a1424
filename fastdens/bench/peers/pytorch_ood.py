"""pytorch-ood: out-of-distribution detectors on features."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.peers.given import queries_of


def scores(case: Case) -> Run:
    """Mahalanobis, fitted and asked: the models are the classes."""
    from pytorch_ood.detector import Mahalanobis

    points, labels, queries = _labelled(case)
    return Run(
        lambda: Mahalanobis(None).fit_features(points, labels).predict_features(queries),
        # Half of the squared distance under a covariance that is a sum over the points.
        lambda found: 2 * len(points) * found.double(),
    )


def neighbours(case: Case) -> Run:
    """KNN, which searches by scikit-learn and is fitted beforehand."""
    from pytorch_ood.detector import KNN

    points, labels, queries = _labelled(case)
    detector = KNN(None, k=case.n_iter, normalize=False).fit_features(points, labels)
    return Run(
        lambda: detector.predict_features(queries),
        lambda distances: distances.double(),
        note="on all cores",
    )


def _labelled(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    m, n, _ = case.points.shape
    labels = torch.arange(m, device=case.points.device, dtype=torch.int64).repeat_interleave(n)
    return case.points.flatten(0, 1), labels, queries_of(case)


PEER = Peer(
    name="pytorch-ood",
    distribution="pytorch-ood==0.4.0",
    module="pytorch_ood",
    beyond=(
        "More than thirty detectors, most of them of a network's outputs and gradients rather than of densities, "
        "with losses to train for detection, data sets, metrics and benchmarks. fastdens has four detectors, and "
        "adapters that put them among these."
    ),
    operations={"scores": scores, "neighbours": neighbours},
)
