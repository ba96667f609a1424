"""Two analyses side by side: of two networks, two seeds, two densities or two protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import (
    Interval,
    RankAgreement,
    SplitComparison,
    accuracy_difference,
    compare_splits,
    rank_agreement,
)
from fastdens.pipeline.examples import Examples
from fastdens.pipeline.results import Analysis, Estimates, LayerAnalysis, Provenance


class OptionDifference(NamedTuple):
    """An option that two analyses were made with differently; None where one of them has no such option."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ComparedLayer:
    """One of two layers that are compared, its arrays restricted to the M common classes in the order of A.

    Attributes
    ----------
    name : str
    mean, mean_low, mean_high : ndarray
        float64 [M], mean log-density of each class and its 95% interval, in nats.
    n_groups : int
        Groups of all its classes.
    group : ndarray
        int64 [M], 0 the sparse group and 1 the dense one; all 0 where there is one group.
    relative_entropy : Estimates
        [M], in nats.
    accuracy, accuracy_standard_error : float or None
        Accuracy by density on the test examples of all its classes, None where there are none.
    flipped_auc : float
        Area under the ROC curve for finding flipped labels by low density; NaN where none are known.
    """

    name: str
    mean: NDArray[np.float64]
    mean_low: NDArray[np.float64]
    mean_high: NDArray[np.float64]
    n_groups: int
    group: NDArray[np.int64]
    relative_entropy: Estimates
    accuracy: float | None
    accuracy_standard_error: float | None
    flipped_auc: float


@dataclass(frozen=True)
class LayerComparison:
    """Comparison of a layer of A with a layer of B.

    Attributes
    ----------
    a, b : ComparedLayer
    classes : RankAgreement
        Of the mean log-densities of the classes.
    relative_entropy : RankAgreement
        Of the relative entropies of the classes.
    splits : SplitComparison
        Of the groups of the classes.
    changed : tuple of str
        Classes in another group in B than in A; empty where one of the two has a single group.
    examples : RankAgreement or None
        Of the log-densities of the training examples, None where these are not the same.
    """

    a: ComparedLayer
    b: ComparedLayer
    classes: RankAgreement
    relative_entropy: RankAgreement
    splits: SplitComparison
    changed: tuple[str, ...]
    examples: RankAgreement | None


@dataclass(frozen=True)
class Comparison:
    """Two analyses, A and B, side by side.

    Attributes
    ----------
    titles : (str, str)
        What A and B are called.
    subjects : (str, str)
        The networks and the data of A and B, as far as they are known.
    class_names : tuple of str
        The M classes that both have, in the order of A.
    only_a, only_b : tuple of str
        Classes that are in one of them and left out.
    layers : tuple of LayerComparison
    by_position : bool
        Whether layers were paired by their position, as none has the same name in both.
    unpaired_a, unpaired_b : tuple of str
        Layers that have no counterpart.
    different_examples : str or None
        Why the training examples are not the same, None where they are.
    memorization : RankAgreement or None
        Of the memorization scores of the training examples; None where they are not the same or one has no scores.
    test_accuracy : (float or None, float or None)
        Of the networks, on their own test examples.
    test_accuracy_difference : Interval of float or None
        That of B less that of A; None where one is unknown.
    same_tests : bool
        Whether the test examples are the same, which makes the interval of the difference narrower.
    options : tuple of OptionDifference
    """

    titles: tuple[str, str]
    subjects: tuple[str, str]
    class_names: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    layers: tuple[LayerComparison, ...]
    by_position: bool
    unpaired_a: tuple[str, ...]
    unpaired_b: tuple[str, ...]
    different_examples: str | None
    memorization: RankAgreement | None
    test_accuracy: tuple[float | None, float | None]
    test_accuracy_difference: Interval[float] | None
    same_tests: bool
    options: tuple[OptionDifference, ...]


def compare(a: Analysis, b: Analysis, titles: tuple[str, str] = ("A", "B"), *, random_state: int = 0) -> Comparison:
    """Compare two analyses: their classes by name, their layers by name or else by position.

    Training examples are compared where both analyses have as many, with the same labels in the same order: these are
    taken for the same examples.

    Parameters
    ----------
    a, b : Analysis
        As :func:`analyze` returned them or :meth:`Analysis.load` read them.
    titles : (str, str)
        What to call them.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Comparison
        Of the classes and the layers that both have.

    Raises
    ------
    ValueError
        If no class has the same name in both.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze, compare
    >>> labels = np.arange(160) % 4
    >>> def analysis(seed):
    ...     x = np.random.default_rng(seed).normal(size=(160, 4)) + labels[:, None]
    ...     options = AnalysisOptions(density="gmm", components=1, entropy_draws=1000, divergence_draws=1000)
    ...     return analyze(AnalysisData.from_activations({"layer4": x}, labels=labels), options, progress=False)
    >>> comparison = compare(analysis(0), analysis(1), titles=("one seed", "another"))
    >>> comparison.class_names
    ('0', '1', '2', '3')
    """
    names_a, names_b = a.examples.class_names, b.examples.class_names
    common = tuple(name for name in names_a if name in set(names_b))
    if not common:
        raise ValueError(
            f"no class has the same name in both: A has {_few(names_a)}, B has {_few(names_b)}; compare analyses of "
            "the same classes."
        )
    different = _different_examples(a.examples, b.examples)
    # Of the same examples, those of common classes: the classes of their labels are all common.
    labels = None if different else a.examples.labels
    pairs, by_position = _paired_layers(a.layer_names, b.layer_names)
    in_a, in_b = (np.array([names.index(name) for name in common]) for names in (names_a, names_b))
    layers = tuple(
        _compare_layers(a.layer(one), b.layer(other), common, (in_a, in_b), labels, random_state)
        for one, other in pairs
    )
    memorization = None
    if labels is not None and a.memorization is not None and b.memorization is not None:
        score_a, score_b = a.memorization.scores.values, b.memorization.scores.values
        memorization = rank_agreement(score_a, score_b, labels, random_state=random_state)
    same_tests = _same_labels(a.examples, b.examples, "test_labels")
    paired_a, paired_b = {one for one, _ in pairs}, {other for _, other in pairs}
    return Comparison(
        titles=titles,
        subjects=(_subject(a.provenance), _subject(b.provenance)),
        class_names=common,
        only_a=tuple(name for name in names_a if name not in common),
        only_b=tuple(name for name in names_b if name not in common),
        layers=layers,
        by_position=by_position,
        unpaired_a=tuple(name for name in a.layer_names if name not in paired_a),
        unpaired_b=tuple(name for name in b.layer_names if name not in paired_b),
        different_examples=different,
        memorization=memorization,
        test_accuracy=(a.examples.test_accuracy, b.examples.test_accuracy),
        test_accuracy_difference=_accuracy_difference(a.examples, b.examples, paired=same_tests),
        same_tests=same_tests,
        options=_different_options(a, b),
    )


