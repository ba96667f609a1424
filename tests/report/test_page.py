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
        agreeing = int(((layer.chains.rhat <= 1.1) & (layer.chains.effective_sample_size >= 4)).sum())
        assert f"At {layer.name} the chains of {agreeing} of {len(CLASSES)} classes agree" in words(sampled)
    assert "Dirichlet" not in words(fitted) and "chains of" not in words(fitted) and "BIC over all" in words(fitted)
    assert not any("rhat" in id for id in metrics_of(fitted))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 1.0])
def test_flipped_labels_are_said_to_be_memorized_only_if_the_network_gives_them_back(rng, share):
    analysis = analysis_problem(rng)
    examples = analysis.examples
    given_back = np.flatnonzero(examples.flipped)
    given_back = given_back[: round(share * len(given_back))]
    predicted = examples.true_labels.copy()
    predicted[given_back] = examples.labels[given_back]
    text = words(replace(analysis, examples=replace(examples, train_predicted=predicted)))
    found = re.escape(f"for a share of {len(given_back) / examples.flipped.sum():.3f} ± ")
    assert re.search(
        rf"{found}[\d.]+: it has {'' if share > 0.5 else 'not '}memorized most of the flipped labels\.", text
    )


def with_chains(analysis, **parts):
    """The analysis with other chains at every layer."""
    layers = [replace(layer, chains=replace(layer.chains, **parts)) for layer in analysis.layers]
    return replace(analysis, layers=tuple(layers))


@pytest.mark.parametrize(
    ("rhat", "size", "n_agreeing", "shown_limit", "expected"),
    [
        (
            (1.0, 1.3149, np.inf, 1.1, 1.02),
            (40, 12.4, 2, 39.2, 90),
            3,
            "1.10",
            "; these do not: 2 (R-hat ∞, 2.0 effective draws), 1 (R-hat 1.31, 12.4 effective draws).",
        ),
        # Numbers that look like a limit when they are rounded have more decimals.
        (
            (1.1004, 1.0, 1.0, 1.0, 1.0),
            (40, 38.96, 50, 50, 50),
            3,
            "1.1000",
            "; these do not: 0 (R-hat 1.1004, 40.00 effective draws), 1 (R-hat 1.0000, 38.96 effective draws).",
        ),
        (
            (1.0, 1.0, 1.0, 1.0, 1.25),
            (40, 40, 40, 40, 40),
            4,
            "1.10",
            "; this one does not: 4 (R-hat 1.25, 40.0 effective draws).",
        ),
        ((1.0, 1.0, 1.0, 1.0, 1.0), (40, 40, 40, 40, 40), 5, "1.10", "."),
    ],
)
def test_classes_whose_chains_do_not_agree_are_named_the_worst_first(
    rng, rhat, size, n_agreeing, shown_limit, expected
):
    rhat, size = np.array(rhat), np.array(size, dtype=float)
    parts = {"rhat": rhat, "effective_sample_size": size, "agree": (rhat <= 1.1) & (size >= 39)}
    analysis = with_chains(analysis_problem(rng), **parts, min_effective_sample_size=39.0)
    text = words(analysis)
    limits = f"(rank-normalised R-hat of at most {shown_limit} and at least 39 effective draws)"
    for layer in LAYERS:
        assert f"At {layer} the chains of {n_agreeing} of 5 classes agree {limits}{expected}" in text


def test_ten_classes_are_named_and_the_others_counted(rng):
    names = [f"c{k}" for k in range(13)]
    rhat = 1.2 + 0.01 * rng.permutation(13)
    analysis = analysis_problem(rng, class_names=names)
    text = words(with_chains(analysis, rhat=rhat, agree=np.zeros(13, dtype=bool)))
    sentence = text.partition("At layer1 the chains of 0 of 13 classes agree")[2].partition(" At layer2 ")[0]
    assert re.findall(r"(c\d+) \(R-hat", sentence) == [names[c] for c in np.argsort(-rhat)[:10]]
    assert sentence.endswith("effective draws), and 3 more.")


def test_a_single_chain_agrees_with_itself_at_most(rng):
    analysis = analysis_problem(rng)
    one = {"log_joint": rng.normal(size=(5, 1, 4)), "n_components": np.ones((5, 1, 4), np.int32)}
    text = words(with_chains(replace(analysis, options=replace(analysis.options, chains=1)), **one))
    assert "At layer1 the two halves of the chain of " in text and "There is one chain for each class" in text
    assert "Where chains disagree" not in text and "with 1 chain of 80 sweeps for each class" in text
    assert "A chain starts from one component;" in text and "one chain for each" not in words(analysis)


