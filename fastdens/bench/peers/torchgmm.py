"""torchgmm: EM of one model in PyTorch Lightning, all types of covariance; k-means."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import inertia, mean_log_likelihood, stacked
from fastdens.bench.parameters import parameters_of, precisions_cholesky
from fastdens.bench.peers.divergences import divergence_to_next
from fastdens.bench.peers.given import PLAIN, queries_of
from fastdens.bench.peers.global_generators import seeded

_TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}


def em(case: Case) -> Run:
    """Its Lightning module, trained as the estimator would train it.

    The estimator itself takes no weights and no covariances to start from, and divides each iteration into two passes
    over data that come in one batch, where its documentation promises that for several batches.
    """
    from torchgmm.base.data import DataLoader, collate_tensor, dataset_from_tensors
    from torchgmm.bayes import GaussianMixture
    from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule

    start = parameters_of(case.start, case.variant)
    estimator = GaussianMixture(trainer_params=_TRAINER)
    loaders = [DataLoader(dataset_from_tensors(x), batch_size=len(x), collate_fn=collate_tensor) for x in case.points]

    def work() -> list[Any]:
        models = _models(start, case.variant)
        with _quiet():
            for model, loader in zip(models, loaders, strict=True):
                module = GaussianMixtureLightningModule(model, convergence_tolerance=0)
                estimator.trainer(max_epochs=case.n_iter).fit(module, loader)
        return models

    return Run(
        work,
        lambda models: mean_log_likelihood(
            case.points,
            stacked((model.component_probs, model.means, model.covariances) for model in models),
        ),
        note="by its Lightning module: its estimator takes no such start",
    )


def start(case: Case) -> Run:
    """Its estimator, for no iteration or some."""
    from torchgmm.clustering import KMeans

    options = {**_TRAINER, "max_epochs": 0 if case.variant == "kmeans++" else case.n_iter}

    def work() -> list[Any]:
        with seeded(), _quiet():
            return [
                KMeans(
                    case.problem.n_components,
                    init_strategy="kmeans++",
                    convergence_tolerance=0,
                    trainer_params=options,
                ).fit(x)
                for x in case.points
            ]

    return Run(
        work,
        lambda fits: inertia(case.points, torch.stack([fit.model_.centroids for fit in fits])),
        note=PLAIN,
    )


def log_prob(case: Case) -> Run:
    """Of modules whose parameters are set instead of fitted."""
    models, queries = _models(parameters_of(case.start, "full"), "full"), queries_of(case)
    return Run(
        lambda: [model.forward(queries)[1] for model in models],
        lambda columns: torch.stack(columns, 1).double(),
    )


def kl(case: Case) -> Run:
    """By draws of its modules and their densities."""
    return divergence_to_next(
        case,
        _models(parameters_of(case.start, "full"), "full"),
        lambda density, n: density.sample(n),
        lambda density, draws: density.forward(draws)[1],
    )


def _models(parameters: Parameters, covariance_type: str) -> list[Any]:
    from torchgmm.bayes.gmm import GaussianMixtureModel, GaussianMixtureModelConfig

    covariances = parameters.covariances
    plain = covariance_type in ("diag", "spherical")
    factors = covariances.rsqrt() if plain else precisions_cholesky(covariances)
    config = GaussianMixtureModelConfig(*parameters.means.shape[1:], covariance_type=covariance_type)
    models = []
    for weights, means, factor in zip(parameters.weights, parameters.means, factors, strict=True):
        model = GaussianMixtureModel(config)
        model.component_probs.copy_(weights)
        model.means.copy_(means)
        model.precisions_cholesky.copy_(factor)
        models.append(model)
    return models


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says at the beginning of every fit."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)


def _held(case: Case) -> int:
    shape = case.problem
    return 3 * 4 * shape.n_points * shape.n_components * (shape.n_features if case.variant == "tied" else 1)


PEER = Peer(
    name="torchgmm",
    distribution="torchgmm==0.1.4",
    module="torchgmm",
    beyond=(
        "It trains with PyTorch Lightning, and so has Lightning's callbacks, loggers and strategies for several "
        "devices and machines. k-means is an estimator of its own with `predict`, `transform` and `score`, where "
        "fastdens has it as a start."
    ),
    operations={"em": em, "start": start, "log_prob": log_prob, "kl": kl},
    holds={"em": _held},
)
