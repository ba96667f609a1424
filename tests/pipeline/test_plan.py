"""The plan: work follows from options and sizes, is that of the analysis, and costs what was measured."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fastdens.cli import main
from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze, costs
from fastdens.pipeline.costs import Costs, measure_costs
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.plan import Plan, Step, outlined_data, plan_analysis, plan_memorization
from fastdens.pipeline.plan_table import describe_plan
from fastdens.progress import Stage, Stages
from fastdens.training.datasets import load_images, outline_images
from fastdens.training.datasets.known_sizes import SIZES, DataSetSize

LAYERS = [f"layer{k}" for k in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measurements of the least work."""
    monkeypatch.setattr(costs, "_LONG", 0.0)
    monkeypatch.setattr(costs, "_SHORT", 0.0)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def work_of(plan, name):
    return next(dict(step.stage.work) for step in plan.steps if step.stage.name == name)


def cifar(tmp_path, **network):
    return Experiment.load(
        ImageOptions("CIFAR100", tmp_path), NetworkOptions(**network), tmp_path / "runs", outline=True
    )


def activations(rng, n_layers=2, n_classes=4, n_each=24, n_tests=10):
    """Random activations of equally many examples of each class."""
    labels = np.repeat(np.arange(n_classes), n_each)
    train = {f"l{k}": rng.normal(size=(len(labels), 6)) for k in range(n_layers)}
    test = {f"l{k}": rng.normal(size=(n_tests, 6)) for k in range(n_layers)}
    return AnalysisData.from_activations(
        train, test, rng.random(len(labels)), labels=labels, test_labels=rng.integers(n_classes, size=n_tests)
    )


