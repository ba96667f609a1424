"""The words of the page: they follow from the analysis, and every number they need is there."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from jinja2 import UndefinedError

from fastdens.pipeline.results import Provenance
from fastdens.report import Metrics, metrics_of
from fastdens.report.figures import Picture
from fastdens.report.metrics import SECTION_NAMES
from fastdens.report.page import format_digits, render_page
from fastdens.report.sections import SECTIONS, sections_of
from tests.report.analysis_problem import CLASSES, LAYERS, analysis_problem

UNDRAWN = defaultdict(lambda: Picture("undrawn", 100, "data:,"))
ACTIVATIONS_ALONE = ("network", "memorization", "test_labels")


def page(analysis, metrics=None):
    """The page without its figures."""
    return render_page(analysis, sections_of(analysis), metrics or metrics_of(analysis), UNDRAWN)


def words(analysis):
    """The words of the page, one space between them."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page(analysis), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", "", body).split())


def test_every_section_has_its_name_in_identifiers():
    assert tuple(section.name for section in SECTIONS) == SECTION_NAMES


def test_chains_are_reported_of_a_sampled_density_only(rng):
    sampled, fitted = analysis_problem(rng), analysis_problem(rng, density="gmm")
    assert "a Dirichlet-process mixture of Gaussians was fitted" in words(sampled) and "Gibbs" in words(sampled)
    for layer in sampled.layers:
        agreeing = int((layer.chains.rhat <= layer.chains.limit).sum())
        assert f"At {layer.name} the chains of {agreeing} of {len(CLASSES)} classes agree" in words(sampled)
    assert "Dirichlet" not in words(fitted) and "chains of" not in words(fitted) and "BIC over all" in words(fitted)
    assert not any("rhat" in id for id in metrics_of(fitted))


def test_what_is_not_known_is_not_on_the_page(rng):
    titles = ("Flipped labels", "<h2>Memorization", "<h2>Density and robustness", "different seeds", "Where the label")
    whole, part = page(analysis_problem(rng)), page(analysis_problem(rng, without=ACTIVATIONS_ALONE))
    for title in titles:
        assert title in whole and title not in part
    unflipped = page(analysis_problem(rng, without=("flipped",)))
    assert "Flipped labels" not in unflipped and "flipped at random" not in unflipped


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        (
            Provenance("x", network="resnet18", width=16, epochs=3),
            "A resnet18 of width 16 was trained for 3 epochs on ",
        ),
        (Provenance("x", network="resnet50", weights="my.pt"), "A resnet50 with the weights of my.pt was run on "),
        (Provenance("x", activations="some/folder"), "The activations were read from some/folder. They are those of "),
        (Provenance("x"), "The activations are those of "),
    ],
)
def test_the_page_tells_where_the_activations_come_from(rng, provenance, expected):
    analysis = replace(analysis_problem(rng, without=ACTIVATIONS_ALONE), provenance=provenance)
    assert f"{expected}200 training examples of 5 classes." in words(analysis)


def test_scores_of_a_file_are_said_to_be_read(rng):
    analysis = analysis_problem(rng)
    scores = replace(analysis.memorization.scores, standard_error=None, n_networks=0, source="scores.npz")
    text = words(replace(analysis, memorization=replace(analysis.memorization, scores=scores)))
    assert "Memorization scores were read from scores.npz. The mean score of 180 examples is " in text
    assert "networks were trained on random subsets" not in text


@pytest.mark.parametrize("decided", [True, False])
def test_a_lead_is_undecided_where_its_interval_has_zero(rng, decided):
    analysis = analysis_problem(rng)
    predictors = {name: replace(own, decided=decided) for name, own in analysis.memorization.predictors.items()}
    text = words(replace(analysis, memorization=replace(analysis.memorization, predictors=predictors)))
    assert ("these data do not decide" in text) != decided


def test_one_class_has_no_pairs(rng):
    analysis = analysis_problem(rng, class_names=("only",), without=("flipped", "long_tailed"))
    assert "KL divergence between densities fitted" not in page(analysis)
    assert not any("kl_" in id for id in metrics_of(analysis))


@pytest.mark.parametrize("density", ["dp", "gmm"])
def test_the_table_of_classes_has_every_metric_of_a_class_at_a_layer(rng, density):
    analysis = analysis_problem(rng, density=density)
    table = page(analysis).partition("<h2>Classes</h2>")[2]
    of_classes = [metric for metric in metrics_of(analysis).values() if metric.layer and metric.class_name]
    expected = [repr(metric.value) for metric in of_classes if not metric.other_class]
    assert len(expected) == len(LAYERS) * len(CLASSES) * (11 if density == "dp" else 7)
    shown = re.findall(r'<td><data value="([^"]+)">', table)
    assert sorted(shown) == sorted(expected)


@pytest.mark.parametrize(
    "missing",
    ["layer2.modes.class.3.log_density", "layer1.divergences.class.0.distance", "layer1.components.class.4.ess"],
)
def test_a_metric_that_a_template_needs_may_not_be_missing(rng, missing):
    analysis = analysis_problem(rng)
    kept = Metrics(metric for metric in metrics_of(analysis).values() if metric.id != missing)
    with pytest.raises(KeyError, match=re.escape(f"the report has no metric '{missing}'")):
        page(analysis, kept)


def test_a_figure_that_a_template_needs_may_not_be_missing(rng):
    analysis = analysis_problem(rng)
    with pytest.raises(UndefinedError, match="class_log_density"):
        render_page(analysis, sections_of(analysis), metrics_of(analysis), {})


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.12345, ".3f", "0.123"),
        (12.0, "d", "12"),
        (1.9e-89, ".2g", "1.9e-89"),
        (np.nan, "d", "–"),
        (np.inf, ".3f", "∞"),
        (-np.inf, "d", "−∞"),
    ],
)
def test_numbers_are_shown_with_their_digits(value, digits, shown):
    assert format_digits(value, digits) == shown
