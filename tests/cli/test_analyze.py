"""The command from images, or from activations, to report: its files, its numbers, its errors."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, roc_auc_score

import fastdens as fd
from fastdens.cli import main
from fastdens.cli.densities import DENSITIES
from fastdens.convergence import rhat_threshold

QUICK = ["--epochs", "1", "--width", "4", "--image-size", "8", "--dimensions", "4", "4", "6", "6", "--seeds", "2"]
QUICK += ["--memorization-networks", "3", "--memorization-epochs", "1", "--bins", "2", "--bin-epochs", "1"]
QUICK += ["--certified-examples", "6", "--certificate-draws", "50"]
DRAWS = ["--entropy-draws", "200", "--divergence-draws", "50"]
DENSITY = {"dp": ["--sweeps", "80", "--chains", "2"], "gmm": ["--density", "gmm"]}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
SAMPLED = ("component_counts", "trace")
FIGURES = (
    *("class_log_density", "split_agreement", "distance_and_divergence", "kl_matrix", "held_out_accuracy"),
    *("flipped_labels", "memorization_by_density", "correlations", "subset_f1", "subset_divergence"),
    "robustness_by_density",
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folders = {density: tmp_path_factory.mktemp("analysis") / density for density in DENSITY}
    runs = tmp_path_factory.mktemp("runs")
    for density, folder in folders.items():
        # The second analysis finds the networks that the first has trained.
        options = [*QUICK, *DRAWS, *DENSITY[density], "--runs", str(runs)]
        assert main(["analyze", *options, "--output", str(folder)]) == 0
    return folders


@pytest.fixture(params=DENSITY)
def report(request, reports):
    return reports[request.param]


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def values_of(folder):
    numbers = rows(folder / "numbers.csv")
    return {
        (n["quantity"], n["layer"], n["class_name"]): float(n["value"])
        for n in numbers
        if not (n["group"] or n["other_class"])
    }


def grouped_values_of(folder, quantity):
    numbers = rows(folder / "numbers.csv")
    return {(n["layer"], n["group"]): float(n["value"]) for n in numbers if n["quantity"] == quantity}


def test_every_number_of_the_page_is_in_the_csv_and_the_json(report):
    page = (report / "report.html").read_text()
    shown = re.findall(r'<data value="([^"]+)">([^<]*)</data>', page)
    assert len(shown) > 400
    parts = ("value", "standard_error", "low", "high")
    in_csv = {row[part] for row in rows(report / "numbers.csv") for part in parts}
    assert {value for value, _ in shown} <= in_csv
    numbers = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)["numbers"]
    in_json = {repr(row[part]) for row in numbers for part in parts}
    assert {value for value, _ in shown if math.isfinite(float(value))} <= in_json
    for value, text in shown:
        if math.isfinite(float(value)):
            assert float(text) == pytest.approx(float(value), abs=0.0051, rel=0.051)
        else:
            assert text in ("–", "∞")
    # No number of a result stands outside of those elements.
    prose = re.sub(r"<(style|script|code|title|h1)[^>]*>.*?</\1>|<data.*?</data>|<[^>]+>", " ", page, flags=re.S)
    assert set(re.findall(r"\b\d+\.\d+\b", prose)) <= {"0.5"}


def test_the_page_is_self_contained_and_figures_are_beside_it(report):
    page = (report / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    captions = re.findall(r'<figure><img alt="([^"]+)".*?<figcaption>(.*?)</figcaption>', page, flags=re.S)
    named = {alt.replace(" ", "_"): caption for alt, caption in captions}
    assert set(FIGURES) <= set(named)
    for name, caption in named.items():
        assert "<data" in caption, name
        with Image.open(report / f"{name}.png") as image:
            assert image.size[0] > 600
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not list(report.glob(".*"))


def test_chains_are_reported_of_a_sampled_density_only(reports):
    pages = {density: (folder / "report.html").read_text() for density, folder in reports.items()}
    assert "a Dirichlet-process mixture of Gaussians was fitted" in pages["dp"] and "Gibbs" in pages["dp"]
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
    fit = DENSITIES["dp"].fit(batch, 5, chains=3, sweeps=80, thin=4)
    assert not recwarn.list
    assert torch.equal(fit.models.score_samples(batch), estimator.score_samples(batch))
    np.testing.assert_array_equal(fit.n_components, estimator.n_components_.double().mean((1, 2)).numpy())
    np.testing.assert_array_equal(fit.chains.log_joint, estimator.log_joint_.numpy())
    assert fit.chains.sweeps.tolist() == [68, 72, 76, 80]
    assert fit.chains.n_agreeing == int((estimator.rhat_ <= rhat_threshold(3, 4)).sum()) < 40


def test_numbers_follow_from_the_examples(report):
    examples, value = rows(report / "examples.csv"), values_of(report)
    assert len(examples) == value["training examples", "", ""] == 1437
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


def test_an_earlier_report_and_files_of_others_stay(reports, tmp_path, capsys):
    report = shutil.copytree(reports["gmm"], tmp_path / "report")
    quick = ["--epochs", "1", "--width", "4", "--image-size", "8", *DRAWS, *DENSITY["gmm"]]
    quick += ["--memorization-networks", "0", "--bins", "0", "--seeds", "1", "--components", "1"]
    (report / "mine.txt").write_text("mine")
    before = (report / "report.html").read_bytes()
    quick += ["--runs", str(tmp_path / "runs"), "--output", str(report)]
    assert main(["analyze", *quick]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (report / "report.html").read_bytes() == before
    assert main(["analyze", *quick, "--flip", "0", "--overwrite"]) == 0
    assert (report / "mine.txt").read_text() == "mine"
    page = (report / "report.html").read_text()
    for absent in ("Flipped labels", "<h2>Memorization", "<h2>Density and robustness", "different seeds"):
        assert absent not in page
    json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)


def test_memorization_follows_from_the_networks(report):
    examples, value = rows(report / "examples.csv"), values_of(report)
    score = np.array([float(row["memorization score"]) for row in examples])
    known = np.isfinite(score)
    assert value["examples with a memorization score", "", ""] == known.sum() > 500
    assert value["mean memorization score", "", ""] == pytest.approx(score[known].mean())
    # An example without a score is no example of score zero.
    assert 0 < (~known).sum() < 900
    flipped = np.array([row["flipped"] == "1" for row in examples])
    expected = roc_auc_score(flipped[known], score[known])
    assert value["flipped AUC of memorization", "", ""] == pytest.approx(expected)
    for layer in LAYERS:
        density = np.array([float(row[f"log-density {layer}"]) for row in examples])
        expected = spearmanr(score[known], density[known])[0]
        assert value["Spearman correlation of memorization", layer, ""] == pytest.approx(expected, abs=1e-9)
    bins = np.array_split(np.argsort(density[known], kind="stable"), 10)
    means = grouped_values_of(report, "mean memorization score of a bin")
    for b, own in enumerate(bins):
        assert means["layer4", f"bin {b + 1}"] == pytest.approx(score[known][own].mean())


def test_robustness_is_of_each_bin(report):
    tried = grouped_values_of(report, "examples tried")
    assert tried["layer4", "bin 1"] == tried["layer4", "bin 2"] == 6
    radius = grouped_values_of(report, "mean certified radius")
    # Fifty draws, all of them right, certify no more than this.
    assert 0 <= radius["layer4", "bin 1"] < 0.5 * 1.2
    bins = np.array([int(row["density bin"]) for row in rows(report / "examples.csv")])
    density = np.array([float(row["log-density layer4"]) for row in rows(report / "examples.csv")])
    label = np.array([row["given label"] for row in rows(report / "examples.csv")])
    for c in "0123456789":
        own = label == c
        assert abs((bins[own] == 1).sum() - (bins[own] == 2).sum()) <= 1
        assert density[own & (bins == 1)].max() <= density[own & (bins == 2)].min()


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    """Activations of classes of two densities, with a tenth of the labels flipped, and scores that are higher there."""
    rng = np.random.default_rng(20)
    folder = tmp_path_factory.mktemp("handed-in")
    n_classes, n, width = 24, 60, 5
    spread = np.where(np.arange(n_classes) < 10, 0.2, 1.5)
    parts = {}
    for part in ("train", "test"):
        labels = np.repeat(np.arange(n_classes), n)
        centres = 40 * np.random.default_rng(3).normal(size=(n_classes, width))
        x = centres[labels] + spread[labels, None] * rng.normal(size=(len(labels), width))
        flipped = (rng.random(len(labels)) < 0.1) & (part == "train")
        labels = np.where(flipped, (labels + 7) % n_classes, labels)
        order = rng.permutation(len(labels))
        (folder / part).mkdir()
        np.save(folder / part / "deep.npy", x[order].astype(np.float32))
        np.save(folder / part / "first.npy", rng.normal(size=x.shape).astype(np.float32))
        np.save(folder / part / "labels.npy", labels[order])
        parts[part] = x[order], labels[order], flipped[order]
    scores = np.clip(parts["train"][2] + 0.1 * rng.normal(size=len(order)), 0, 1).astype(np.float32)
    np.savez(folder / "scores.npz", tr_mem=scores, tr_labels=parts["train"][1].astype(np.int32))
    (folder / "train" / "class_names.txt").write_text("\n".join(f"class-{c}" for c in range(n_classes)))
    return folder, parts, scores


def test_activations_alone_give_every_figure_that_needs_no_network(handed_in, tmp_path, capsys):
    folder, parts, scores = handed_in
    output = tmp_path / "report"
    options = ["--activations", str(folder / "train"), "--test-activations", str(folder / "test"), *DRAWS]
    options += ["--memorization", str(folder / "scores.npz"), "--density", "gmm", "--components", "1"]
    options += ["--layers", "first", "deep"]
    assert main(["analyze", *options, "--output", str(output)]) == 0
    value, examples = values_of(output), rows(output / "examples.csv")
    x, labels, flipped = parts["train"]
    # The planted groups: ten classes are denser, at the layer that was made of them and not at the other.
    assert value["groups", "deep", ""] == 2 and value["groups", "first", ""] == 1
    assert [value["class group", "deep", f"class-{c}"] for c in range(24)] == [1] * 10 + [0] * 14
    # The planted flips.
    density = np.array([float(row["log-density deep"]) for row in examples])
    assert roc_auc_score(flipped, -density) > 0.9
    own = x[labels == 4]
    assert value["class mean pairwise distance", "deep", "class-4"] == pytest.approx(pdist(own).mean(), rel=1e-4)
    assert value["Spearman correlation of memorization", "deep", ""] == pytest.approx(spearmanr(scores, density)[0])
    assert value["held-out accuracy", "deep", ""] > 0.99 > 0.2 > value["held-out accuracy", "first", ""]
    assert value["held-out F1", "deep", ""] == pytest.approx(f1_score(labels, labels, average="weighted"), abs=0.01)
    f1 = grouped_values_of(output, "subset F1")
    assert f1["deep", "most memorized"] < 0.3 and f1["deep", "least memorized"] > 0.95
    for name in ("class_log_density", "kl_matrix", "correlations", "subset_f1", "subset_divergence"):
        assert (output / f"{name}.pdf").exists()
    assert not (output / "robustness_by_density.png").exists()
    assert "24 classes" in capsys.readouterr().out


def test_errors_of_activations_are_one_sentence(handed_in, tmp_path, capsys):
    folder, (x, labels, _), scores = handed_in[0], handed_in[1]["train"], handed_in[2]

    def error_of(*arguments):
        assert main(["analyze", *map(str, arguments), *DRAWS, "--output", str(tmp_path / "out")]) == 1
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error
        return error

    train = folder / "train"
    assert "'deep'" in error_of("--activations", train, "--layers", "deap")
    assert "labels.npy" in error_of("--activations", save(tmp_path / "unlabelled", x))
    few = np.where(np.arange(len(labels)) < 3, 24, labels)
    assert "'24' has 3 training examples" in error_of("--activations", save(tmp_path / "few", x, few))
    assert "holds no activations" in error_of("--activations", tmp_path / "nowhere")
    assert "--memorization-networks" in error_of("--activations", train, "--memorization-networks", 4)
    assert "--dimensions has 3 numbers" in error_of("--activations", train, "--dimensions", 2, 2, 2)
    np.save(tmp_path / "short.npy", scores[:-1])
    short = error_of("--activations", train, "--memorization", tmp_path / "short.npy")
    assert str(len(scores) - 1) in short and str(len(scores)) in short
    np.savez(tmp_path / "named.npz", tr_memm=scores)
    assert "tr_mem" in error_of("--activations", train, "--memorization", tmp_path / "named.npz")


def save(folder, x, labels=None):
    folder.mkdir()
    np.save(folder / "layer.npy", x.astype(np.float32))
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    return folder


def test_errors_are_one_sentence(tmp_path, capsys):
    def error_of(*arguments):
        assert main(["analyze", *arguments, "--output", str(tmp_path / "out")]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "'CIFAR100'" in error_of("--dataset", "CIFAR_100x")
    assert "CIFAR10" in error_of("--dataset", "CIFAR10", "--data-root", str(tmp_path))
    assert "'resnet18'" in error_of("--network", "resnet_18")
    assert "--components is for --density gmm, but the density is dp" in error_of("--components", "3")
    assert "--sweeps is for --density dp, but the density is gmm" in error_of("--density", "gmm", "--sweeps", "90")
    assert "--chains is for --density dp" in error_of("--density", "gmm", "--chains", "4")
    assert "--sweeps is 75, but" in error_of("--sweeps", "75")
    assert "--test-activations goes with --activations" in error_of("--test-activations", str(tmp_path))