def test_an_outline_has_the_shape_of_the_data(monkeypatch):
    monkeypatch.setitem(SIZES, "digits", DataSetSize(1437, 360, 10, 1, 16))
    whole, outline = load_images("digits", None, 8, 0), outline_images("Digits", 8)
    for one, other in zip(whole[:4], outline[:4], strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
    assert len(whole.class_names) == len(outline.class_names) and outline.train.device.type == "meta"
    monkeypatch.undo()
    assert outline_images("Mini-ImageNet").train.shape == (50_000, 3, 84, 84)
    assert outline_images("digits") is None


def test_training_counts_the_images_of_the_busiest_process(tmp_path, two_threads):
    experiment = cifar(tmp_path, width=2, epochs=30)
    options = AnalysisOptions(processes=2, memorization_networks=5, memorization_share=0.5, memorization_epochs=7)
    plan = plan_analysis(outlined_data(experiment, seeds=3), options)
    # Each network predicts 60,000 images, at a third of the cost of training on them.
    assert work_of(plan, "networks") == {"training image, 1 thread": 2 * (30 * 50_000 + 20_000)}
    assert work_of(plan, "memorization networks") == {"training image, 1 thread": 3 * (7 * 25_000 + 20_000)}
    assert work_of(plan, "activations") == {"image, 2 threads": 3 * 50_000 + 10_000}
    (tmp_path / "runs").mkdir()
    for name in ("network-1", "network-2", "memorization-0003"):
        (tmp_path / "runs" / f"{name}.safetensors").touch()
    plan = plan_analysis(outlined_data(experiment, seeds=3), options)
    assert work_of(plan, "networks") == {"training image, 2 threads": 30 * 50_000 + 20_000}
    assert work_of(plan, "memorization networks") == {"training image, 1 thread": 2 * (7 * 25_000 + 20_000)}
    (training,) = (step for step in plan.steps if step.stage.name == "networks")
    assert training.stage.title == "training 1 network" and "2 more are there" in training.details[0]


def test_the_whole_experiment_of_the_paper(tmp_path):
    options = AnalysisOptions(memorization_networks=10, bins=50, bin_epochs=160, certified_examples=1000)
    plan = plan_analysis(outlined_data(cifar(tmp_path)), options)
    assert [step.stage.name for step in plan.steps] == [
        "networks", "activations", *(f"layer {layer}" for layer in LAYERS), "memorization networks", "memorization",
        "bin networks", "bins",
    ]  # fmt: skip
    features = {layer: (size.n_features, size.n_dimensions) for layer, size in plan.layers.items()}
    assert features == {"layer1": (64, 16), "layer2": (128, 16), "layer3": (256, 62), "layer4": (512, 62)}
    (amount,) = work_of(plan, "bin networks").values()
    assert amount == 50 * (160 * 49_000 + 20_000)
    draws, attacks = work_of(plan, "bins").values()
    assert (draws, attacks) == (50_000 * 100_100, 50_000 * 20)
    assert work_of(plan, "layer layer4")["sweep at layer4"] == 400 * 4 * 50_000
    evaluated = 100 * 10_000 + 100 * 100_000 + 100 * 100 * 10_000
    assert work_of(plan, "layer layer4")["log-density at layer4"] == evaluated
    # 61 networks of 11.2 million weights and their predictions.
    assert plan.disk == pytest.approx(61 * (11.22e6 * 4 + 60_000 * 8 + 50_000) / 1e9, rel=0.01)
    assert plan.memory == pytest.approx((60_000 * 3 * 32 * 32 * 4 + 60_000 * 960 * 4) / 1e9)


def test_certified_examples_are_those_that_there_are(tmp_path):
    images = ImageOptions("CIFAR10", tmp_path, flip=0.1)
    experiment = Experiment.load(images, NetworkOptions(width=2), tmp_path / "runs", outline=True)
    plan = plan_analysis(outlined_data(experiment), AnalysisOptions(bins=2, certified_examples=30_000))
    assert plan.steps[-1].stage.title == "certifying and attacking 45,000 examples"


def test_weights_of_a_file_are_not_trained(tmp_path):
    data = outlined_data(cifar(tmp_path, width=2), from_file=True, layers=["layer3"], scored=True)
    plan = plan_analysis(data, AnalysisOptions(density="gmm"))
    assert [step.stage.name for step in plan.steps] == ["activations", "layer layer3", "memorization"]
    assert list(work_of(plan, "activations").values()) == [2 * 60_000] and plan.disk == 0
    assert work_of(plan, "layer layer3")["sweep at layer3"] == 50_000


def test_activations_are_fitted_only(rng):
    data = activations(rng)
    plan = plan_analysis(data, AnalysisOptions(sweeps=80, chains=2, stop="converged", max_sweeps=200, neighbours=5))
    assert [step.stage.name for step in plan.steps] == ["layer l0", "layer l1", "memorization"]
    assert [step.most for step in plan.steps] == [2.5] * 3
    # 24 examples a class: 3 held out for each of three subsets, 6 fitted in each; one chain.
    assert work_of(plan, "memorization")["sweep at l0"] == 80 * 4 * (24 - 9 + 18)
    assert work_of(plan, "layer l1")["sweep at l1"] == 80 * 2 * 96
    with pytest.raises(ValueError, match="bins asks for networks"):
        plan_analysis(data, AnalysisOptions(bins=2))
    with pytest.raises(ValueError, match="needs at least 31 of each class"):
        plan_analysis(data, AnalysisOptions(neighbours=30))


@pytest.mark.parametrize("density", ["dp", "gmm"])
def test_every_kind_of_work_is_measured(rng, density):
    options = AnalysisOptions(density=density, **({"sweeps": 80, "chains": 2} if density == "dp" else {}))
    plan = plan_analysis(activations(rng), options)
    found = measure_costs(plan, options)
    assert set(found.seconds) == set(plan.kinds) == set(found.measured) and min(found.seconds.values()) > 0
    text = describe_plan(plan, found)
    assert all(step.stage.title in text for step in plan.steps) and text.count("about") == len(plan.steps) + 1 - sum(
        "under a second" in line for line in text.splitlines()
    )


def test_every_kind_of_work_with_networks_is_measured(tmp_path):
    experiment = cifar(tmp_path, width=2, batch_size=32)
    options = AnalysisOptions(density="gmm", bins=2, processes=2, certificate_draws=10)
    plan = plan_analysis(outlined_data(experiment, layers=["layer1"]), options)
    found = measure_costs(plan, options)
    assert set(found.seconds) == set(plan.kinds) and min(found.seconds.values()) > 0
    assert "in batches of 16, not 32" in " ".join(found.measured.values())
    plan = plan_memorization(experiment, 3, 0.5, MachineOptions())
    assert len(plan.steps) == 1 and set(measure_costs(plan, AnalysisOptions()).seconds) == set(plan.kinds)


def test_times_are_sums_of_costs_and_a_range_where_chains_may_go_on():
    work = [{"a": 100.0, "b": 2.0}, {"b": 60.0}]
    steps = tuple(Step(Stage(f"s{k}", f"stage {k}", own), ("x",), 1 + 2 * k) for k, own in enumerate(work))
    text = describe_plan(
        Plan("this", steps, {}, 1, 1, disk=12.34, memory=0.5), Costs({"a": 60.0, "b": 30.0}, {"a": "A", "b": "B"})
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "1 stage 0 about 1.7 h" in lines and "2 stage 1 about 30 min to 90 min" not in lines
    assert "2 stage 1 about 30 min to 1.5 h" in lines and "In all about 2.2 h to 3.2 h" in lines
    assert "Files of networks: 12.3 GB" in lines and "memory" not in text and "a: A" in lines


def test_the_command_plans_without_files_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--dataset", "CIFAR100", "--width", "2", "--density", "gmm", "--layers", "layer4"]
    assert main(["analyze", "--plan", *small]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ 1  training 1 network +about [\d.]+ \w+$", out, re.M) and "50,000 training and 10,000" in out
    assert main(["memorization", "--plan", "--dataset", "CIFAR100", "--width", "2", "--networks", "7"]) == 0
    assert "training 7 networks for memorization" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main(["analyze", "--plan", "--dataset", "SVHN"]) == 1
    assert "files are missing: put train_32x32.mat" in capsys.readouterr().err


def test_an_analysis_tells_the_stages_of_its_plan(rng, capsys):
    data = activations(rng)
    options = AnalysisOptions(density="gmm", components=1, entropy_draws=50, divergence_draws=10)
    analyze(data, options, progress=False, stages=Stages(plan_analysis(data, options).stages))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 3: fitting 4 classes at l0",
        "2 of 3: fitting 4 classes at l1",
        "3 of 3: fitting subsets by memorization at 2 layers",
    ]


@pytest.mark.slow
def test_an_experiment_tells_the_stages_of_its_plan(tmp_path, capsys):
    small = [
        "--epochs",
        "1",
        "--width",
        "2",
        "--image-size",
        "8",
        "--seeds",
        "2",
        "--processes",
        "1",
        "--layers",
        "layer3",
    ]
    small += ["--memorization-networks", "2", "--memorization-share", "0.5", "--bins", "2", "--certified-examples", "3"]
    small += ["--certificate-draws", "20", "--density", "gmm", "--components", "1", "--dimensions", "4"]
    small += ["--entropy-draws", "50", "--divergence-draws", "10"]
    assert main(["analyze", *small, "--output", str(tmp_path / "report")]) == 0
    told = re.findall(r"^(\d) of 8: (.*)$", capsys.readouterr().err, re.M)
    assert [int(number) for number, _ in told] == list(range(1, 9))
    # From the second training on, the time is known.
    assert all(
        re.search("about|under a second", title) for _, title in told if title.startswith("training 2 networks for")
    )
