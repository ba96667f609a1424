"""Classes of a long tail: how well a low mean log-density finds them, and whether the sparse group is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fastdens.pipeline.results import Analysis
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section


def applies(analysis: Analysis) -> bool:
    """Whether classes are known to come from a long tail."""
    return analysis.examples.long_tailed is not None and bool(analysis.examples.long_tailed.any())


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Area under the ROC curve, the sparse group, mean log-density of both kinds of classes, and which they are."""
    tailed = analysis.examples.long_tailed
    if tailed is None:
        return
    of_analysis = section_scope("long_tail")
    yield of_analysis("n_classes", "long-tailed classes", int(tailed.sum()))
    for layer in analysis.layers:
        of_layer, mean = section_scope("long_tail", layer.name), layer.classes.mean
        yield of_layer("auc", "long-tailed AUC", layer.long_tailed_auc)
        sparse = (layer.modes.group == 0) & (layer.modes.n_groups == 2)
        yield of_layer("n_sparse", "sparsely fitted classes", int(sparse.sum()))
        yield of_layer("n_sparse_long_tailed", "sparsely fitted classes, long-tailed", int((sparse & tailed).sum()))
        yield of_layer("log_density", "mean class log-density, long-tailed", mean[tailed].mean())
        yield of_layer("log_density_of_others", "mean class log-density, others", mean[~tailed].mean())
    for name, is_tailed in zip(analysis.examples.class_names, tailed, strict=True):
        yield of_analysis.of_class(name)("is_long_tailed", "class long-tailed", int(is_tailed))


def context(analysis: Analysis) -> Mapping[str, object]:
    """The layer that finds these classes best, and those with a sparse group."""
    # Of layers that look alike on the page, the last.
    areas = np.nan_to_num([round(layer.long_tailed_auc, 3) for layer in analysis.layers])
    best = int(np.flatnonzero(areas == areas.max())[-1])
    with_groups = [layer.name for layer in analysis.layers if layer.modes.n_groups == 2]
    return {"best": analysis.layer_names[best], "with_groups": with_groups}


SECTION = Section("long_tail", "Classes of a long tail", applies, metrics, context=context)