def _subject(provenance: Provenance) -> str:
    """The network and the data, in words."""
    return provenance.name if provenance.network is None else f"{provenance.network} on {provenance.name}"


def _compare_layers(
    a: LayerAnalysis,
    b: LayerAnalysis,
    class_names: Sequence[str],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: NDArray[np.int64] | None,
    random_state: int,
) -> LayerComparison:
    one, other = (_restricted(layer, own) for layer, own in zip((a, b), rows, strict=True))
    splits = compare_splits(one.group, other.group)
    moved = one.group != other.group if splits.comparable else np.zeros(len(class_names), bool)
    return LayerComparison(
        a=one,
        b=other,
        classes=rank_agreement(one.mean, other.mean, random_state=random_state),
        relative_entropy=rank_agreement(
            one.relative_entropy.value, other.relative_entropy.value, random_state=random_state
        ),
        splits=splits,
        changed=tuple(name for name, own in zip(class_names, moved, strict=True) if own),
        examples=None
        if labels is None
        else rank_agreement(a.log_density, b.log_density, labels, random_state=random_state),
    )


def _restricted(layer: LayerAnalysis, rows: NDArray[np.int64]) -> ComparedLayer:
    """A layer's results for some of its classes, in that order."""
    entropy, held_out = layer.relative_entropy, layer.held_out
    return ComparedLayer(
        name=layer.name,
        mean=layer.classes.mean[rows],
        mean_low=layer.intervals.mean_low[rows],
        mean_high=layer.intervals.mean_high[rows],
        n_groups=layer.modes.n_groups,
        group=layer.modes.group[rows],
        relative_entropy=replace(entropy, value=entropy.value[rows], standard_error=entropy.standard_error[rows]),
        accuracy=None if held_out is None else held_out.accuracy,
        accuracy_standard_error=None if held_out is None else held_out.accuracy_standard_error,
        flipped_auc=layer.flipped_auc,
    )


def _paired_layers(a: Sequence[str], b: Sequence[str]) -> tuple[list[tuple[str, str]], bool]:
    """Layers of the same name, or, if there are none, those of the same position; and whether that was so."""
    by_name = [(name, name) for name in a if name in set(b)]
    return (by_name, False) if by_name else (list(zip(a, b, strict=False)), True)


def _different_examples(a: Examples, b: Examples) -> str | None:
    """Why the training examples are not the same, None where they are taken for the same."""
    if len(a.labels) != len(b.labels):
        return f"A has {len(a.labels)} and B has {len(b.labels)}"
    if not _same_labels(a, b, "labels"):
        n_different = int((_named_labels(a, "labels") != _named_labels(b, "labels")).sum())
        return f"{n_different} of {len(a.labels)} have another label"
    return None


def _same_labels(a: Examples, b: Examples, which: str) -> bool:
    """Whether both have as many examples with the same names of labels, in the same order."""
    one, other = getattr(a, which), getattr(b, which)
    if one is None or other is None or len(one) != len(other):
        return False
    return bool((_named_labels(a, which) == _named_labels(b, which)).all())


def _named_labels(examples: Examples, which: str) -> NDArray[Any]:
    names: NDArray[Any] = np.array(examples.class_names, dtype=object)[getattr(examples, which)]
    return names


def _accuracy_difference(a: Examples, b: Examples, *, paired: bool) -> Interval[float] | None:
    correct = [
        own.test_predicted == own.test_labels
        for own in (a, b)
        if own.test_predicted is not None and own.test_labels is not None
    ]
    return accuracy_difference(*correct, paired=paired) if len(correct) == 2 else None


def _different_options(a: Analysis, b: Analysis) -> tuple[OptionDifference, ...]:
    """Options of the data and of the analysis that differ."""
    one, other = (_options(analysis) for analysis in (a, b))
    return tuple(
        OptionDifference(name, one.get(name), other.get(name))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    )


def _options(analysis: Analysis) -> dict[str, Any]:
    provenance = asdict(analysis.provenance)
    options = {"data": provenance.pop("name"), **provenance.pop("settings"), **provenance, **analysis.options.as_json()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _few(names: Sequence[str]) -> str:
    """The first names of classes, in words."""
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
