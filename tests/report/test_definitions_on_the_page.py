"""What the page says under the published definitions, one by one and together."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fastdens.report import metrics_of
from fastdens.report.sections import memorization
from tests.report.analysis_problem import analysis_problem
from tests.report.test_page import page, words


def with_options(analysis, **options):
    return replace(analysis, options=replace(analysis.options, **options))


def with_subsets(analysis, **parts):
    subsets = replace(analysis.memorization.subsets, **parts)
    return replace(analysis, memorization=replace(analysis.memorization, subsets=subsets))


def test_numbers_of_both_densities_are_those_of_scipy_and_sklearn(rng):
    analysis = analysis_problem(rng)
    metrics, labels, flipped = metrics_of(analysis), analysis.examples.labels, analysis.examples.flipped
    for layer in analysis.layers:
        means = [[own[labels == c].mean() for c in range(5)] for own in (layer.in_sample, layer.left_out)]
        found = metrics.at(layer.name, "definitions", "rank_correlation").value
        assert found == pytest.approx(spearmanr(*means)[0])
        for name in ("in_sample", "left_out"):
            found = metrics.at(layer.name, "definitions", f"flipped_auc_{name}").value
            assert found == pytest.approx(roc_auc_score(flipped, -getattr(layer, name)))
        gain = metrics.at(layer.name, "definitions", "gain")
        assert gain.value == pytest.approx((layer.in_sample - layer.left_out).mean())
        assert gain.standard_error == pytest.approx(np.std(layer.in_sample - layer.left_out, ddof=1) / np.sqrt(200))


def with_densities(analysis, in_sample, left_out):
    return replace(
        analysis, layers=tuple(replace(own, in_sample=in_sample, left_out=left_out) for own in analysis.layers)
    )


def test_sentences_about_flipped_labels_follow_from_the_numbers(rng):
    analysis = analysis_problem(rng)
    flipped, noise = analysis.examples.flipped, rng.normal(size=200)
    # Alternating values have no order to find.
    alike = np.empty(200)
    alike[flipped] = np.linspace(0, 1, flipped.sum())
    alike[~flipped] = np.linspace(0, 1, (~flipped).sum())
    dense, sparse = noise + 9 * flipped, noise - 9 * flipped
    finding = "They are dense because components were fitted to them"
    depends = "What is found about flipped labels depends on the definition."
    lower, higher = "is lower for examples with a flipped label", "is higher for examples with a flipped label"
    text = words(with_densities(analysis, dense, sparse))
    assert f"The density in sample {higher} than for the others (area under the ROC curve 0.000)" in text
    assert f"the density left out {lower} than for the others (1.000)" in text
    assert finding in text and depends not in text
    text = words(with_densities(analysis, sparse, sparse + 1))
    assert f"in sample {lower}" in text and finding not in text and depends not in text
    text = words(with_densities(analysis, alike, sparse))
    assert "in sample does not tell examples with a flipped label from the others" in text and depends in text
    unknown = words(analysis_problem(rng, without=("flipped",)))
    assert "Training examples in sample and left out" in unknown and "density in sample is " not in unknown


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 1, 2, 3, 4], "1.00: the classes come in nearly the same order."),
        ([1, 0, 2, 4, 3], "0.80: the order of the classes is similar."),
        ([4, 3, 2, 1, 0], "-1.00: which classes are dense depends on the definition."),
    ],
)
def test_the_order_of_the_classes_is_told(rng, order, expected):
    analysis = analysis_problem(rng)
    labels = analysis.examples.labels
    text = words(with_densities(analysis, np.array(order, float)[labels], labels.astype(float)))
    assert f"have a rank correlation of {expected}" in text


def test_one_density_has_no_such_section(rng):
    fitted = analysis_problem(rng, density="gmm")
    assert "in sample" not in words(fitted) and not any(".definitions." in id for id in metrics_of(fitted))
    earlier = analysis_problem(rng)
    assert "<h2>Training examples in sample" not in page(with_densities(earlier, None, None))


@pytest.mark.parametrize(
    ("options", "expected", "instead_of"),
    [
        (
            {"training_density": "in_sample"},
            "The training examples are scored by densities that were fitted to them too",
            "Each training example is removed",
        ),
        (
            {"average": "log_density"},
            "The log-density of an example under a class is the mean over all kept draws",
            "posterior predictive density, averaged over all kept draws",
        ),
        ({"weighting": "published"}, "a cluster of n examples has the weight alpha + n", None),
        ({"relative_entropy": "draws"}, "(right axis), of each kept draw and averaged, with bars", None),
        ({"pair_divergence": "draws"}, "The mean over pairs is", "The median over pairs"),
        (
            {"bin_ranks": "global"},
            "The training examples were divided into 2 bins",
            "examples of each class were divided",
        ),
        (
            {"sigma_units": "standardized"},
            "(images are standardized: each channel has a standard deviation of 1)",
            "noise of standard deviation 0.5 (pixels",
        ),
    ],
)
def test_each_definition_is_told_in_its_section(rng, options, expected, instead_of):
    analysis = analysis_problem(rng)
    text, before = words(with_options(analysis, **options)), words(analysis)
    assert expected in text and expected not in before
    if instead_of is not None:
        assert instead_of not in text and instead_of in before
    assert "All quantities are defined as in the published code" not in text


def test_the_page_of_the_protocol_is_true_to_its_numbers(rng):
    analysis = analysis_problem(rng, published=True)
    assert analysis.options.published_definitions
    text, metrics = words(analysis), metrics_of(analysis)
    assert "All quantities are defined as in the published code." in text
    subsets = analysis.memorization.subsets
    assert f"The most memorized score from {subsets.label_scores['most']:.4f}, the least memorized up to" in text
    assert "mean over the kept draws, with bars of one standard deviation" in text
    assert "with a score of at least 0.7 (3 classes), of at most 0.015 (3 classes)" in text
    assert "mean over pairs of classes, with a band of one standard deviation to each side" in text
    f1 = subsets.f1_of_draws["most"][1]
    assert metrics.at("layer2", "memorization", "subset", "most", "f1").value == pytest.approx(f1.mean())
    assert metrics.at("layer2", "memorization", "subset", "most", "f1_std").value == pytest.approx(f1.std(ddof=1))
    values = subsets.divergence["least"][0].value[~np.eye(3, dtype=bool)]
    assert metrics.at("layer1", "memorization", "subset", "least", "kl_mean").value == pytest.approx(values.mean())
    assert metrics.at("layer1", "memorization", "subset", "least", "kl_std").value == pytest.approx(values.std(ddof=1))
    # No number of a result stands outside of the elements that hold metrics, but sigma and epsilon.
    prose = re.sub(
        r"<(style|script|code|title|h1)[^>]*>.*?</\1>|<data.*?</data>|<[^>]+>", " ", page(analysis), flags=re.S
    )
    assert set(re.findall(r"\b\d+\.\d+\b", prose)) <= {"0.5"}


def test_figures_of_the_protocol_are_drawn(rng):
    analysis = analysis_problem(rng, published=True)
    assert [name for name, _ in memorization.figures(analysis)][-2:] == ["subset_f1", "subset_divergence"]
    nothing = with_subsets(analysis, classification={}, f1_of_draws={}, divergence={}, label_scores={})
    assert [name for name, _ in memorization.figures(nothing)] == ["memorization_by_density", "correlations"]


def test_what_the_data_do_not_allow_is_said(rng):
    analysis = analysis_problem(rng, published=True)
    few = with_subsets(analysis, classification={}, f1_of_draws={}, label_scores={}, held_out=100)
    assert "it takes three subsets of 100 examples, and 180 have a score." in words(few)
    small = with_subsets(few, held_out=50)
    assert "three subsets of 50 examples, and without them some class would keep too few" in words(small)
    divergence = {name: own for name, own in analysis.memorization.subsets.divergence.items() if name != "most"}
    one = with_subsets(analysis, divergence=divergence, n_classes={"most": 1, "least": 3, "random": 3})
    text = words(one)
    assert "by their most memorized examples: 1 class has 10 with a score of at least 0.7." in text
    assert re.search(r"At layer2 the mean is \S+ nats for the least memorized examples\.", text)
    assert np.isnan(metrics_of(one).at("layer1", "memorization", "subset", "most", "kl_mean").value)
    none = with_subsets(few, divergence={}, n_classes=dict.fromkeys(("most", "least", "random"), 0))
    text = words(none)
    assert "by their random examples: 0 classes have 10 with a score." in text
    assert "KL divergence between densities fitted" not in text and "<td>least memorized" not in page(none)
