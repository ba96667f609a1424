"""The examples that stand out, with their pictures, and the data by which a reader looks up others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastdens.pipeline.examples import Examples
from fastdens.pipeline.pictures import SHOWN, Extremes, extreme_examples
from fastdens.pipeline.results import Analysis
from fastdens.printable import printable
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section
from fastdens.report.thumbnails import thumbnail_sources

KINDS = {"least_dense": "Least dense", "most_dense": "Most dense", "most_memorized": "Most memorized"}

_MOST_NUMBERS = 100_000
"""The page embeds so many numbers for looking up examples, some 700 KB."""


@dataclass(frozen=True)
class Card:
    """What the page shows of an example: its number as in ``examples.csv``, its labels, and its picture if known."""

    example: int
    given: str
    true: str | None
    predicted: str | None
    flipped: bool
    picture: str | None

    @property
    def words(self) -> str:
        """The labels in words."""
        words = f"given label {self.given}"
        if self.flipped:
            words += f", flipped from {self.true}" if self.true is not None else ", flipped"
        return words if self.predicted is None else f"{words}, predicted {self.predicted}"


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Log-density at the last layer, and memorization score, of the examples that stand out."""
    layer = analysis.layers[-1]
    scores = None if analysis.memorization is None else analysis.memorization.scores
    for example in np.unique(np.concatenate(_extremes(analysis))).tolist():
        parts = ("example", str(example), f"example {example}")
        of_example = section_scope("examples", layer.name).of_group(*parts)
        yield of_example("log_density", "log-density of an example", layer.log_density[example])
        if scores is not None:
            value, error = scores.values[example], np.nan
            if scores.standard_error is not None and np.isfinite(value):
                error = scores.standard_error[example]
            of_example = section_scope("examples").of_group(*parts)
            yield of_example("score", "memorization score of an example", value, standard_error=error)


def _extremes(analysis: Analysis) -> Extremes:
    return extreme_examples(analysis.layers[-1].log_density, _scores(analysis), SHOWN)


def _scores(analysis: Analysis) -> NDArray[np.float64] | None:
    return None if analysis.memorization is None else analysis.memorization.scores.values


def context(analysis: Analysis) -> Mapping[str, object]:
    """Cards of the examples that stand out, and what the look-up needs."""
    sources = thumbnail_sources(analysis.pictures)
    embedded = _embedded(analysis)
    return {
        "kinds": [
            (title, [_card(analysis.examples, example, sources) for example in chosen.tolist()])
            for title, chosen in zip(KINDS.values(), _extremes(analysis), strict=True)
            if len(chosen)
        ],
        "lookup_json": _lookup_json(analysis, embedded, sources),
        "lookup_columns": _labels_of(analysis.examples).keys(),
        "complete": len(embedded) == len(analysis.examples.labels),
    }


def _card(examples: Examples, example: int, sources: Mapping[int, str]) -> Card:
    names = {column: examples.name_of(labels[example]) for column, labels in _labels_of(examples).items()}
    flipped = examples.flipped is not None and bool(examples.flipped[example])
    return Card(
        example,
        names["given label"],
        names.get("true label"),
        names.get("network's label"),
        flipped,
        sources.get(example),
    )


def _labels_of(examples: Examples) -> dict[str, NDArray[np.int64]]:
    """The labels of the training examples that are known, each int64 [N], by column."""
    columns = {
        "given label": examples.labels,
        "true label": examples.true_labels,
        "network's label": examples.train_predicted,
    }
    return {column: labels for column, labels in columns.items() if labels is not None}


def _embedded(analysis: Analysis) -> NDArray[np.int64]:
    """The examples that can be looked up: all, or those of each class that stand out most."""
    labels, n_classes = analysis.examples.labels, len(analysis.examples.class_names)
    most = _MOST_NUMBERS // (len(analysis.layers) + len(_labels_of(analysis.examples)) + 2)
    if len(labels) <= most:
        return np.arange(len(labels))
    of_kind = max(1, most // (len(KINDS) * n_classes))
    density, scores = analysis.layers[-1].log_density, _scores(analysis)
    chosen = [extreme_examples(density, scores, of_kind, np.flatnonzero(labels == c)) for c in range(n_classes)]
    return np.unique(np.concatenate([rows for extremes in chosen for rows in extremes]))


def _lookup_json(analysis: Analysis, embedded: NDArray[np.int64], sources: Mapping[int, str]) -> str:
    """The embedded examples as JSON that may stand in a script element: columns of labels and of rounded numbers."""
    examples = analysis.examples
    numbers = {
        f"log-density {printable(layer.name)}": _rounded(layer.log_density[embedded]) for layer in analysis.layers
    }
    scores = _scores(analysis)
    if scores is not None:
        numbers["memorization score"] = _rounded(scores[embedded])
    content = {
        "classes": [*map(printable, examples.class_names)],
        "examples": embedded.tolist(),
        "labels": {column: labels[embedded].tolist() for column, labels in _labels_of(examples).items()},
        "numbers": numbers,
        "pictures": sources,
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _rounded(values: NDArray[np.float64]) -> Sequence[float | None]:
    return [round(value, 3) if np.isfinite(value) else None for value in values.tolist()]


SECTION = Section("examples", "Examples that stand out", metrics=metrics, context=context)
