"""Metrics: the numbers of a report, each with an identifier that stays the same from report to report.

An identifier is a path of parts joined by dots: the layer, if the metric belongs to one; the section of the report;
the class, pair or group that it describes, as a kind and a name; and the name of the metric itself.

=====================================  ==========================================================
``setting.n_classes``                  of the whole analysis
``layer4.modes.n_groups``              of a layer
``layer4.modes.class.7.log_density``   of a class at a layer
``layer4.divergences.pair.7.3.kl``     of a pair of classes
``layer4.memorization.bin.1.score``    of a group: a bin, a subset, a predictor, another layer
=====================================  ==========================================================

Sections, kinds and names of metrics are words of small letters, digits and underscores. Layers, classes and predictors
may have any name. Every character of it but letters A to Z and a to z, digits, ``_``, ``-`` and ``~`` is
percent-encoded as UTF-8 (RFC 3986; the dot too), so that the layer ``layer1.0/conv`` becomes ``layer1%2E0%2Fconv``: no
name breaks a path apart, and no two names share an identifier. The first character of a layer that is called like a
section is encoded as well: the layer ``modes`` becomes ``%6Dodes``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

SECTION_NAMES = (
    "findings",
    "setting",
    "modes",
    "components",
    "divergences",
    "label",
    "flipped_labels",
    "definitions",
    "long_tail",
    "noise_images",
    "memorization",
    "robustness",
    "examples",
    "classes",
)


class Metric(NamedTuple):
    """One number of a report, a row of ``numbers.csv``.

    Attributes
    ----------
    id : str
        The identifier.
    quantity : str
        A description in English, for a reader of the table.
    value : float
    layer, class_name, other_class, group : str
        The layer, the class, the second class of a pair, and the subset, bin, predictor or other layer that the metric
        describes; empty where there is none.
    standard_error : float
        NaN where it has none.
    low, high : float
        Ends of its 95% interval, NaN where it has none.
    """

    id: str
    quantity: str
    value: float
    layer: str = ""
    class_name: str = ""
    other_class: str = ""
    group: str = ""
    standard_error: float = math.nan
    low: float = math.nan
    high: float = math.nan


def identifier(*parts: str) -> str:
    """The identifier of these parts, of which the first is a section, or a layer followed by a section."""
    encoded = [encode(part) for part in parts]
    if len(parts) > 1 and parts[0] in SECTION_NAMES and parts[1] in SECTION_NAMES:
        encoded[0] = f"%{ord(parts[0][0]):02X}{parts[0][1:]}"
    return ".".join(encoded)


@lru_cache(maxsize=1 << 16)
def encode(name: str) -> str:
    """A name as one part of an identifier."""
    # Half of a surrogate pair, of which file names that are no UTF-8 are made, is encoded like a whole character.
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")


@dataclass(frozen=True)
class Scope:
    """A layer, class or group that metrics describe; call it to make a metric.

    Their identifiers begin with ``parts``; ``columns`` are their layer, classes and group, as attributes of a `Metric`.
    """

    parts: tuple[str, ...]
    columns: Mapping[str, Any]

    def __call__(
        self,
        name: str,
        quantity: str,
        value: float,
        *,
        standard_error: float = math.nan,
        low: float = math.nan,
        high: float = math.nan,
    ) -> Metric:
        """The metric of that name, and of that quantity in English."""
        return Metric(
            identifier(*self.parts, name),
            quantity,
            float(value),
            **self.columns,
            standard_error=float(standard_error),
            low=float(low),
            high=float(high),
        )

    def of_class(self, class_name: str) -> Scope:
        """The same for one class."""
        return self._narrow("class", class_name, class_name=class_name)

    def of_pair(self, class_name: str, other_class: str) -> Scope:
        """The same for two classes, in this order."""
        return self._narrow("pair", class_name, other_class, class_name=class_name, other_class=other_class)

    def of_group(self, kind: str, name: str, group: str) -> Scope:
        """The same for a group, with its kind and its name for the identifier and how ``numbers.csv`` calls it."""
        return self._narrow(kind, name, group=group)

    def _narrow(self, *parts: str, **columns: str) -> Scope:
        return Scope((*self.parts, *parts), {**self.columns, **columns})


def section_scope(section: str, layer: str | None = None) -> Scope:
    """The scope of a section's metrics: those of a layer, or those of the whole analysis."""
    return Scope((section,), {}) if layer is None else Scope((layer, section), {"layer": layer})


class Metrics(Mapping[str, Metric]):
    """All metrics of a report by identifier, in the order in which they were given.

    Parameters
    ----------
    metrics : iterable of Metric
        In the order of the page; no two have the same identifier.

    Raises
    ------
    ValueError
        If two of them have the same identifier.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._by_id: dict[str, Metric] = {}
        for metric in metrics:
            if metric.id in self._by_id:
                raise ValueError(
                    f"two metrics have the identifier {metric.id!r}: give each layer and each class a name of its own."
                )
            self._by_id[metric.id] = metric

    def __getitem__(self, id: str) -> Metric:
        if id not in self._by_id:
            raise KeyError(f"the report has no metric {id!r}.")
        return self._by_id[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def at(self, *parts: str) -> Metric:
        """The metric with an identifier.

        Parameters
        ----------
        *parts : str
            The parts of the identifier, names of layers and classes as the user wrote them.

        Returns
        -------
        Metric
            The number and what is known of it.

        Raises
        ------
        KeyError
            If there is none; the message has the identifier.
        """
        return self[identifier(*parts)]

    def in_numbers(self) -> dict[str, dict[str, float]]:
        """Value, standard error and interval of each metric by identifier, without those of pairs of classes.

        Returns
        -------
        dict of str to dict
            By identifier, the four numbers by name; NaN for those that are not known.
        """
        return {
            metric.id: {
                "value": metric.value,
                "standard_error": metric.standard_error,
                "low": metric.low,
                "high": metric.high,
            }
            for metric in self.values()
            if not metric.other_class
        }
