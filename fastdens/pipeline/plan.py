"""A plan: what an analysis will train, extract, fit, compare and certify, and how much work each stage is.

A plan follows from options and sizes alone. How long a unit of each kind of work takes on this machine is measured by
:mod:`fastdens.pipeline.costs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from fastdens.inference.schedule import most_sweeps
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.examples import Examples
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.extraction import extract_features
from fastdens.pipeline.layers import check_class_sizes, projected_dimensions
from fastdens.pipeline.memorization import subset_sizes
from fastdens.pipeline.options import AnalysisOptions, MachineOptions, burn_in
from fastdens.pipeline.results import Provenance, Scores
from fastdens.pipeline.run import check_options
from fastdens.progress import Stage
from fastdens.training import default_layers
from fastdens.training.datasets import Images
from fastdens.training.runs import InputShape, new_network, run_path

# Kinds of work; that of networks depends on the threads of a process, that of densities on the layer.
TRAINING, FORWARD, CERTIFYING, ATTACKING = "training image", "image", "certified draw", "attacked image"
FITTING, EVALUATING, PROJECTING, RESAMPLING = "sweep", "log-density", "projected row", "resampled example"

# A pass in training is one forward and one backward, which takes twice as long.
_PASSES_IN_TRAINING = 3
# The defaults of pgd_accuracy and of certify.
_ATTACK_STEPS, _CERTIFICATE_VOTES = 20, 100


@dataclass(frozen=True)
class Step:
    """A stage of a plan.

    Attributes
    ----------
    stage : Stage
        Its name, what is done, and the work by kind.
    details : tuple of str
        How the work comes about, a line each.
    most : float
        The most times that the work may have to be repeated, where that is not known beforehand: chains that go on
        until they agree. 1 otherwise.
    """

    stage: Stage
    details: tuple[str, ...] = ()
    most: float = 1.0


class LayerSize(NamedTuple):
    """Features and projected dimensions of a layer."""

    n_features: int
    n_dimensions: int


@dataclass(frozen=True)
class Plan:
    """The work of an analysis, stage after stage.

    Attributes
    ----------
    title : str
    steps : tuple of Step
    layers : mapping of str to LayerSize
        Layers whose classes are fitted.
    n_classes, class_size : int
        Classes of a layer, and examples of one on average.
    experiment : Experiment or None
        The images and the recipe, None where there are activations only.
    disk, memory : float
        Gigabytes of the files of networks to be trained, and of images and activations in main memory.
    """

    title: str
    steps: tuple[Step, ...]
    layers: Mapping[str, LayerSize]
    n_classes: int
    class_size: int
    experiment: Experiment | None = None
    disk: float = 0.0
    memory: float = 0.0

    @property
    def stages(self) -> list[Stage]:
        """The stages, for :class:`fastdens.progress.Stages`."""
        return [step.stage for step in self.steps]

    @property
    def kinds(self) -> list[str]:
        """The kinds of work that occur, each once."""
        return list(dict.fromkeys(kind for step in self.steps for kind in step.stage.work))


def threads_of_process(processes: int) -> int:
    """Threads of each of so many processes that train networks."""
    return max(1, torch.get_num_threads() // processes)


def of_threads(kind: str, threads: int) -> str:
    """The kind of work with networks, by a process of so many threads."""
    return f"{kind}, {threads} thread{'s' * (threads != 1)}"


def at_layer(kind: str, layer: str) -> str:
    """The kind of work with the densities of a layer."""
    return f"{kind} at {layer}"


def outlined_data(
    experiment: Experiment,
    *,
    seeds: int = 1,
    from_file: bool = False,
    layers: Sequence[str] | None = None,
    scored: bool = False,
) -> AnalysisData:
    """The data that an experiment will give, activations without values: tensors on the device "meta".

    Parameters
    ----------
    experiment : Experiment
    seeds : int
        Networks that are analyzed.
    from_file : bool
        Whether the weights of the network come from a file.
    layers : sequence of str, optional
        By default those of :func:`fastdens.training.default_layers`.
    scored : bool
        Whether memorization scores are given.

    Raises
    ------
    ValueError
        If there is no such network or layer.
    """
    images, recipe = experiment.images, experiment.recipe
    model = new_network(recipe, InputShape.of(images))
    sample = torch.zeros(2, *images.train.shape[1:], device="cpu", dtype=torch.float32)
    features = extract_features(model, sample, list(layers) if layers else default_layers(model), progress=False)

    def outline(n_examples: int) -> dict[str, torch.Tensor]:
        return {
            layer: torch.empty(n_examples, own.shape[1], dtype=own.dtype, device="meta")
            for layer, own in features.items()
        }

    n_train, n_test = len(images.train), len(images.test)
    return AnalysisData(
        Provenance(experiment.name, network=recipe.network, weights="" if from_file else None),
        Examples(images.class_names, experiment.labels.numpy(), images.test_labels.numpy()),
        outline(n_train),
        outline(n_test),
        Scores(np.zeros(n_train)) if scored else None,
        tuple(outline(n_train) for _ in range(1 if from_file else seeds))[1:],
        experiment,
    )


def plan_analysis(data: AnalysisData, options: AnalysisOptions) -> Plan:
    """List the work of :func:`fastdens.pipeline.analyze`, and of making the data where networks do.

    Parameters
    ----------
    data : AnalysisData
        Only labels, classes and the shapes of activations count: see :func:`outlined_data`.
    options : AnalysisOptions

    Returns
    -------
    Plan

    Raises
    ------
    OptionError, ValueError
        If options do not fit the layers, or a class has too few examples.
    """
    check_options(data, options)
    check_class_sizes(data, options)
    dimensions = projected_dimensions(data, options)
    layers = {name: LayerSize(own.shape[1], dimensions[name]) for name, own in data.train.items()}
    experiment = data.experiment
    steps: list[Step] = []
    n_networks = 0
    if experiment is not None:
        if data.provenance.weights is None:
            seeds = range(options.seed, options.seed + 1 + len(data.other_networks))
            names = [f"network-{seed}" for seed in seeds]
            step, n_networks = _training(experiment, "networks", names, 1.0, experiment.recipe.epochs, options)
            steps.append(step)
        steps.append(_extraction(data))
    steps += [_fitting(data, layer, size, options) for layer, size in layers.items()]
    scored = data.scores is not None
    if experiment is not None and options.memorization_networks:
        step, n_new = plan_scores(
            experiment, options.memorization_networks, options.memorization_share, options, options.memorization_epochs
        )
        steps.append(step)
        n_networks, scored = n_networks + n_new, True
    if scored:
        steps.append(_subsets(data, layers, options))
    if data.other_networks:
        steps.append(_other_networks(data, layers, options))
    if experiment is not None and options.bins:
        steps += _bins(experiment, options)
        n_networks += options.bins
    return Plan(
        title=_title(data),
        steps=tuple(steps),
        layers=layers,
        n_classes=len(data.examples.class_names),
        class_size=round(float(data.class_sizes.mean())),
        experiment=experiment,
        disk=0.0 if experiment is None else n_networks * _file_size(experiment),
        memory=_memory(data),
    )


def plan_scores(
    experiment: Experiment, n_networks: int, share: float, machine: MachineOptions, epochs: int | None = None
) -> tuple[Step, int]:
    """The training of networks on shares of the images, and how many of them are not there yet."""
    names = [f"memorization-{t:04d}" for t in range(n_networks)]
    return _training(experiment, "memorization networks", names, share, epochs or experiment.recipe.epochs, machine)


def plan_memorization(experiment: Experiment, n_networks: int, share: float, machine: MachineOptions) -> Plan:
    """List the work of the command that estimates memorization scores alone."""
    step, n_new = plan_scores(experiment, n_networks, share, machine)
    n_classes, images = len(experiment.images.class_names), experiment.images
    return Plan(
        title=f"{experiment.name}: memorization scores",
        steps=(step,),
        layers={},
        n_classes=n_classes,
        class_size=len(images.train) // n_classes,
        experiment=experiment,
        disk=n_new * _file_size(experiment),
        memory=_of_images(images),
    )


def _training(
    experiment: Experiment, name: str, runs: Sequence[str], share: float, epochs: int, machine: MachineOptions
) -> tuple[Step, int]:
    """The training of the runs that have no file yet, and their number."""
    missing = [run for run in runs if not run_path(experiment.runs, run).exists()]
    n_images = round(share * len(experiment.images.train))
    there = f"; {len(runs) - len(missing)} more are there" if len(missing) < len(runs) else ""
    purpose = {"networks": "", "memorization networks": " for memorization"}
    step = _step(
        name,
        f"training {_count(len(missing), 'network')}{purpose[name]}",
        _training_work(experiment, len(missing), n_images * epochs, min(machine.processes, max(len(missing), 1))),
        f"{_network(experiment)}, {_count(epochs, 'epoch')} of {n_images:,} images in batches of "
        f"{experiment.recipe.batch_size}{there}",
    )
    return step, len(missing)


def _training_work(experiment: Experiment, n_networks: int, n_passes: int, processes: int) -> dict[str, float]:
    """Training images of the process that trains the most networks; then each network predicts all images."""
    images = experiment.images
    predicted = (len(images.train) + len(images.test)) / _PASSES_IN_TRAINING
    rounds = math.ceil(n_networks / processes)
    return {of_threads(TRAINING, threads_of_process(processes)): rounds * (n_passes + predicted)}


def _extraction(data: AnalysisData) -> Step:
    n_train, n_test = len(data.examples.labels), len(_tests(data))
    passes = (1 + len(data.other_networks)) * n_train + n_test
    # Where weights come from a file, the network predicts all images as well.
    predicted = n_train + n_test if data.provenance.weights is not None else 0
    return _step(
        "activations",
        f"extracting activations at {_count(len(data.train), 'layer')}",
        {of_threads(FORWARD, threads_of_process(1)): passes + predicted},
        f"{passes:,} images",
    )


def _fitting(data: AnalysisData, layer: str, size: LayerSize, options: AnalysisOptions) -> Step:
    """The fits of a layer, and everything that is computed from them."""
    n, n_classes = len(data.examples.labels), len(data.examples.class_names)
    n_tests = len(_tests(data))
    evaluations = n_tests * n_classes + n_classes * options.entropy_draws + n_classes**2 * options.divergence_draws
    work = {
        at_layer(PROJECTING, layer): n,
        at_layer(FITTING, layer): _sweeps(options) * n,
        at_layer(EVALUATING, layer): evaluations,
        RESAMPLING: n,
    }
    details = (
        f"{n_classes} models of {n / n_classes:,.0f} points on average in {size.n_dimensions} dimensions"
        f"{_chains(options)}; {options.entropy_draws:,} draws of each class for its relative entropy, "
        f"{options.divergence_draws:,} under every class for the divergences"
    )
    title = f"fitting {_count(n_classes, 'class', 'classes')} at {layer}"
    return _step(f"layer {layer}", title, work, details, most=_most(options))


def _subsets(data: AnalysisData, layers: Mapping[str, LayerSize], options: AnalysisOptions) -> Step:
    """Densities without and of the most memorized, the least memorized and random examples, with one chain."""
    n, n_classes = len(data.examples.labels), len(data.examples.class_names)
    held_out, fitted = subset_sizes(int(data.class_sizes.min()), options)
    of_each = options.label_subsets == "class"
    n_held_out = held_out * (n_classes if of_each else 1)
    n_points = n - 3 * n_held_out + 3 * fitted * n_classes
    single = replace(options, chains=1) if options.density == "dp" else options
    # With one chain, a log-density is the mean over as many fewer draws.
    draws = 3 * (n_held_out * n_classes + n_classes**2 * options.divergence_draws) * single.chains / options.chains
    work: dict[str, float] = {RESAMPLING: 4 * n * len(layers)}
    for layer in layers:
        work |= {at_layer(FITTING, layer): _sweeps(single) * n_points, at_layer(EVALUATING, layer): draws}
    return _step(
        "memorization",
        f"fitting subsets by memorization at {_count(len(layers), 'layer')}",
        work,
        f"4 fits of {_count(n_classes, 'class', 'classes')} at each layer{_chains(single)}: without three subsets of "
        f"{held_out} examples of {'each class' if of_each else 'all classes'}, and on {fitted} examples of each class",
        most=_most(options),
    )


def _other_networks(data: AnalysisData, layers: Mapping[str, LayerSize], options: AnalysisOptions) -> Step:
    n, n_others = len(data.examples.labels), len(data.other_networks)
    work: dict[str, float] = {}
    for layer in layers:
        work |= {at_layer(PROJECTING, layer): n * n_others, at_layer(FITTING, layer): _sweeps(options) * n * n_others}
    return _step(
        "seeds",
        f"fitting the classes of {_count(n_others, 'network')} of other seeds",
        work,
        f"{len(data.examples.class_names)} models at each of {_count(len(layers), 'layer')}{_chains(options)}",
        most=_most(options),
    )


def _bins(experiment: Experiment, options: AnalysisOptions) -> list[Step]:
    """The networks without a bin, whose files depend on the densities, and the certificates and attacks."""
    n = len(experiment.images.train)
    noisy = replace(experiment, recipe=replace(experiment.recipe, noise=options.sigma))
    n_images = n - n // options.bins
    epochs = options.bin_epochs or experiment.recipe.epochs
    training = _step(
        "bin networks",
        f"training {_count(options.bins, 'network')}, each without a density bin",
        _training_work(noisy, options.bins, n_images * epochs, min(options.processes, options.bins)),
        f"{_network(experiment)}, {_count(epochs, 'epoch')} of {n_images:,} images with noise; those of the same bins "
        "that are there are not trained again",
    )
    kept = int((~experiment.flipped).sum())
    asked = options.certified_examples
    tried = kept if asked == "all" else min(asked * options.bins, kept)
    draws = _CERTIFICATE_VOTES + options.certificate_draws
    threads = threads_of_process(1)
    certifying = _step(
        "bins",
        f"certifying and attacking {tried:,} examples",
        {
            of_threads(CERTIFYING, threads): tried * draws,
            of_threads(ATTACKING, threads): tried * _ATTACK_STEPS,
        },
        f"{draws:,} noisy images for each certificate, and {_ATTACK_STEPS} steps for each attack",
    )
    return [training, certifying]


def _step(name: str, title: str, work: Mapping[str, float], *details: str, most: float = 1.0) -> Step:
    return Step(Stage(name, title, work), details, most)


def _sweeps(options: AnalysisOptions) -> float:
    """Sweeps over each point in all chains; a fit by EM counts as one."""
    return options.sweeps * options.chains if options.density == "dp" else 1


def _most(options: AnalysisOptions) -> float:
    if options.density != "dp" or options.stop == "sweeps":
        return 1.0
    return most_sweeps(options.sweeps, options.max_sweeps) / options.sweeps


def _chains(options: AnalysisOptions) -> str:
    if options.density != "dp":
        return ", by EM"
    return f", {_count(options.chains, 'chain')} of {options.sweeps} sweeps, {kept_draws(options)} draws kept of each"


def kept_draws(options: AnalysisOptions) -> int:
    """Draws that are kept of each chain."""
    return (options.sweeps - burn_in(options.sweeps)) // options.thin


def _tests(data: AnalysisData) -> Sequence[int]:
    return [] if data.examples.test_labels is None else data.examples.test_labels.tolist()


def _title(data: AnalysisData) -> str:
    n_tests = len(_tests(data))
    text = f"{data.provenance.name}: {len(data.examples.labels):,} training"
    if n_tests:
        text += f" and {n_tests:,} test"
    return f"{text} examples of {_count(len(data.examples.class_names), 'class', 'classes')}"


def _network(experiment: Experiment) -> str:
    """The network and the size of its images, in words."""
    _, channels, height, width = experiment.images.train.shape
    recipe = experiment.recipe
    return f"{recipe.network} of width {recipe.width} on {channels} x {height} x {width} pixels"


def _file_size(experiment: Experiment) -> float:
    """Gigabytes of the file of a network: its weights, and its predictions of all images."""
    model, images = new_network(experiment.recipe, InputShape.of(experiment.images)), experiment.images
    return sum(map(_gigabytes, model.state_dict().values())) + (9 * len(images.train) + 8 * len(images.test)) / 1e9


def _memory(data: AnalysisData) -> float:
    """Gigabytes of the images and of all activations."""
    parts = [data.train, data.test or {}, *data.other_networks]
    total = sum(_gigabytes(own) for part in parts for own in part.values())
    if data.experiment is not None:
        total += _of_images(data.experiment.images)
    return total


def _of_images(images: Images) -> float:
    """Gigabytes of the images that are in memory."""
    return sum(_gigabytes(part) for part in (images.train, images.test) if isinstance(part, torch.Tensor))


def _gigabytes(tensor: torch.Tensor) -> float:
    return float(tensor.numel() * tensor.element_size() / 1e9)


def _count(n: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{n:,} {singular if n == 1 else plural or f'{singular}s'}"
