"""The findings: what the sentences say follows from the numbers."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from fastdens.analysis import roc_auc_standard_error
from fastdens.pipeline.results import Analysis
from fastdens.report import metrics_of
from tests.report.analysis_problem import CLASSES, analysis_problem
from tests.report.test_page import ACTIVATIONS_ALONE, page

FOUR = ("a", "b", "c", "d")


def findings(analysis: Analysis) -> dict[str, str]:
    """The sentences by what their links are called."""
    listed = re.search(r'<ul class="findings">(.*?)</ul>', page(analysis), re.S)[1]
    items = re.findall(r'<li><a href="#\w+">(.*?)</a>: (.*?)</li>', listed, re.S)
    return {name: " ".join(html.unescape(re.sub("<[^>]+>", "", text)).split()) for name, text in items}


def with_groups(analysis, *n_below):
    """The analysis with so many classes below the line at each layer, none for one group."""
    layers = []
    for layer, n in zip(analysis.layers, n_below, strict=True):
        group = (np.arange(len(layer.classes.mean)) >= n).astype(np.int64) * (n > 0)
        line = -7.25 if n else np.nan
        intervals = layer.intervals._replace(line_low=line - 1, line_high=line + 1)
        modes = layer.modes._replace(n_groups=1 + (n > 0), line=line, group=group, pvalue=0.5 - 0.1 * len(layers))
        layers.append(replace(layer, modes=modes, intervals=intervals))
    return replace(analysis, layers=tuple(layers))


@pytest.mark.parametrize("density", ["dp", "gmm"])
@pytest.mark.parametrize("without", [(), ACTIVATIONS_ALONE, ("memorization",), ("robustness", "seed_agreement")])
def test_there_are_at_most_eight_of_one_sentence_each(rng, density, without):
    found = findings(analysis_problem(rng, layer_names=FOUR, density=density, without=without))
    assert 2 <= len(found) <= 8
    for sentence in found.values():
        assert sentence[0].isupper() and sentence.endswith(".") and not re.search(r"[.?] [A-Z]| [.,;]|\(\)", sentence)
    assert ("This analysis does not say" in found.get("Not known", "")) == bool(without)


def test_groups_are_those_of_the_layers_and_planted_classes_among_them(rng):
    analysis = with_groups(analysis_problem(rng, layer_names=FOUR), 0, 0, 3, 2)
    tailed = replace(analysis.examples, long_tailed=np.array([True, False, False, False, True]))
    assert findings(replace(analysis, examples=tailed))["Groups of classes"] == (
        "The network fits its 5 classes in two ways: at c the examples of 2 classes lie densely and those of 3 "
        "sparsely, at d those of 3 and 2 (line at a mean log-density of -7.25 [-8.25, -6.25] nats), with 1 of the 2 "
        "classes planted with a long tail among the sparse ones, while at a and b the classes are one group."
    )
    metrics = metrics_of(replace(analysis, examples=tailed))
    assert metrics["d.findings.n_sparse"].value == 2 and metrics["d.long_tail.n_sparse_long_tailed"].value == 1
    everywhere = with_groups(analysis_problem(rng, without=("long_tailed",)), 1, 1)
    assert findings(everywhere)["Groups of classes"].endswith("nats), and no layer has all classes in one group.")


def test_one_group_is_said_to_be_one_with_the_smallest_pvalue(rng):
    alike = with_groups(analysis_problem(rng, without=("long_tailed",)), 0, 0)
    assert findings(alike)["Groups of classes"] == (
        "The network fits its 5 classes alike: at none of its layers do their mean log-densities fall into two groups "
        "(smallest p-value 0.4, at layer2)."
    )
    untested = replace(
        alike, layers=tuple(replace(own, modes=own.modes._replace(pvalue=np.nan)) for own in alike.layers)
    )
    assert "5 are too few to tell one group from two." in findings(untested)["Groups of classes"]


def test_of_many_layers_the_last_are_named(rng):
    names = [f"block{k}" for k in range(16)]
    sentence = findings(with_groups(analysis_problem(rng, layer_names=names), *[0] * 8, *[2] * 8))["Groups of classes"]
    assert re.findall(r"block\d+", sentence) == names[10:]
    assert "at earlier layers there are two groups as well, while at the other layers" in sentence


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        (
            [[1, 0.5, 0], [0.5, 1, 0], [0, 0, np.nan]],
            "Of 3 networks trained from different seeds, 2 have two groups of classes at layer2, and the adjusted Rand "
            "index of their groups is 0.17 on average, from 0.00 to 0.50 over 3 pairs (1 is the same groups, 0 "
            "agreement by chance).",
        ),
        (
            [[1, 0], [0, np.nan]],
            "Of 2 networks trained from different seeds, 1 has two groups of classes at layer2, and the adjusted Rand "
            "index of their groups is 0.00 (1 is the same groups, 0 agreement by chance).",
        ),
        (
            np.full((2, 2), np.nan),
            "Each of the 2 networks trained from different seeds has one group of classes at every layer, so that "
            "there are no groups to compare.",
        ),
    ],
)
def test_seeds_agree_where_there_are_groups_to_compare(rng, agreement, expected):
    of_seeds = np.stack([np.full(np.shape(agreement), np.nan), agreement])
    analysis = replace(analysis_problem(rng), seed_agreement=of_seeds)
    assert findings(analysis)["Other seeds"] == expected
    pairs = np.asarray(agreement)[np.triu_indices(len(agreement), 1)]
    metrics = metrics_of(analysis)
    assert metrics["layer2.modes.n_seed_pairs"].value == np.isfinite(pairs).sum()
    np.testing.assert_allclose(metrics["layer2.modes.rand_index_of_seeds"].value, pairs.mean())
    assert np.isnan(metrics["layer1.modes.rand_index_of_seeds"].value)


def test_without_groups_no_layers_are_compared(rng):
    alike = replace(with_groups(analysis_problem(rng), 0, 0), layer_agreement=np.full((2, 2), np.nan))
    assert "between layers there are no groups to compare" in page(alike)
    figure = 'id="figure-split_agreement"'
    assert figure not in page(alike) and figure in page(analysis_problem(rng))


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (-20, "at layer2 a low log-density finds flipped labels (area under the ROC curve 1.00 ± 0.00, where"),
        (
            20,
            "at layer2 examples with a flipped label are the denser ones (area under the ROC curve 0.00 ± 0.00, where",
        ),
        (0, "at layer2 the log-density does not tell flipped labels from others beyond the errors (area under"),
    ],
)
def test_flipped_labels_are_found_or_not(rng, shift, expected):
    analysis = analysis_problem(rng)
    examples, layer = analysis.examples, analysis.layers[-1]
    # Without a shift the ranks alternate.
    density = np.empty(len(examples.labels))
    flipped = examples.flipped
    density[flipped], density[~flipped] = (
        np.linspace(-1, 1, kind.sum()) + shift * sign for kind, sign in ((flipped, 1), (~flipped, 0))
    )
    auc = float((density[flipped][:, None] < density[~flipped]).mean())
    analysis = replace(analysis, layers=(*analysis.layers[:-1], replace(layer, log_density=density, flipped_auc=auc)))
    sentence = findings(analysis)["Flipped labels"]
    fitted = examples.train_predicted[flipped] == examples.labels[flipped]
    error = np.sqrt(fitted.mean() * (1 - fitted.mean()) / len(fitted))
    assert f"gives the flipped label back for a share of {fitted.mean():.2f} ± {error:.2f}, and {expected}" in sentence
    error = metrics_of(analysis)["layer2.flipped_labels.auc"].standard_error
    assert error == roc_auc_standard_error(-density, flipped)


@pytest.mark.parametrize(
    ("middle", "decided", "expected"),
    [
        (0.6, True, "The best predictor of memorization at layer2 is the log-density: its rank correlation with the"),
        (
            -0.6,
            False,
            "but these data do not decide whether the relative entropy predicts it as well: the lead is 0.30",
        ),
        (0.1, True, "none is seen to go with memorization at layer2: the strongest rank correlation with the score, "),
    ],
)
def test_the_best_predictor_is_named_if_it_is_one(rng, middle, decided, expected):
    analysis = analysis_problem(rng)
    own = analysis.memorization.predictors["layer2"]
    value = np.array([middle, 0.0, 0.0])
    changed = replace(own, rho=type(own.rho)(value, value - 0.2, value + 0.2), decided=decided)
    memorization = replace(analysis.memorization, predictors=analysis.memorization.predictors | {"layer2": changed})
    sentence = findings(replace(analysis, memorization=memorization))["Memorization"]
    assert expected in sentence and f"{middle:.2f} [{middle - 0.2:.2f}, {middle + 0.2:.2f}]" in sentence


def test_the_label_arises_where_f1_has_nine_tenths_of_the_last(rng):
    analysis = analysis_problem(rng, layer_names=FOUR)

    def with_f1(found, f1, accuracy=0.9):
        return tuple(
            own._replace(f1=value, f1_standard_error=0.01, accuracy=accuracy, accuracy_standard_error=0.01)
            for own, value in zip(found, f1, strict=True)
        )

    subsets = analysis.memorization.subsets
    of_subsets = subsets.classification | {
        "least": with_f1(subsets.classification["least"], (0.2, 0.82, 0.5, 0.9)),
        "most": with_f1(subsets.classification["most"], (0.1, 0.2, 0.3, 0.6)),
    }

    def said(classification):
        own = replace(analysis.memorization, subsets=replace(subsets, classification=classification))
        changed = replace(analysis, memorization=own)
        return findings(changed)["Label"], metrics_of(changed)

    sentence, metrics = said(of_subsets)
    assert sentence.endswith(
        "with nine tenths of their F1 at d, arises at b for typical examples (F1 0.82 ± 0.01) and at d for the most "
        "memorized ones (F1 0.60 ± 0.01)."
    )
    assert [metrics[f"findings.subset.{name}.label_layer"].value for name in ("least", "most")] == [2, 4]
    chance = {"most": with_f1(subsets.classification["most"], (0.1, 0.2, 0.2, 0.2), accuracy=1 / len(CLASSES))}
    sentence, metrics = said(of_subsets | chance)
    assert "and at no layer for the most memorized ones, whose classification is no better than chance" in sentence
    assert np.isnan(metrics["findings.subset.most.label_layer"].value)


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0.1, 0.9, "Dense examples are more robust: the mean certified radius is 0.9"),
        (0.9, 0.1, "Dense examples are less robust: the mean certified radius is 0.1"),
        (0.5, 0.5, "Dense and sparse examples do not differ in robustness beyond the errors: the mean certified"),
    ],
)
def test_robustness_differs_beyond_the_errors_or_not(rng, least, most, expected):
    analysis = analysis_problem(rng)
    robustness = analysis.robustness
    radius = np.where(robustness.bin == 0, least, most)
    # Each bin has twelve examples, half of them above its mean.
    for b in range(2):
        radius[robustness.bin == b] += np.tile([-0.05, 0.05], 6)
    analysis = replace(analysis, robustness=replace(robustness, radius=radius))
    assert findings(analysis)["Robustness"].startswith(expected)
    difference = metrics_of(analysis)["layer2.findings.radius_difference"]
    reach = 1.96 * np.sqrt(2) * 0.05 * np.sqrt(12 / 11) / np.sqrt(12)
    assert difference.value == pytest.approx(most - least)
    assert (difference.low, difference.high) == pytest.approx((most - least - reach, most - least + reach))


def test_what_is_not_known_is_said_with_its_reason(rng):
    sentence = findings(analysis_problem(rng, without=ACTIVATIONS_ALONE))["Not known"]
    for gap in (
        "how memorization goes with density, as there are no memorization scores",
        "where the label arises, as there are neither test examples nor memorization scores",
        "how robust examples of each density are, as there are no images to train networks on",
        "whether networks of other seeds split the classes alike, as there is one network",
    ):
        assert gap in sentence
    untried = findings(analysis_problem(rng, without=("robustness",)))["Not known"]
    assert untried == (
        "This analysis does not say how robust examples of each density are, as no networks were trained without a "
        "density bin."
    )
