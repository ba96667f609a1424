"""The command: its options, its files, its lines, its errors."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fastdens.cli import main, make_app
from fastdens.cli.analyze import analyze
from fastdens.convergence import chain_convergence, rhat_threshold
from fastdens.pipeline import Analysis
from fastdens.pipeline.experiment_options import ImageOptions
from fastdens.pipeline.options import AnalysisOptions
from fastdens.pipeline.presets import GPU_PRESETS, PRESETS
from fastdens.pipeline.protocols import PROTOCOLS
from tests.command_page import names_of
from tests.pipeline.planted_groups import N_CLASSES, N_DENSE, planted_groups

SMALL = ["--dataset", "digits", "--epochs", "1", "--width", "4", "--image-size", "8"]
DRAWS = ["--entropy-draws", "200", "--divergence-draws", "50"]
QUICK = [*SMALL, *DRAWS, "--dimensions", "4", "4", "6", "6", "--seeds", "2", "--processes", "1"]
QUICK += ["--memorization-networks", "3", "--memorization-epochs", "1", "--bins", "2", "--bin-epochs", "1"]
QUICK += ["--certified-examples", "6", "--certificate-draws", "50"]
DENSITY = {"dp": ["--sweeps", "80", "--chains", "2", "--stop", "sweeps"], "gmm": ["--density", "gmm"]}
LAYERS = ("layer1", "layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Folders of the reports of both densities; the second analysis finds the networks that the first has trained."""
    folders = {density: tmp_path_factory.mktemp("analysis") / density for density in DENSITY}
    runs = tmp_path_factory.mktemp("runs")
    for density, folder in folders.items():
        options = [*QUICK, *DENSITY[density], "--runs", str(runs)]
        assert main(["analyze", *options, "--output", str(folder)]) == 0
    return folders


@pytest.fixture(params=DENSITY)
def report(request, reports):
    return reports[request.param]


@pytest.fixture
def analysis(report):
    return Analysis.load(report / "analysis")


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def check_numbers(numbers, table):
    """The numbers of a document are those of the table, but for pairs of classes; NaN is null."""
    expected = {row["id"]: row for row in rows(table) if not row["other_class"]}
    assert numbers.keys() == expected.keys() and len(numbers) > 100
    for name, own in numbers.items():
        for field, value in own.items():
            assert (np.nan if value is None else value) == pytest.approx(float(expected[name][field]), nan_ok=True)


@pytest.mark.slow
def test_the_analysis_is_saved_beside_its_report(report, analysis):
    assert (report / "report.html").is_file() and (report / "kl_matrix.pdf").is_file()
    assert analysis.layer_names == LAYERS
    examples = analysis.examples
    assert len(examples.labels) == len(rows(report / "examples.csv")) == 1437
    assert examples.flipped.sum() == 144
    np.testing.assert_array_equal(examples.flipped, examples.labels != examples.true_labels)
    assert [layer.n_dimensions for layer in analysis.layers] == [4, 4, 6, 6]
    assert analysis.seed_agreement.shape == (4, 2, 2)
    assert analysis.pictures.images.shape[1:] == (1, 8, 8) and analysis.pictures.images.max() > 200
    asked = analysis.provenance.settings | analysis.options.as_json()
    assert (asked["dataset"], asked["width"], asked["flip"], asked["bins"]) == ("digits", 4, 0.1, 2)


def test_options_of_the_report_are_those_of_its_density(reports):
    options = {
        density: json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)["options"]
        for density, folder in reports.items()
    }
    assert options["dp"]["density"] == "dp" and options["dp"]["sweeps"] == 80 and options["dp"]["chains"] == 2
    assert options["gmm"]["density"] == "gmm" and options["gmm"]["sweeps"] is None


