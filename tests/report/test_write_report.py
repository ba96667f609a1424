"""The report: its files, its numbers, its words."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fastdens.report import check_output, write_report
from tests.report.analysis_problem import CLASSES, LAYERS, N_BINS, analysis_problem

VARIANTS = {"dp": {}, "gmm": {"density": "gmm", "without": ("network", "test_labels", "memorization")}}
SAMPLED = {"component_counts", "trace"}
FIGURES = {
    "dp": {
        *("class_log_density", "split_agreement", "distance_and_divergence", "kl_matrix", "held_out_accuracy"),
        *("flipped_labels", "memorization_by_density", "correlations", "subset_f1", "subset_divergence"),
        *("robustness_by_density", *SAMPLED),
    },
    "gmm": {"class_log_density", "split_agreement", "distance_and_divergence", "kl_matrix"},
}


@pytest.fixture(scope="module")
def analyses():
    rng = np.random.default_rng()
    return {variant: analysis_problem(rng, **options) for variant, options in VARIANTS.items()}


@pytest.fixture(scope="module")
def reports(analyses, tmp_path_factory):
    folders = {variant: tmp_path_factory.mktemp("report") / variant for variant in analyses}
    for variant, folder in folders.items():
        assert write_report(analyses[variant], folder) == folder / "report.html"
    return folders


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture
def report(variant, reports):
    return reports[variant]


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def values_of(folder):
    return {row["id"]: float(row["value"]) for row in rows(folder / "numbers.csv")}


def page_of(folder):
    return (folder / "report.html").read_text()


@pytest.mark.slow
def test_every_number_of_the_page_is_in_the_csv_and_the_json(report):
    page = page_of(report)
    shown = re.findall(r'<data value="([^"]+)">([^<]*)</data>', page)
    assert len(shown) > 150
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


def test_identifiers_are_unique_and_those_of_the_json_are_those_of_the_csv(report):
    numbers = rows(report / "numbers.csv")
    assert list(numbers[0]) == [
        *("id", "quantity", "value", "layer", "class_name", "other_class", "group", "standard_error", "low", "high")
    ]
    ids = [row["id"] for row in numbers]
    assert len(set(ids)) == len(ids)
    in_json = [row["id"] for row in json.loads((report / "report.json").read_text())["numbers"]]
    assert in_json == [row["id"] for row in numbers if not row["other_class"]]


def test_the_page_is_self_contained_and_figures_are_beside_it(variant, report):
    page = page_of(report)
    assert not re.search(r'src="(?!data:)', page)
    ids, targets = re.findall(r'\bid="([^"]+)"', page), re.findall(r'href="([^"]*)"', page)
    assert len(set(ids)) == len(ids) and {target.removeprefix("#") for target in targets} <= set(ids)
    figure = r'<figure id="figure-(\w+)"><img alt="[^"]+" width="(\d+)".*?<figcaption>(.*?)</figcaption>'
    found = re.findall(figure, page, flags=re.S)
    named = {name: caption for name, _, caption in found}
    assert set(named) == FIGURES[variant]
    widths = {name: width for name, width, _ in found}
    for name, caption in named.items():
        assert "<data" in caption, name
        with Image.open(report / f"{name}.png") as image:
            assert image.size[0] > 600
            # Half the pixels, but for those that matplotlib rounds.
            assert abs(image.size[0] / 2 - int(widths[name])) <= 1
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert {file.stem for file in report.glob("*.p*")} == set(named)
    assert not list(report.glob(".*"))


def test_pictures_of_a_sampled_density_are_drawn(reports):
    for name in SAMPLED:
        with Image.open(reports["dp"] / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 20)) > 100


def test_options_are_those_of_the_data_and_of_the_density(reports):
    options = {
        variant: json.loads((folder / "report.json").read_text())["options"] for variant, folder in reports.items()
    }
    assert options["dp"]["density"] == "dp" and options["dp"]["sweeps"] == 80 and options["dp"]["chains"] == 2
    assert options["gmm"]["density"] == "gmm" and options["gmm"]["sweeps"] is None
    assert options["dp"]["dataset"] == "digits"


def test_numbers_of_chains_follow_from_those_of_classes(reports):
    value = values_of(reports["dp"])
    for layer in LAYERS:
        mean, rhat, size = (
            np.array([value[f"{layer}.components.class.{c}.{name}"] for c in CLASSES])
            for name in ("mean", "rhat", "ess")
        )
        assert value[f"{layer}.components.mean"] == pytest.approx(mean.mean())
        assert value[f"{layer}.components.min"] == mean.min() >= 1
        assert value[f"{layer}.components.max"] == mean.max()
        # Two chains of four draws each: the mean is a number of eighths.
        np.testing.assert_array_equal(mean * 8, (mean * 8).round())
        assert value[f"{layer}.components.n_draws"] == 8
        limit, least = value[f"{layer}.components.rhat_limit"], value[f"{layer}.components.ess_limit"]
        assert value[f"{layer}.components.rhat_max"] == rhat.max()
        assert value[f"{layer}.components.n_agreeing"] == ((rhat <= limit) & (size >= least)).sum()
        assert value[f"{layer}.components.ess_min"] == size.min() > 0
        sweeps = [value[f"{layer}.components.class.{c}.n_sweeps"] for c in CLASSES]
        assert value[f"{layer}.components.n_sweeps_min"] == min(sweeps)
        assert value[f"{layer}.components.n_sweeps_max"] == max(sweeps)


def test_acceptance_is_over_all_moves_of_a_layer(analyses, reports):
    value = values_of(reports["dp"])
    for layer in analyses["dp"].layers:
        moves = layer.chains.split_merge
        for name, proposed, accepted in (("split", 0, 1), ("merge", 2, 3)):
            n = moves[..., proposed].sum()
            assert value[f"{layer.name}.components.n_{name}s"] == n > 0
            assert value[f"{layer.name}.components.{name}_acceptance"] == moves[..., accepted].sum() / n


def test_numbers_follow_from_the_examples(reports):
    examples, value = rows(reports["dp"] / "examples.csv"), values_of(reports["dp"])
    assert len(examples) == value["setting.n_examples"] == 40 * len(CLASSES)
    flipped = np.array([row["flipped"] == "1" for row in examples])
    assert flipped.sum() == value["setting.n_flipped"] > 0
    differs = np.array([row["true label"] != row["given label"] for row in examples])
    assert (flipped == differs).all()
    fitted = np.array([row["network's label"] == row["given label"] for row in examples])
    assert value["setting.fitted_kept"] == pytest.approx(fitted[~flipped].mean())
    assert value["setting.fitted_flipped"] == pytest.approx(fitted[flipped].mean())
    density = np.array([float(row["log-density layer2"]) for row in examples])
    own = density[[row["given label"] == "3" for row in examples]]
    assert value["layer2.modes.class.3.log_density"] == pytest.approx(own.mean())
    assert value["layer2.modes.class.3.log_density_std"] == pytest.approx(own.std(ddof=1))
    assert value["layer2.flipped_labels.log_density_kept"] == pytest.approx(density[~flipped].mean())
    below = (density[flipped][:, None] < density[~flipped]).mean()
    assert value["layer2.flipped_labels.auc"] == pytest.approx(below, abs=1e-4)


def test_memorization_is_of_the_examples_that_have_a_score(reports):
    examples, value = rows(reports["dp"] / "examples.csv"), values_of(reports["dp"])
    score = np.array([float(row["memorization score"]) for row in examples])
    known = np.isfinite(score)
    assert value["memorization.n_scores"] == known.sum() < len(score)
    assert value["memorization.score"] == pytest.approx(score[known].mean())
    assert value["memorization.memorized"] == pytest.approx((score[known] > 0.25).mean())
    flipped = np.array([row["flipped"] == "1" for row in examples])
    for kind, own in (("flipped", score[known & flipped]), ("kept", score[known & ~flipped])):
        assert value[f"memorization.score_{kind}"] == pytest.approx(own.mean())
    density = np.array([float(row[f"log-density {LAYERS[-1]}"]) for row in examples])
    bins = np.array_split(np.argsort(density[known], kind="stable"), 10)
    for b, own in enumerate(bins, start=1):
        assert value[f"{LAYERS[-1]}.memorization.bin.{b}.score"] == pytest.approx(score[known][own].mean())


def test_robustness_is_of_each_bin(analyses, reports):
    robustness, value = analyses["dp"].robustness, values_of(reports["dp"])
    for b in range(N_BINS):
        of_bin = f"{LAYERS[-1]}.robustness.bin.{b + 1}"
        assert value[f"{of_bin}.n_tried"] == 12
        assert value[f"{of_bin}.radius"] == pytest.approx(robustness.radius[robustness.bin == b].mean())
        assert value[f"{of_bin}.test_accuracy"] == robustness.accuracy[b]
    bins = [int(row["density bin"]) for row in rows(reports["dp"] / "examples.csv")]
    np.testing.assert_array_equal(bins, robustness.bins + 1)


def test_two_groups_of_classes_have_their_own_robustness(analyses, reports):
    robustness, value = analyses["dp"].robustness, values_of(reports["dp"])
    assert analyses["dp"].layers[-1].modes.n_groups == 2
    for g, group in enumerate(("sparse", "dense")):
        expected = robustness.clean[robustness.group == g].mean()
        assert value[f"{LAYERS[-1]}.robustness.group.{group}.accuracy"] == pytest.approx(expected)


def test_examples_have_the_columns_that_are_known(reports):
    of_layers = [f"{what} {layer}" for layer in LAYERS for what in ("log-density", "neighbour distance")]
    both = ("log-density", "log-density in sample", "log-density left out", "neighbour distance")
    sampled = [f"{what} {layer}" for layer in LAYERS for what in both]
    of_network = ["true label", "flipped", "network's label"]
    of_scores = ["memorization score", "memorization standard error", "density bin"]
    columns = {variant: list(rows(folder / "examples.csv")[0]) for variant, folder in reports.items()}
    assert columns["dp"] == ["example", "given label", *of_network, *sampled, *of_scores]
    assert columns["gmm"] == ["example", "given label", *of_layers]


@pytest.mark.slow
def test_an_earlier_report_may_be_replaced_and_files_of_others_stay(reports, rng, tmp_path):
    folder = shutil.copytree(reports["gmm"], tmp_path / "report")
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"report\.html exists already: choose another --output or pass --overwrite"
    ):
        check_output(folder, overwrite=False)
    check_output(folder, overwrite=True)
    check_output(tmp_path / "elsewhere", overwrite=False)
    analysis = analysis_problem(rng, layer_names=("only",), density="gmm", without=("memorization", "robustness"))
    write_report(analysis, folder)
    assert (folder / "mine.txt").read_text() == "mine"
    assert '<td class="name">only</td>' in page_of(folder) and "layer1" not in page_of(folder)


HOSTILE_CLASSES = (
    "<script>alert(1)</script>",
    "quoted \"twice\" & 'once'",
    "a.b.c",
    "größe 日本",
    "$x_i$ {{ 7 * 7 }}",
    "n" * 300,
    "",
)
HOSTILE_LAYERS = ("modes", "layer1.0/conv, </style> $x$\n")


@pytest.mark.slow
def test_names_of_classes_and_layers_may_be_anything(rng, tmp_path):
    analysis = analysis_problem(rng, class_names=HOSTILE_CLASSES, layer_names=HOSTILE_LAYERS)
    write_report(analysis, tmp_path)
    page = page_of(tmp_path)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("</style>") == 1 and "{{ 7 * 7 }}" in page
    numbers = rows(tmp_path / "numbers.csv")
    assert {row["class_name"] for row in numbers} == {*HOSTILE_CLASSES}
    assert {row["layer"] for row in numbers} == {"", *HOSTILE_LAYERS}
    ids = {row["id"] for row in numbers}
    assert len(ids) == len(numbers)
    assert "%6Dodes.modes.class.a%2Eb%2Ec.log_density" in ids
    assert all(re.fullmatch(r"[A-Za-z0-9_.~%-]+", id) for id in ids)
    assert not [file for file in tmp_path.rglob("*") if file.parent != tmp_path]


def test_names_that_are_not_unique_are_an_error(rng, tmp_path):
    analysis = analysis_problem(rng, class_names=("cat", "cat", "dog"), layer_names=("layer",))
    with pytest.raises(ValueError, match=r"'layer\.modes\.class\.cat\.n_examples'.*a name of its own"):
        write_report(analysis, tmp_path / "report")
    assert not (tmp_path / "report").exists()
