"""The table of classes at each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from fastdens.cli.page import Number, Numbers, Section, table_html

if TYPE_CHECKING:
    from fastdens.cli.analyze import Analysis

_COLUMNS = {
    "class examples": "d",
    "class log-density": ".3f",
    "class log-density standard deviation": ".3f",
    "class group": "d",
    "class share of resamples above the line": ".2f",
    "class mean pairwise distance": ".3f",
    "class relative entropy": ".3f",
}
_SAMPLED_COLUMNS = {
    "class components": ".2f",
    "class components standard deviation": ".2f",
    "class split R-hat": ".3f",
    "class effective sample size": ".1f",
}


def _no_numbers(analysis: Analysis) -> Iterable[Number]:
    """The other sections have them."""
    return ()


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    columns = _COLUMNS | (_SAMPLED_COLUMNS if analysis.options.density == "dp" else {})
    table = table_html(
        ["layer", "class", *(quantity.removeprefix("class ") for quantity in columns)],
        [
            [escape(layer.layer), escape(c), *(numbers.html(q, layer.layer, c, d) for q, d in columns.items())]
            for layer in analysis.layers
            for c in analysis.subject.class_names
        ],
    )
    return f"\n<h2>Classes</h2>\n{table}"


CLASSES = Section(lambda analysis: True, _no_numbers, {}, _html)
