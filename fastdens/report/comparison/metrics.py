"""Numbers of a comparison; their identifiers are built like those of a report.

Layers are called as in A. What belongs to one of the two analyses has the kind ``analysis`` and the name ``a`` or
``b``: ``layer4.modes.class.7.analysis.b.log_density``.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastdens.analysis import Interval, RankAgreement
from fastdens.pipeline.comparison import ComparedLayer, Comparison, LayerComparison
from fastdens.report.metrics import Metric, Metrics, Scope, section_scope

GROUPS = ("sparse", "dense")


def comparison_metrics(comparison: Comparison) -> Metrics:
    """All numbers of a comparison.

    Parameters
    ----------
    comparison : Comparison
        As :func:`fastdens.pipeline.compare` returned it.

    Returns
    -------
    Metrics
        Every number of its page.

    Raises
    ------
    ValueError
        If two layers or two classes have the same name.
    """
    return Metrics(_metrics(comparison))


def _metrics(comparison: Comparison) -> Iterator[Metric]:
    of_both = section_scope("setting")
    yield of_both("n_classes", "classes in both", len(comparison.class_names))
    for key, accuracy in zip("ab", comparison.test_accuracy, strict=True):
        if accuracy is not None:
            yield _of(of_both, key)("test_accuracy", "network test accuracy", accuracy)
    if comparison.test_accuracy_difference is not None:
        yield _interval(
            of_both,
            "test_accuracy_difference",
            "network test accuracy of B less that of A",
            comparison.test_accuracy_difference,
        )
    for layer in comparison.layers:
        yield from _layer_metrics(comparison, layer)
    if comparison.memorization is not None:
        yield from _agreement(section_scope("memorization"), "", "of memorization scores", comparison.memorization)


def _layer_metrics(comparison: Comparison, layer: LayerComparison) -> Iterator[Metric]:
    modes, divergences = (section_scope(section, layer.a.name) for section in ("modes", "divergences"))
    yield from _agreement(modes, "class_", "of class log-densities", layer.classes)
    if layer.examples is not None:
        yield from _agreement(modes, "example_", "of log-densities of examples", layer.examples)
    yield from _agreement(divergences, "entropy_", "of relative entropies of classes", layer.relative_entropy)
    for key, own in (("a", layer.a), ("b", layer.b)):
        yield from _own_metrics(layer.a.name, key, own)
    yield modes("rand_index", "adjusted Rand index of groups", layer.splits.rand_index)
    if layer.splits.comparable:
        yield modes("n_changed", "classes in another group", len(layer.changed))
        for i, one in enumerate(GROUPS):
            for j, other in enumerate(GROUPS):
                of_cell = modes.of_group("groups", f"{one}_{other}", f"{one} in A, {other} in B")
                yield of_cell("n_classes", "classes by their groups", layer.splits.counts[i, j])
    for c, name in enumerate(comparison.class_names):
        for key, own in (("a", layer.a), ("b", layer.b)):
            of_class = _of(modes.of_class(name), key)
            mean, low, high = own.mean[c], own.mean_low[c], own.mean_high[c]
            yield of_class("log_density", "class log-density", mean, low=low, high=high)
            yield of_class("group", "class group", own.group[c])
            value, error = own.relative_entropy.value[c], own.relative_entropy.standard_error[c]
            of_class = _of(divergences.of_class(name), key)
            yield of_class("relative_entropy", "class relative entropy", value, standard_error=error)


def _own_metrics(layer_name: str, key: str, own: ComparedLayer) -> Iterator[Metric]:
    """Numbers of one of the two layers."""
    yield _of(section_scope("modes", layer_name), key)("n_groups", "groups", own.n_groups)
    if own.accuracy is not None and own.accuracy_standard_error is not None:
        of_label = _of(section_scope("label", layer_name), key)
        yield of_label("accuracy", "accuracy by density", own.accuracy, standard_error=own.accuracy_standard_error)
    of_flips = _of(section_scope("flipped_labels", layer_name), key)
    yield of_flips("auc", "flipped AUC of low density", own.flipped_auc)


def _of(scope: Scope, key: str) -> Scope:
    """The scope of one of the two analyses, "a" or "b"."""
    return scope.of_group("analysis", key, key.upper())


def _agreement(scope: Scope, prefix: str, words: str, found: RankAgreement) -> Iterator[Metric]:
    yield scope(f"{prefix}n", f"number {words}", found.n)
    yield _interval(scope, f"{prefix}spearman", f"Spearman correlation {words}", found.spearman)
    yield _interval(scope, f"{prefix}kendall", f"Kendall correlation {words}", found.kendall)
    if found.spearman_within.value == found.spearman_within.value:
        yield _interval(
            scope, f"{prefix}spearman_within", f"Spearman correlation {words} within classes", found.spearman_within
        )


def _interval(scope: Scope, name: str, quantity: str, interval: Interval[float]) -> Metric:
    return scope(name, quantity, interval.value, low=interval.low, high=interval.high)
