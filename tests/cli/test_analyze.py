"""The command from images to report: its files, its numbers, its errors."""

from __future__ import annotations

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import fastdens as fd
from fastdens.cli import main
from fastdens.cli.densities import DENSITIES
from fastdens.convergence import rhat_threshold
from fastdens.experiments.images import load_images
from fastdens.experiments.networks import small_image_resnet
from fastdens.experiments.training import flip_labels, predict, train

QUICK = ["--epochs", "1", "--width", "4", "--image-size", "8", "--dimensions", "4", "4", "6", "6"]
DENSITY = {"dp": ["--sweeps", "80", "--chains", "2"], "gmm": ["--density", "gmm"]}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
SAMPLED = ("component_counts", "trace")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folders = {density: tmp_path_factory.mktemp("analysis") / density for density in DENSITY}
    for density, folder in folders.items():
        assert main(["analyze", *QUICK, *DENSITY[density], "--output", str(folder)]) == 0
    return folders


@pytest.fixture(params=DENSITY)
def report(request, reports):
    return reports[request.param]


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def values_of(folder):
    numbers = rows(folder / "numbers.csv")
    return {(n["quantity"], n["layer"], n["class_name"]): float(n["value"]) for n in numbers}


def test_every_number_of_the_page_is_in_the_csv_and_the_json(report):
    page = (report / "report.html").read_text()
    shown = re.findall(r'<data value="([^"]+)">([^<]*)</data>', page)
    assert len(shown) > 200
    in_csv = {row["value"] for row in rows(report / "numbers.csv")}
    assert {value for value, _ in shown} <= in_csv
    in_json = {repr(row["value"]) for row in json.loads((report / "report.json").read_text())["numbers"]}
    assert {value for value, _ in shown if value != "nan"} <= in_json
    for value, text in shown:
        if text != "–":
            assert float(text) == pytest.approx(float(value), abs=0.0051, rel=0.051)
    # No number of a result stands outside of those elements.
    prose = re.sub(r"<(style|script|code|title|h1)[^>]*>.*?</\1>|<data.*?</data>|<[^>]+>", " ", page, flags=re.S)
    assert set(re.findall(r"\b\d+\.\d+\b", prose)) <= {"0.5"}


def test_the_page_is_self_contained_and_figures_are_beside_it(report):
    page = (report / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    for name in ("class_log_density", "flipped_labels", "held_out_accuracy"):
        with Image.open(report / f"{name}.png") as image:
            assert image.size[0] > 800
    assert not list(report.glob(".*"))


def test_chains_are_reported_of_a_sampled_density_only(reports):
    pages = {density: (folder / "report.html").read_text() for density, folder in reports.items()}
    assert pages["dp"].count("Dirichlet-process mixture of Gaussians") >= 2 and "Gibbs" in pages["dp"]
    assert "Dirichlet" not in pages["gmm"] and "chains of" not in pages["gmm"] and "BIC over all" in pages["gmm"]
    for name in SAMPLED:
        assert not (reports["gmm"] / f"{name}.png").exists()
        with Image.open(reports["dp"] / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 20)) > 100
    assert not any("R-hat" in quantity for quantity, _, _ in values_of(reports["gmm"]))
    options = {
        density: json.loads((folder / "report.json").read_text())["options"] for density, folder in reports.items()
    }
    assert options["dp"]["density"] == "dp" and options["dp"]["sweeps"] == 80 and options["dp"]["chains"] == 2
    assert options["gmm"]["density"] == "gmm" and options["gmm"]["sweeps"] is None


def test_numbers_of_chains_follow_from_those_of_classes(reports):
    value, page = values_of(reports["dp"]), (reports["dp"] / "report.html").read_text()
    for layer in LAYERS:

        def of_classes(quantity, layer=layer):
            return np.array([value[quantity, layer, str(c)] for c in range(10)])

        mean, rhat = of_classes("class components"), of_classes("class split R-hat")
        assert value["components", layer, ""] == pytest.approx(mean.mean())
        assert value["fewest components of a class", layer, ""] == mean.min() >= 1
        assert value["most components of a class", layer, ""] == mean.max()
        # Two chains of four draws each: the mean is a number of eighths.
        np.testing.assert_array_equal(mean * 8, (mean * 8).round())
        assert value["draws of a class", layer, ""] == 8
        limit = value["split R-hat limit", layer, ""]
        assert limit == rhat_threshold(2, 4)
        assert value["largest split R-hat", layer, ""] == rhat.max() and (rhat > 0.5).all()
        agreeing = int((rhat <= limit).sum())
        assert value["classes whose chains agree", layer, ""] == agreeing
        text = re.sub(r"<[^>]+>", "", page)
        assert f"At {layer} the chains of {agreeing} of 10 classes agree" in text
        size = of_classes("class effective sample size")
        assert value["smallest effective sample size", layer, ""] == size.min() > 0


