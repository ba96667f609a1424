"""What a unit of each kind of work costs on this machine, by short measurements of the very work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import fastdens as fd
from fastdens.analysis import certify, correlate, pgd_accuracy
from fastdens.pipeline.densities import DENSITIES, Fit
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.options import AnalysisOptions, resolve_device
from fastdens.pipeline.plan import (
    ATTACKING,
    CERTIFYING,
    EVALUATING,
    FITTING,
    FORWARD,
    PROJECTING,
    RESAMPLING,
    TRAINING,
    LayerSize,
    Plan,
    at_layer,
    kept_draws,
)
from fastdens.training import predict
from fastdens.training.runs import InputShape, new_network, train_by_recipe

# Seconds that a measurement takes, unless its least work takes longer: training counts the most.
_LONG, _SHORT = 6.0, 2.0
_FEW_IMAGES, _MANY_IMAGES, _FEW_DRAWS, _MANY_DRAWS, _FEW_POINTS = 16, 1024, 32, 4000, 256
_ATTACK_STEPS = 4
# A fit is measured on a few classes of this many clusters, in short chains.
_CLASSES, _CLUSTERS, _DISTANCE, _SHORT_CHAIN, _THIN = 2, 4, 3.0, 40, 2
_ROWS = 4096


@dataclass
class Costs:
    """Seconds of a unit of each kind of work, and how each was measured, in words.

    Attributes
    ----------
    seconds : dict of str to float
    measured : dict of str to str
    """

    seconds: dict[str, float] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)

    def of(self, work: Mapping[str, float]) -> float:
        """Seconds of some work.

        Raises
        ------
        KeyError
            If a kind of it was not measured.
        """
        return sum(amount * self.seconds[kind] for kind, amount in work.items())

    def add(self, kind: str, seconds: float, measured: str) -> None:
        """Note what a unit of a kind costs."""
        self.seconds[kind], self.measured[kind] = seconds, measured


def measure_costs(plan: Plan, options: AnalysisOptions) -> Costs:
    """Measure what the work of a plan costs.

    Parameters
    ----------
    plan : Plan
    options : AnalysisOptions

    Returns
    -------
    Costs
    """
    costs, kinds = Costs(), plan.kinds
    options = replace(options, device=resolve_device(options.device))
    if plan.experiment is not None:
        for kind in kinds:
            what, _, threads = kind.partition(", ")
            if what in _OF_NETWORKS:
                with _threads(int(threads.split()[0])):
                    costs.add(kind, *_OF_NETWORKS[what](plan.experiment, options))
    for layer, size in plan.layers.items():
        _measure_layer(costs, layer, size, plan, options)
    if RESAMPLING in kinds:
        costs.add(RESAMPLING, *_resampling(plan))
    return costs


def _training(experiment: Experiment, options: AnalysisOptions) -> tuple[float, str]:
    recipe, network = experiment.recipe, _Network.of(experiment, options.device)

    def train(n: int) -> None:
        steps = replace(recipe, epochs=1, batch_size=min(n, recipe.batch_size))
        images, labels = network.images(n, options.device)
        train_by_recipe(network.model, images.cpu(), labels.cpu(), steps, experiment.images.std)

    train(2)
    seconds, n = _seconds_a_unit(train, min(_FEW_IMAGES, recipe.batch_size), 32 * recipe.batch_size, _LONG)
    batch = min(n, recipe.batch_size)
    of_batches = f"{batch}, not {recipe.batch_size}" if batch < recipe.batch_size else f"{batch}"
    return seconds, f"training on {n} images in batches of {of_batches}, {n * seconds:.2g} s"


def _forward(experiment: Experiment, options: AnalysisOptions) -> tuple[float, str]:
    network = _Network.of(experiment, options.device)

    def forward(n: int) -> None:
        predict(network.model, network.images(n, "cpu")[0])

    forward(1)
    seconds, n = _seconds_a_unit(forward, _FEW_IMAGES, _MANY_IMAGES, _SHORT)
    return seconds, f"{n} images through the network, {n * seconds:.2g} s"


def _certifying(experiment: Experiment, options: AnalysisOptions) -> tuple[float, str]:
    network = _Network.of(experiment, options.device)
    images, _ = network.images(1, options.device)

    def smooth(n: int) -> None:
        certify(network.model, images, options.sigma, n0=1, n=n, device=options.device, progress=False)

    smooth(1)
    seconds, n = _seconds_a_unit(smooth, _FEW_DRAWS, _MANY_DRAWS, _SHORT)
    return seconds, f"{n} noisy images through the network, {n * seconds:.2g} s"


def _attacking(experiment: Experiment, options: AnalysisOptions) -> tuple[float, str]:
    network = _Network.of(experiment, options.device)

    def attack(n: int) -> None:
        images, _ = network.images(n, options.device)
        # Labels that the network gives: what it gets wrong is not attacked any longer.
        labels = predict(network.model, images)
        pgd_accuracy(network.model, images, labels, 1e-6, steps=_ATTACK_STEPS, device=options.device)

    attack(1)
    seconds, n = _seconds_a_unit(attack, _FEW_IMAGES // 2, _MANY_IMAGES // 4, _SHORT)
    return seconds / _ATTACK_STEPS, f"{_ATTACK_STEPS} steps of an attack on {n} images, {n * seconds:.2g} s"


_OF_NETWORKS: Mapping[str, Callable[[Experiment, AnalysisOptions], tuple[float, str]]] = {
    TRAINING: _training,
    FORWARD: _forward,
    CERTIFYING: _certifying,
    ATTACKING: _attacking,
}


@dataclass(frozen=True)
class _Network:
    """A network with random weights, and random images for it."""

    model: nn.Module
    shape: InputShape

    @classmethod
    def of(cls, experiment: Experiment, device: str) -> _Network:
        shape = InputShape.of(experiment.images)
        return cls(new_network(experiment.recipe, shape).to(device).eval(), shape)

    def images(self, n: int, device: str) -> tuple[Tensor, Tensor]:
        """Images and labels, [n, channels, height, width] and [n]."""
        images = _normal(torch.Generator().manual_seed(0), n, self.shape.channels, self.shape.size, self.shape.size)
        return images.to(device), torch.arange(n, device=device) % self.shape.classes


def _measure_layer(costs: Costs, layer: str, size: LayerSize, plan: Plan, options: AnalysisOptions) -> None:
    """Measure the projection, a fit and log-densities at the size of a layer, on classes of random clusters."""
    generator = torch.Generator().manual_seed(0)
    n_rows = min(_ROWS, plan.n_classes * plan.class_size)
    features = _normal(generator, n_rows, size.n_features)
    n_dimensions = min(size.n_dimensions, n_rows)
    start = time.perf_counter()
    fd.reduction.UncentredSVD(n_dimensions).fit_transform(features)
    seconds = time.perf_counter() - start
    costs.add(at_layer(PROJECTING, layer), seconds / n_rows, f"the projection of {n_rows} rows, {seconds:.2g} s")

    n_classes = min(_CLASSES, plan.n_classes)
    n = n_classes * plan.class_size
    labels = torch.arange(n, device="cpu") % n_classes
    centres = _DISTANCE * _normal(generator, _CLUSTERS, size.n_dimensions)
    cluster = torch.randint(_CLUSTERS, (n,), generator=generator, device="cpu")
    points = (centres[cluster] + _normal(generator, n, size.n_dimensions)).to(options.device)
    batch = fd.RaggedBatch.from_labels(points, labels)
    sampled = options.density == "dp"
    fits: list[Fit] = []

    def fit(n_sweeps: int, batch: fd.RaggedBatch = batch) -> None:
        chains: dict[str, Any] = {"sweeps": n_sweeps, "thin": _THIN, "stop": "sweeps", "max_sweeps": None}
        short = replace(options, **chains) if sampled else options
        fits[:] = [DENSITIES[options.density](batch, short, progress=False)]

    # Compiles what is not compiled yet.
    n_few = n_classes * (size.n_dimensions + 2)
    fit(_SHORT_CHAIN, fd.RaggedBatch.from_labels(points[:n_few], labels[:n_few]))
    seconds, n_sweeps = _seconds_a_unit(fit, _SHORT_CHAIN, max(_SHORT_CHAIN, options.sweeps), _LONG / 2)
    n_units = n * options.chains if sampled else n / n_sweeps
    of_chains = f"{options.chains} chain{'s' * (options.chains > 1)} of {n_sweeps} sweeps" if sampled else "EM"
    words = f"{n_classes} models of {plan.class_size} points by {of_chains}, {seconds * n_sweeps:.2g} s"
    costs.add(at_layer(FITTING, layer), seconds / n_units, words)

    models = fits[0].models
    # The first call makes the density, and compiles.
    models.log_prob(points[:1])
    seconds, n_points = _seconds_a_unit(lambda n: models.log_prob(points[:n]), min(n, _FEW_POINTS), n, _SHORT / 2)
    # A log-density averages over the draws of all chains.
    scale = kept_draws(options) / kept_draws(replace(options, sweeps=n_sweeps, thin=_THIN)) if sampled else 1.0
    words = f"{n_points} points under {n_classes} models, {n_points * seconds:.2g} s"
    costs.add(at_layer(EVALUATING, layer), scale * seconds / n_classes, words)


def _resampling(plan: Plan) -> tuple[float, str]:
    """Bootstrap of a rank correlation, which takes all examples at once and those within classes."""
    n = min(_ROWS, plan.n_classes * plan.class_size)
    generator = torch.Generator().manual_seed(0)
    scores, density = _normal(generator, 2, n)
    start = time.perf_counter()
    correlate(scores, density, torch.arange(n, device="cpu") % plan.n_classes)
    seconds = time.perf_counter() - start
    return seconds / (2 * n), f"a bootstrap of {n} examples, {seconds:.2g} s"


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float32 in main memory."""
    return torch.randn(shape, dtype=torch.float32, generator=generator, device="cpu")


def _seconds_a_unit(work: Callable[[int], object], least: int, most: int, budget: float) -> tuple[float, int]:
    """Seconds of a unit of some work, and the units that it was measured on: as many as take the budget."""
    seconds = _seconds(work, least)
    n = int(min(max(budget * least / max(seconds, 1e-6), least), most))
    # Twice as many take as long again, and hardly tell more.
    return (_seconds(work, n) / n, n) if n > 2 * least else (seconds / least, least)


def _seconds(work: Callable[[int], object], n: int) -> float:
    _wait()
    start = time.perf_counter()
    work(n)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Wait for what a GPU still computes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of torch for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