@pytest.mark.slow
def test_a_report_is_drawn_again_without_fitting(reports, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(reports["gmm"], tmp_path / "report")
    before = {name: (folder / name).read_bytes() for name in ("report.html", "numbers.csv", "examples.csv")}
    for name in before:
        (folder / name).unlink()
    monkeypatch.setattr("fastdens.GaussianMixtures.fit", pytest.fail)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Report: {folder / 'report.html'}\n"
    assert main(["report", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document.keys() == names_of("`analyze` and `report` add:")
    assert (document["command"], document["report"]) == ("report", str(folder / "report.html"))
    check_numbers(document["numbers"], folder / "numbers.csv")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert main(["report", str(folder), "--output", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "numbers.csv").read_bytes() == before["numbers.csv"]
    assert main(["report", str(folder), "--output", str(tmp_path / "other")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "has no analysis.json: pass the folder of a saved analysis." in capsys.readouterr().err


def test_chains_are_of_a_sampled_density(reports):
    for layer in Analysis.load(reports["dp"] / "analysis").layers:
        chains = layer.chains
        # Two chains of four draws each.
        assert chains.n_components.shape == (10, 2, 4) and chains.sweeps.tolist() == [[68, 72, 76, 80]] * 10
        np.testing.assert_array_equal(layer.n_components, chains.n_components.mean((1, 2)))
        assert chains.max_rhat == rhat_threshold(2, 4) and (chains.rhat > 0.5).all()
        expected = chain_convergence({"log-joint": torch.from_numpy(chains.log_joint)}, chains.max_rhat, 4)
        np.testing.assert_array_equal(chains.agree, expected.converged.numpy())
        assert chains.n_sweeps.tolist() == [80] * 10 and chains.split_merge[..., ::2].sum() > 0
    assert all(layer.chains is None for layer in Analysis.load(reports["gmm"] / "analysis").layers)


def test_numbers_follow_from_the_examples(analysis):
    layer, examples = analysis.layer("layer4"), analysis.examples
    own = layer.log_density[examples.labels == 3]
    assert layer.classes.mean[3] == pytest.approx(own.mean())
    assert layer.classes.std[3] == pytest.approx(own.std(ddof=1))
    below = (layer.log_density[examples.flipped][:, None] < layer.log_density[~examples.flipped]).mean()
    assert layer.flipped_auc == pytest.approx(below, abs=1e-4)


def test_memorization_follows_from_the_networks(analysis):
    scores = analysis.memorization.scores
    known = np.isfinite(scores.values)
    # An example without a score is no example of score zero.
    assert known.sum() > 500 and 0 < (~known).sum() < 900
    assert scores.n_networks == 3 and scores.source is None
    assert np.array_equal(np.isfinite(scores.standard_error), known)
    expected = roc_auc_score(analysis.examples.flipped[known], scores.values[known])
    assert analysis.memorization.flipped_auc == pytest.approx(expected)
    for position, layer in enumerate(analysis.layers):
        expected = spearmanr(scores.values[known], layer.log_density[known])[0]
        assert analysis.memorization.correlations.spearman.value[position] == pytest.approx(expected, abs=1e-9)


def test_robustness_is_of_each_bin(analysis):
    robustness, layer = analysis.robustness, analysis.layer("layer4")
    assert np.bincount(robustness.bin).tolist() == [6, 6] and robustness.layer == "layer4"
    # Fifty draws, all of them right, certify no more than this.
    assert (robustness.radius >= 0).all() and robustness.radius.mean() < 0.5 * 1.2
    assert not analysis.examples.flipped[robustness.examples].any()
    for c in range(10):
        own = analysis.examples.labels == c
        sparse, dense = own & (robustness.bins == 0), own & (robustness.bins == 1)
        assert abs(sparse.sum() - dense.sum()) <= 1
        assert layer.log_density[sparse].max() <= layer.log_density[dense].min()


@pytest.mark.slow
def test_an_earlier_report_and_files_of_others_stay(reports, tmp_path, capsys):
    report = shutil.copytree(reports["gmm"], tmp_path / "report")
    (report / "mine.txt").write_text("mine")
    before = (report / "report.html").read_bytes()
    options = [*SMALL, *DRAWS, *DENSITY["gmm"], "--components", "1", "--flip", "0", "--processes", "1"]
    options += ["--memorization-networks", "0", "--bins", "0", "--seeds", "1"]
    options += ["--runs", str(tmp_path / "runs"), "--output", str(report)]
    assert main(["analyze", *options]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (report / "report.html").read_bytes() == before
    assert main(["analyze", *options, "--overwrite"]) == 0
    assert (report / "mine.txt").read_text() == "mine"
    analysis = Analysis.load(report / "analysis")
    assert not analysis.examples.flipped.any() and analysis.seed_agreement is None
    assert analysis.memorization is None and analysis.robustness is None


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    folder, planted = tmp_path_factory.mktemp("handed-in"), planted_groups()
    planted.save(folder)
    return folder, planted


@pytest.mark.slow
def test_activations_alone_give_every_figure_that_needs_no_network(handed_in, tmp_path, capsys):
    folder, planted = handed_in
    output = tmp_path / "report"
    options = ["--activations", str(folder / "train"), "--test-activations", str(folder / "test"), *DRAWS]
    options += ["--memorization", str(folder / "scores.npz"), "--density", "gmm", "--components", "1"]
    options += ["--layers", "first", "deep"]
    assert main(["analyze", *options, "--output", str(output)]) == 0
    analysis = Analysis.load(output / "analysis")
    deep = analysis.layer("deep")
    assert deep.modes.group.tolist() == [1] * N_DENSE + [0] * (N_CLASSES - N_DENSE)
    assert roc_auc_score(planted.train.flipped, -deep.log_density) > 0.9
    assert analysis.provenance.activations == str(folder / "train") and analysis.examples.flipped is None
    assert analysis.options.entropy_draws == 200 and analysis.options.certificate_draws == 100_000
    for name in ("class_log_density", "kl_matrix", "correlations", "subset_f1", "subset_divergence"):
        assert (output / f"{name}.pdf").exists()
    assert not (output / "robustness_by_density.png").exists()
    told = capsys.readouterr()
    first, *of_layers, last = told.out.splitlines()
    assert "1 of 3: fitting 24 classes at first" in told.err
    assert first.startswith(f"{folder / 'train'}: 1440 training examples, 1440 test examples, 24 classes")
    assert [line.split(":")[0] for line in of_layers] == ["first", "deep"]
    assert ", one group, held-out" in of_layers[0] and ", two groups, line at " in of_layers[1]
    assert last == f"Report: {output / 'report.html'}"
    # What is finished is read; with both options the document is all that there is.
    assert main(["analyze", *options, "--output", str(output), "--overwrite", "--json", "--quiet"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out, parse_constant=pytest.fail)
    assert told.err == "" and (document["command"], document["warnings"]) == ("analyze", [])
    assert document["report"] == str(output / "report.html")
    check_numbers(document["numbers"], output / "numbers.csv")


def save(folder, x, labels=None):
    folder.mkdir()
    np.save(folder / "layer.npy", x)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    return folder


@pytest.fixture
def error_of(tmp_path, capsys):
    """The sentence of a command that fails and leaves nothing."""

    def error_of(*arguments):
        assert main(["analyze", *map(str, arguments), "--output", str(tmp_path / "out")]) == 1
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err
        assert error.startswith("fastdens: ") and error.count("\n") == 1 and "Traceback" not in error
        return error

    return error_of


def test_errors_of_activations_are_one_sentence(handed_in, tmp_path, error_of):
    folder, planted = handed_in
    x, labels, scores = planted.train.activations["deep"], planted.train.labels, planted.scores
    train = folder / "train"
    assert "'deep'" in error_of("--activations", train, "--layers", "deap")
    assert "labels.npy" in error_of("--activations", save(tmp_path / "unlabelled", x))
    few = np.where(np.arange(len(labels)) < 3, 24, labels)
    assert "'24' has 3 training examples" in error_of("--activations", save(tmp_path / "few", x, few))
    assert "holds no activations" in error_of("--activations", tmp_path / "nowhere")
    assert "--memorization-networks" in error_of("--activations", train, "--memorization-networks", 4)
    assert "--bins asks for networks" in error_of("--activations", train, "--bins", 4)
    assert "--width asks for a network, but --activations" in error_of("--activations", train, "--width", 64)
    assert "--dimensions has 3 numbers" in error_of("--activations", train, "--dimensions", 2, 2, 2)
    np.save(tmp_path / "short.npy", scores[:-1])
    short = error_of("--activations", train, "--memorization", tmp_path / "short.npy")
    assert str(len(scores) - 1) in short and str(len(scores)) in short
    np.savez(tmp_path / "named.npz", tr_memm=scores)
    assert "tr_mem" in error_of("--activations", train, "--memorization", tmp_path / "named.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "CIFAR_100x"], "'CIFAR100'"),
        (["--dataset", "CIFAR10", "--data-root", "nowhere"], "CIFAR10"),
        (["--network", "resnet_18"], "'resnet18'"),
        (["--components", "3"], "--components is for --density gmm, but the density is dp"),
        (["--density", "gmm", "--sweeps", "90"], "--sweeps is for --density dp, but the density is gmm"),
        (["--density", "gmm", "--chains", "4"], "--chains is for --density dp"),
        (["--sweeps", "75"], "--sweeps is 75, but"),
        (["--density", "gmm", "--init", "random"], "--init is for --density dp"),
        (
            ["--max-sweeps", "900", "--stop", "sweeps"],
            "--max-sweeps is 900, but chains make 400 sweeps if --stop is sweeps",
        ),
        (["--density", "gmm", "--weighting", "published"], "--weighting is for --density dp"),
        (["--kl-examples", "9"], "--kl-examples is 9, but it has no effect unless --kl-subsets is threshold"),
        (["--kl-low", "0.8"], "--kl-low is 0.8 and --kl-high 0.7"),
        (["--test-activations", "test"], "--test-activations goes with --activations"),
        (
            ["--memorization", "a.npz", "--memorization-networks", "2"],
            "--memorization has scores and --memorization-net",
        ),
        (["--weights", "a.pt", "--epochs", "2"], "--weights has a trained network and --epochs would train one"),
        (["--memorization", "nowhere.npz"], "there is no file nowhere.npz"),
    ],
)
def test_errors_are_one_sentence(error_of, options, message):
    assert message in error_of(*options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--widht", "3"], "Unknown option: --widht. Did you mean --width?"),
        (["--width", "three"], 'Invalid value for --width: unable to convert "three" into int.'),
        (["--flip", "1"], "--flip is 1.0, but it must be less than 1."),
        (["--entropy-draws", "1"], "--entropy-draws is 1, but it must be at least 2."),
        (["--density", "dpp"], "dp"),
        (["--init", "kmean"], "kmeans"),
        (["--protocol", "publishd"], "published"),
        (["--certified-examples", "al"], "--certified-examples"),
        (["--search", "2"], "--search is 2.0, but it must be at most 1."),
        (["--split-merge", "auto"], 'Invalid value for --split-merge: unable to convert "auto" into float'),
        (["--epochs"], "--epochs requires an argument"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["analyze", *options])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def settled(*arguments):
    """The options that the command would go by, by name."""
    command, bound, _ = make_app().parse_args(["analyze", *arguments], exit_on_error=False, print_error=False)
    assert command is analyze
    bound.apply_defaults()
    return {own.name: getattr(part, own.name) for part in bound.arguments.values() for own in fields(part)}


def test_the_user_wins_over_a_preset_and_a_preset_over_the_default():
    options = settled("--epochs", "3", "--device", "cpu", "--augment")
    assert options["epochs"] == 3 and options["augment"] is True
    others = {name: value for name, value in PRESETS[ImageOptions.dataset].items() if name not in ("epochs", "augment")}
    assert {name: options[name] for name in others} == others
    assert options["neighbours"] == AnalysisOptions.neighbours and options["dataset"] == ImageOptions.dataset


def test_chains_start_move_and_stop_as_the_user_says():
    options = settled("--init", "kmeans", "--split-merge", "2", "--search", "0", "--stop", "converged")
    assert (options["init"], options["split_merge"], options["search"]) == ("kmeans", 2.0, 0.0)
    assert (options["stop"], options["max_sweeps"]) == ("converged", None)


def test_presets_are_of_the_data_set_the_device_and_the_density():
    small = settled("--dataset", "glyphs100", "--device", "cpu")
    assert (small["width"], small["chains"], small["thin"], small["memorization_share"]) == (8, 2, 16, 0.5)
    assert (small["images_per_class"], small["image_size"], small["limit_dimensions"]) == (150, 16, False)
    full = settled("--dataset", "glyphs100", "--device", "cuda", "--epochs", "7")
    assert (full["width"], full["epochs"], full["memorization_networks"]) == (64, 7, 40)
    assert (full["images_per_class"], full["image_size"]) == (500, 32)
    mixtures = settled("--dataset", "glyphs100", "--device", "cpu", "--density", "gmm")
    assert (mixtures["chains"], mixtures["thin"]) == (AnalysisOptions.chains, AnalysisOptions.thin)
    scored = settled("--memorization", "scores.npz")
    assert scored["memorization_networks"] == 0 and scored["bins"] == 4
    paper = settled("--dataset", "CIFAR100")
    assert (paper["width"], paper["epochs"], paper["augment"], paper["bins"]) == (64, 100, True, 0)
    handed_in = settled("--activations", "folder")
    assert handed_in["entropy_draws"] == 100_000 and handed_in["bins"] == 0


def test_definitions_of_a_protocol_win_over_the_preset_and_the_preset_over_its_amounts():
    options = settled("--dataset", "digits", "--protocol", "published", "--device", "cpu")
    definitions, amounts = PROTOCOLS["published"].definitions, PROTOCOLS["published"].amounts
    assert {name: options[name] for name in definitions} == dict(definitions)
    assert (options["stop"], PRESETS["digits"]["stop"]) == ("sweeps", "converged")
    assert (options["bins"], options["certified_examples"], options["epochs"]) == (4, 40, 12)
    assert (options["batch_size"], options["schedule"], options["augment"]) == (64, "cosine", False)
    other = settled("--dataset", "CIFAR100", "--protocol", "published", "--average", "density", "--kl-examples", "30")
    assert (other["average"], other["weighting"], other["kl_examples"]) == ("density", "published", 30)
    assert (other["bins"], other["bin_epochs"], other["certified_examples"]) == (50, 160, "all")
    assert (other["batch_size"], other["schedule"], other["augmentation"]) == (512, "linear", "crop_flip")
    assert other["memorization_networks"] == 0
    handed_in = settled("--activations", "folder", "--protocol", "published")
    assert {name: handed_in[name] for name in {**definitions, **amounts}} == {**definitions, **amounts}
    assert handed_in["bins"] == 0
    mixtures = settled("--activations", "folder", "--protocol", "published", "--density", "gmm")
    assert (mixtures["weighting"], mixtures["label_subsets"]) == ("exact", "global")
    exact = settled("--dataset", "CIFAR100", "--certified-examples", "all")
    assert (exact["certified_examples"], exact["average"]) == ("all", "density")


def in_words(name, value):
    """An option and its value as the command takes them."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def test_the_help_has_every_option_with_its_meaning_and_the_presets(capsys):
    assert main(["analyze", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    options = settled()
    assert len(options) > 40
    for name in options:
        assert f"--{name.replace('_', '-')}" in text
    published = PROTOCOLS["published"]
    of_protocol = {**published.definitions, **published.amounts, **published.training}
    assert all(dataset in text for dataset in PRESETS)
    for values in (of_protocol, *PRESETS.values(), *GPU_PRESETS.values()):
        assert all(in_words(name, value) in text for name, value in values.items())
    for group in ("Definitions", "Images", "Network", "Densities", "Memorization", "Robustness", "Machine", "Files"):
        assert f"╭─ {group} ─" in text


def test_dimensions_of_a_preset_are_for_the_layers_of_its_network():
    values = PRESETS[ImageOptions.dataset]["dimensions"]
    assert settled()["dimensions"] == values == (8, 8, 16, 16)
    assert settled("--layers", "layer4")["dimensions"] is None and settled("--width", "4")["dimensions"] is None
    assert settled("--layers", "layer4", "--dimensions", "5")["dimensions"] == (5,)