def test_no_effective_draws_are_spoken_of_where_none_are_asked_for(rng):
    text = words(with_chains(analysis_problem(rng), min_effective_sample_size=0.0))
    assert "(rank-normalised R-hat of at most 1.10)" in text and "at least" not in text.partition("Do the chains")[2]


def test_sweeps_are_a_range_where_classes_differ(rng):
    analysis = analysis_problem(rng)
    apart = words(with_chains(analysis, n_sweeps=np.array([80, 112, 80, 176, 80])))
    assert "went on: at layer1 a chain made 80 to 176 sweeps, at layer2 a chain made 80 to 176 sweeps." in apart
    alike = words(with_chains(analysis, n_sweeps=np.full(5, 80)))
    assert "Every chain made 80 sweeps." in alike and "went on:" not in alike


def test_accepted_moves_are_shares_of_those_that_were_proposed(rng):
    analysis = analysis_problem(rng)
    text = words(analysis)
    assert "moves were proposed that split a component" in text and "share of merges accepted" in text
    still = with_chains(analysis, split_merge=np.zeros((5, 2, 4), np.int64))
    assert "moves were proposed" not in words(still) and "share of merges accepted" not in words(still)
    assert np.isnan(metrics_of(still)["layer1.components.split_acceptance"].value)


@pytest.mark.parametrize(
    ("options", "expected", "absent"),
    [
        (
            {"init": "random", "search": 0.0, "split_merge": 0.0},
            "80 sweeps for each class. A chain starts from 6 components, to which the examples are assigned at random; "
            "after the first 64 sweeps, one draw is kept every 4 sweeps. The density",
            "better start",
        ),
        (
            {"init": "kmeans"},
            "for each class and split-merge moves between them. A chain starts from 6 components, which k-means finds; "
            "the first 42 sweeps look for a good state from several starts; after the first 64 "
            "sweeps",
            "start from different",
        ),
        ({"stop": "converged"}, "replace those before; no chain makes more than 800 sweeps.", "start alike"),
        ({"stop": "converged", "max_sweeps": 300}, "no chain makes more than 300 sweeps.", "start alike"),
    ],
)
def test_the_setting_says_how_chains_start_and_stop(rng, options, expected, absent):
    analysis = analysis_problem(rng)
    text = words(replace(analysis, options=replace(analysis.options, **options)))
    assert expected in text and absent not in text
    assert ("All chains of a class start alike" in text) == ("init" in options)


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
    assert len(expected) == len(LAYERS) * len(CLASSES) * (13 if density == "dp" else 7)
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


def with_sparse(analysis, sparse):
    """The analysis with these classes as the sparse group of its last layer, and one group at the others."""
    groups = [np.zeros(len(CLASSES), np.int64)] * (len(analysis.layers) - 1) + [1 - np.array(sparse)]
    layers = [
        replace(layer, modes=layer.modes._replace(n_groups=1 + int(group.any()), group=group))
        for layer, group in zip(analysis.layers, groups, strict=True)
    ]
    return replace(analysis, layers=tuple(layers))


def test_sparse_classes_are_compared_with_the_planted_ones(rng):
    analysis = analysis_problem(rng)
    tailed = rng.permutation(len(CLASSES)) < 2
    analysis = replace(analysis, examples=replace(analysis.examples, long_tailed=tailed))
    sparse = np.array([True, *(rng.random(len(CLASSES) - 2) < 0.5), False])
    split, metrics = with_sparse(analysis, sparse), metrics_of(with_sparse(analysis, sparse))
    both = sum(a and b for a, b in zip(sparse, tailed, strict=True))
    last = LAYERS[-1]
    assert (metrics.at(last, "long_tail", "n_sparse").value, both) == (
        sparse.sum(),
        metrics.at(last, "long_tail", "n_sparse_long_tailed").value,
    )
    text = words(split)
    assert f"Of {len(CLASSES)} classes 2 were planted with a long tail" in text
    assert f"At {last} {both} of the {sparse.sum()} sparsely fitted classes are such classes." in text
    one_group = with_sparse(analysis, np.ones(len(CLASSES), int))
    assert "No layer splits the classes into two groups." in words(one_group)
    assert metrics_of(one_group).at(LAYERS[0], "long_tail", "n_sparse").value == 0


def test_a_page_says_that_nothing_was_planted(rng):
    analysis = analysis_problem(rng)
    nothing = replace(analysis, examples=replace(analysis.examples, long_tailed=np.zeros(len(CLASSES), bool)))
    assert "None of the classes was planted with a long tail" in words(nothing)
    unknown = replace(analysis, examples=replace(analysis.examples, long_tailed=None))
    for known in (analysis, unknown):
        assert "None of the classes was planted" not in words(known)
