"""Functions of the analysis, the projection and partitions, given arrays and options of every kind."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fastdens as fd
from fastdens import activations, analysis, convergence, partitions
from tests.contract import floating_parts, outcome
from tests.generated.strategies import arrays, choices_or_not, floats_or_not, integers_or_not, labels, length_of

VECTORS = [(24,), (24,), (24,), (24,), (12,), (2,), (1,), (0,), (24, 3), ()]
MATRICES = [(24, 3), (24, 3), (24, 3), (12, 2), (3, 8), (1, 2), (0, 2), (24, 0), (24,)]
SEED = st.sampled_from([0, 0, 0, 1, -1, 1.5, None, "x", 2**70, True, np.int64(3)])


def functions(values, other, matrix, y, number, real, seed, choice):
    """Calls of one function of the analysis each."""
    few = {"n_resamples": 5, "random_state": seed}
    return {
        "class_log_density": lambda: analysis.class_log_density(values, y),
        "class_log_density of all": lambda: analysis.class_log_density(matrix, y),
        "density_bins": lambda: analysis.density_bins(values, number, y),
        "neighbour_distance": lambda: analysis.neighbour_distance(matrix, y, number),
        "neighbour_distance of all": lambda: analysis.neighbour_distance(matrix, y, 2, within_class=False),
        "generative_classification": lambda: analysis.generative_classification(matrix, y),
        "find_modes": lambda: analysis.find_modes(values, seed),
        "mode_intervals": lambda: analysis.mode_intervals(values, y, confidence=real, **few),
        "correlate": lambda: analysis.correlate(other, {"a": values, "b": matrix}, y, **few),
        "correlate one": lambda: analysis.correlate(other, values, y, confidence=real, n_resamples=number),
        "compare_predictors": lambda: analysis.compare_predictors(other, {"a": values, "b": other}, y, **few),
        "memorization_scores": lambda: analysis.memorization_scores(matrix, matrix),
        "memorization_subsets": lambda: analysis.memorization_subsets(values, y, number, random_state=seed),
        "global_subsets": lambda: analysis.global_subsets(values, number, random_state=seed),
        "threshold_subsets": lambda: analysis.threshold_subsets(values, y, number, low=real, high=0.7),
        "roc_auc": lambda: analysis.roc_auc(values, other),
        "roc_auc_standard_error": lambda: analysis.roc_auc_standard_error(values, y),
        "holm": lambda: analysis.holm(values),
        "rank_agreement": lambda: analysis.rank_agreement(values, other, y, random_state=seed),
        "compare_splits": lambda: analysis.compare_splits(values, y),
        "accuracy_difference": lambda: analysis.accuracy_difference(values, other, paired=bool(seed), confidence=real),
        "summarize_scores": lambda: analysis.summarize_scores(values, y, n_top=number, high=real),
        "split_agreement": lambda: analysis.split_agreement([values, other]),
        "mean_pairwise_distance": lambda: analysis.mean_pairwise_distance(fd.RaggedBatch.from_labels(matrix, y)),
        "split_rhat": lambda: convergence.split_rhat(matrix),
        "rank_normalised_rhat": lambda: convergence.rank_normalised_rhat(matrix),
        "effective_sample_size": lambda: convergence.effective_sample_size(matrix),
        "tail_effective_sample_size": lambda: convergence.tail_effective_sample_size(matrix),
        "rhat_threshold": lambda: convergence.rhat_threshold(number, number),
        "co_clustering": lambda: partitions.co_clustering(matrix),
        "variation_of_information": lambda: partitions.variation_of_information(values, other),
        "binder_loss": lambda: partitions.binder_loss(matrix, values),
        "number_of_clusters": lambda: partitions.number_of_clusters(values),
        "credible_ball": lambda: partitions.credible_ball(matrix, values, real, choice),
        "point_estimate": lambda: partitions.point_estimate(matrix, choice, number),
        "ClassLayerModels": lambda: fd.ClassLayerModels({"a": values}, {"a": matrix}),
    }


NAMES = sorted(functions(*[None] * 8))
# What is NaN where a share or a spread of nothing is asked for, as its documentation says.
EMPTY = {"class_log_density", "class_log_density of all", "memorization_scores", "neighbour_distance", "roc_auc"}
EMPTY |= {"roc_auc_standard_error", "mean_pairwise_distance", "split_agreement", "compare_splits", "find_modes"}
EMPTY |= {"mode_intervals", "correlate", "correlate one", "compare_predictors", "generative_classification"}
EMPTY |= {"split_rhat", "rank_normalised_rhat", "effective_sample_size", "tail_effective_sample_size"}
EMPTY |= {"summarize_scores", "rank_agreement", "accuracy_difference", "neighbour_distance of all"}


@given(st.sampled_from(NAMES), arrays(VECTORS), arrays(VECTORS), arrays(MATRICES), st.data())
def test_functions_of_the_analysis(name, values, other, matrix, data):
    y = data.draw(labels(length_of(values.given)))
    number, real = data.draw(integers_or_not()), data.draw(floats_or_not())
    choice = data.draw(choices_or_not("vi", "binder"))
    calls = functions(values.given, other.given, matrix.given, y, number, real, data.draw(SEED), choice)
    found, _ = outcome(calls[name])
    if found is not None and name not in EMPTY:
        assert not any(bool(part.isnan().any()) for part in floating_parts(found)), "NaN without a word"


@given(arrays(MATRICES), arrays(MATRICES), integers_or_not())
def test_projections(points, others, n_components):
    svd = fd.reduction.UncentredSVD(n_components)
    found, _ = outcome(lambda: svd.fit(points.given))
    if found is None:
        return
    assert points.numbers is None or bool(np.isfinite(points.numbers).all()), "a projection of what is not finite"
    for part in floating_parts((svd.components_, svd.explained_energy_ratio_, svd.singular_values_)):
        assert not bool(part.isnan().any())
    k = len(svd.components_)
    gram = svd.components_.double() @ svd.components_.double().mT
    torch.testing.assert_close(gram, torch.eye(k, dtype=torch.float64), atol=1e-4, rtol=0)
    assert bool((svd.singular_values_.diff() <= 0).all()) or k == 1
    outcome(lambda: svd.transform(others.given))


@given(arrays([(4, 3), (4, 3), (4, 5), (0, 3), (4,), (4, 3, 2, 2)]), st.data())
def test_activations_of_inputs_of_every_kind(inputs, data):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    layers = data.draw(st.sampled_from([["0"], ["0", "1"], ["2"], [], "0", None, [0], ["0", "0"], [""], {"0"}]))
    pool = data.draw(choices_or_not("avg", "max"))
    batch = inputs.given.detach() if isinstance(inputs.given, torch.Tensor) else inputs.given
    loader = data.draw(st.sampled_from([[batch], [batch, batch], [(batch, [0] * 4)], batch, [], None, [{"x": batch}]]))
    try:
        found = activations.extract(model, loader, layers, pool, progress=False)
    except Exception:
        # What a network or a loader of the user's own raises is theirs.
        return
    for name, features in found.features.items():
        assert features.ndim == 2, name
        if inputs.numbers is not None and np.abs(inputs.numbers).max(initial=0) < 1e30:
            assert not math.isnan(float(features.sum()))
