"""The analysis as a library: what was planted is found, and nothing needs a network."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, roc_auc_score

from fastdens.analysis.figures import plot_class_log_density
from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, OptionError, analyze
from tests.pipeline.planted_groups import N_CLASSES, N_DENSE, planted_groups

QUICK = {"density": "gmm", "components": 1, "entropy_draws": 200, "divergence_draws": 50}


@pytest.fixture(scope="module")
def planted():
    return planted_groups()


@pytest.fixture(scope="module")
def data(planted):
    return AnalysisData.from_activations(
        planted.train.activations,
        planted.test.activations,
        planted.scores,
        labels=planted.train.labels,
        test_labels=planted.test.labels,
        flipped=planted.train.flipped,
    )


@pytest.fixture(scope="module")
def analysis(data):
    return analyze(data, AnalysisOptions(**QUICK), progress=False)


@pytest.mark.slow
def test_arrays_become_an_analysis_a_figure_of_ones_own_and_a_folder(planted, tmp_path):
    train, test = planted.train, planted.test
    data = AnalysisData.from_activations(
        train.activations, test.activations, planted.scores, labels=train.labels, test_labels=test.labels
    )
    analysis = analyze(
        data, AnalysisOptions(sweeps=80, chains=2, entropy_draws=50, divergence_draws=20), progress=False
    )
    layer = analysis.layer("deep")
    assert layer.held_out.accuracy > 0.9 and layer.chains.n_components.shape[1:] == (2, 4)
    analysis.save(tmp_path / "analysis")
    loaded = Analysis.load(tmp_path / "analysis")
    axes = Figure().subplots()
    plot_class_log_density(axes, loaded.layer("deep").classes, loaded.layer("deep").modes, loaded.examples.class_names)
    assert axes.has_data()


@pytest.mark.slow
def test_the_planted_groups_are_found_at_the_layer_that_was_made_of_them(analysis):
    assert analysis.layer_names == ("first", "deep")
    assert analysis.layer("first").modes.n_groups == 1
    deep = analysis.layer("deep")
    assert deep.modes.n_groups == 2
    assert deep.modes.group.tolist() == [1] * N_DENSE + [0] * (N_CLASSES - N_DENSE)
    np.testing.assert_array_equal(analysis.layer_agreement, [[np.nan, 0], [0, 1]])
    assert analysis.seed_agreement is None and analysis.robustness is None and analysis.pictures is None


def test_the_planted_flips_are_found_by_density_and_by_score(analysis, planted):
    deep, flipped = analysis.layer("deep"), planted.train.flipped
    expected = roc_auc_score(flipped, -deep.log_density)
    assert deep.flipped_auc == pytest.approx(expected) and expected > 0.9
    assert analysis.memorization.flipped_auc == pytest.approx(roc_auc_score(flipped, planted.scores))
    assert np.isnan(deep.long_tailed_auc)


def test_numbers_follow_from_the_activations(analysis, planted):
    deep, labels = analysis.layer("deep"), planted.train.labels
    own = planted.train.activations["deep"][labels == 4]
    assert deep.distance.value[4] == pytest.approx(pdist(own).mean(), rel=1e-4)
    assert deep.n_features == deep.n_dimensions == 5 and deep.explained == pytest.approx(1)
    assert deep.classes.mean[3] == pytest.approx(deep.log_density[labels == 3].mean())
    predicted = deep.held_out.predicted
    assert deep.held_out.accuracy == (predicted == planted.test.labels).mean() > 0.99
    assert deep.held_out.f1 == pytest.approx(f1_score(planted.test.labels, predicted, average="weighted"))
    assert analysis.layer("first").held_out.accuracy < 0.2


def test_memorized_examples_are_sparse_and_not_recognized(analysis, planted):
    memorization, deep = analysis.memorization, analysis.layer("deep")
    rho = memorization.correlations.spearman
    expected = spearmanr(planted.scores, deep.log_density)[0]
    assert np.ravel(getattr(rho, "value", rho))[1] == pytest.approx(expected)
    at = analysis.layer_names.index("deep")
    f1 = {name: of_layers[at].f1 for name, of_layers in memorization.subsets.classification.items()}
    assert f1["most"] < 0.3 and f1["least"] > 0.95
    assert memorization.predictors["deep"].best == "log-density"
    assert memorization.subsets.divergence["random"][at].value.shape == (N_CLASSES, N_CLASSES)


def test_layers_are_told_one_by_one(data):
    seen = []
    analysis = analyze(data, AnalysisOptions(**QUICK), progress=False, on_layer=lambda layer: seen.append(layer.name))
    assert seen == ["first", "deep"] == list(analysis.layer_names)


def test_options_of_the_result_leave_nothing_open(analysis):
    assert analysis.options.device in ("cpu", "cuda")
    assert analysis.options.as_json()["sweeps"] is None and analysis.options.as_json()["components"] == 1


@pytest.mark.parametrize("options", [{"bins": 2}, {"memorization_networks": 3}])
def test_networks_need_images(data, options):
    with pytest.raises(OptionError, match=f"{next(iter(options))} asks for networks to be trained, but .* no images"):
        analyze(data, AnalysisOptions(**options), progress=False)


def test_a_small_class_is_named_before_anything_is_fitted(planted):
    labels = planted.train.labels.copy()
    labels[:3] = N_CLASSES
    data = AnalysisData.from_activations(planted.train.activations, labels=labels)
    with pytest.raises(
        ValueError, match="class '24' has 3 training examples in train, but the analysis needs at least 16"
    ):
        analyze(data, AnalysisOptions(**QUICK), progress=False)


def test_dimensions_are_one_or_one_for_each_layer(data):
    with pytest.raises(OptionError, match="dimensions has 3 numbers, but there are 2 layers, first, deep"):
        analyze(data, AnalysisOptions(dimensions=(2, 2, 2)), progress=False)
    one = analyze(data, AnalysisOptions(**QUICK, dimensions=(2,)), progress=False)
    assert [layer.n_dimensions for layer in one.layers] == [2, 2]