def test_the_density_of_a_fit_is_that_of_the_estimator_and_its_warning_is_left_to_the_report(rng, recwarn):
    x = np.concatenate([rng.normal(size=(24, 2)) * 0.05 + rng.normal(size=2) * 9 for _ in range(200)])
    batch = fd.RaggedBatch.from_labels(x, np.arange(len(x)) // 120)
    estimator = fd.DirichletProcessMixtures(
        n_sweeps=80, burn_in=64, thin=4, n_chains=3, init_components=6, random_state=5, progress=False
    )
    with pytest.warns(fd.ConvergenceWarning):
        estimator.fit(batch)
    recwarn.clear()
    fit = DENSITIES["dp"].fit(batch, 5, chains=3, sweeps=80)
    assert not recwarn.list
    assert torch.equal(fit.models.score_samples(batch), estimator.score_samples(batch))
    np.testing.assert_array_equal(fit.n_components, estimator.n_components_.double().mean((1, 2)).numpy())
    np.testing.assert_array_equal(fit.chains.log_joint, estimator.log_joint_.numpy())
    assert fit.chains.sweeps.tolist() == [68, 72, 76, 80]
    assert fit.chains.n_agreeing == int((estimator.rhat_ <= rhat_threshold(3, 4)).sum()) < 40


def test_numbers_follow_from_the_examples(report):
    examples, value = rows(report / "examples.csv"), values_of(report)
    assert len(examples) == value["training images", "", ""] == 1437
    flipped = np.array([row["flipped"] == "1" for row in examples])
    assert flipped.sum() == value["flipped labels", "", ""] == 144
    differs = np.array([row["true label"] != row["given label"] for row in examples])
    assert (flipped == differs).all()
    density = np.array([float(row["log-density layer4"]) for row in examples])
    own = density[[row["given label"] == "3" for row in examples]]
    assert value["class log-density", "layer4", "3"] == pytest.approx(own.mean())
    assert value["class log-density standard deviation", "layer4", "3"] == pytest.approx(own.std(ddof=1))
    below = (density[flipped][:, None] < density[~flipped]).mean()
    assert value["flipped AUC", "layer4", ""] == pytest.approx(below, abs=1e-4)


def test_an_earlier_report_and_files_of_others_stay(reports, capsys):
    report, quick = reports["gmm"], [*QUICK, *DENSITY["gmm"], "--components", "1"]
    (report / "mine.txt").write_text("mine")
    before = (report / "report.html").read_bytes()
    assert main(["analyze", *quick, "--output", str(report)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (report / "report.html").read_bytes() == before
    assert main(["analyze", *quick, "--flip", "0", "--output", str(report), "--overwrite"]) == 0
    assert (report / "mine.txt").read_text() == "mine"
    value = {(n["quantity"], n["layer"]): float(n["value"]) for n in rows(report / "numbers.csv")}
    assert math.isnan(value["flipped AUC", "layer1"])
    json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)


def test_errors_are_one_sentence(tmp_path, capsys):
    def error_of(*arguments):
        assert main(["analyze", *arguments, "--output", str(tmp_path / "out")]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "'CIFAR10'" in error_of("--dataset", "CIFAR_10")
    assert "--data-root" in error_of("--dataset", "CIFAR10", "--data-root", str(tmp_path))
    assert "'resnet18'" in error_of("--network", "resnet_18")
    assert "--components is for --density gmm, but the density is dp" in error_of("--components", "3")
    assert "--sweeps is for --density dp, but the density is gmm" in error_of("--density", "gmm", "--sweeps", "90")
    assert "--chains is for --density dp" in error_of("--density", "gmm", "--chains", "4")
    assert "--sweeps is 79, but" in error_of("--sweeps", "79")
    (tmp_path / "folder" / "train" / "a").mkdir(parents=True)
    assert "no folder 'val'" in error_of("--dataset", str(tmp_path / "folder"))


def test_folders_of_images(tmp_path, rng):
    for part, n in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    images = load_images(str(tmp_path), tmp_path, 12, 0)
    assert images.train.shape == (6, 3, 12, 12) and images.test.shape == (4, 3, 12, 12)
    assert images.class_names == ("cat", "dog") and images.test_labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "test" / "emu").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match="emu"):
        load_images(str(tmp_path), tmp_path, 12, 0)


def test_flipped_labels_are_other_labels_and_uniform(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(60_000) % 4
    given, flipped = flip_labels(labels, 0.5, 4, generator)
    assert int(flipped.sum()) == 30_000 and torch.equal(given != labels, flipped)
    step = torch.bincount((given - labels)[flipped] % 4, minlength=4)
    assert step[0] == 0 and (step[1:] - 10_000).abs().max() < 5 * (30_000 * 2 / 9) ** 0.5


def test_networks_have_the_stem_and_the_widths_of_the_paper():
    for name, width, features in (("resnet18", 64, 512), ("resnet18", 6, 48), ("resnet50", 8, 256)):
        model = small_image_resnet(name, 7, 1, width).eval()
        stages = stage_shapes(model, torch.randn(2, 1, 16, 16))
        assert stages["layer1"][2:] == (16, 16) and stages["layer4"] == (2, features, 2, 2)
    import torchvision

    ours, theirs = small_image_resnet("resnet18", 10, 3, 64), torchvision.models.resnet18(num_classes=10)
    assert {k: v.shape for k, v in ours.state_dict().items() if k != "conv1.weight"} == {
        k: v.shape for k, v in theirs.state_dict().items() if k != "conv1.weight"
    }


def stage_shapes(model, x):
    shapes = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, o, name=name: shapes.update({name: o.shape}))
    with torch.no_grad():
        model(x)
    return shapes


def test_training_learns_and_repeats(seed):
    images = load_images("digits", None, 8, 0)
    weights = []
    for _ in range(2):
        torch.manual_seed(seed)
        model = small_image_resnet("resnet18", 10, 1, 4)
        generator = torch.Generator().manual_seed(seed)
        train(model, images.train, images.train_labels, epochs=3, generator=generator, progress=False)
        weights.append(model.fc.weight)
    assert torch.equal(*weights)
    assert float((predict(model, images.test) == images.test_labels).double().mean()) > 0.5
