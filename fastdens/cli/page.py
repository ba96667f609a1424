"""Parts of a report's page: numbers, tables, figures, style."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis

FigureOf = Callable[["Analysis"], "Figure"]


class Section(NamedTuple):
    """A part of the report: whether an analysis has it, its numbers, its figures by name, and its HTML, which is made
    from the numbers and the PNG of the figures.
    """

    applies: Callable[[Analysis], bool]
    numbers: Callable[[Analysis], Iterable[Number]]
    figures: Mapping[str, FigureOf]
    html: Callable[[Analysis, Numbers, Mapping[str, bytes]], str]


class Number(NamedTuple):
    """One number of the report, with its standard error and the ends of its interval where it has them.

    What it belongs to is said by ``layer``, ``class_name``, ``other_class`` (of a pair) and ``group`` (a subset, a bin,
    a predictor, another layer), empty where it belongs to none.
    """

    quantity: str
    value: float
    layer: str = ""
    class_name: str = ""
    other_class: str = ""
    group: str = ""
    standard_error: float = math.nan
    low: float = math.nan
    high: float = math.nan


class Numbers:
    """All numbers of a report, to be looked up by what they are."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        self.rows = [Number(*row[:1], float(row.value), *row[2:6], *map(float, row[6:])) for row in numbers]
        self._rows = {
            (row.quantity, row.layer, row.class_name, row.group): row for row in self.rows if not row.other_class
        }

    def html(
        self, quantity: str, layer: str = "", class_name: str = "", digits: str = ".3f", *, group: str = ""
    ) -> str:
        """The number as it stands on the page, with its standard error or its interval behind it."""
        row = self._rows[quantity, layer, class_name, group]
        if not math.isnan(row.low):
            return f"{_data(row.value, digits)} [{_data(row.low, digits)}, {_data(row.high, digits)}]"
        if not math.isnan(row.standard_error):
            return f"{_data(row.value, digits)} ± {_data(row.standard_error, digits)}"
        return _data(row.value, digits)


def _data(value: float, digits: str) -> str:
    if math.isnan(value):
        shown = "–"
    elif math.isinf(value):
        shown = "∞" if value > 0 else "−∞"
    else:
        shown = format(int(value) if digits == "d" else value, digits)
    return f'<data value="{value!r}">{shown}</data>'


def csv_bytes(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def grid(n: int, height: float = 3.6) -> tuple[Figure, list[Any]]:
    """A figure and its n axes, two a row (a single one is as wide as a row)."""
    from matplotlib.figure import Figure

    n_rows, n_columns = math.ceil(n / 2), min(n, 2)
    figure = Figure(figsize=(11, height * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def by_layer_html(numbers: Numbers, layers: Iterable[str], columns: Mapping[str, str], group: str = "") -> str:
    """A table of some quantities, with how each is shown, a row a layer."""
    return table_html(
        ["layer", *columns],
        [
            [escape(layer), *(numbers.html(quantity, layer, digits=d, group=group) for quantity, d in columns.items())]
            for layer in layers
        ],
    )


def table_html(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already; a click on a column's name sorts it."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"


def figure_html(name: str, png: bytes, caption: str) -> str:
    """A picture inside the page, with a caption that is HTML already."""
    source = base64.b64encode(png).decode()
    label = name.replace("_", " ")
    # Half the pixels: letters as large as those of the page, and sharp on dense screens. IHDR has the width.
    width = int.from_bytes(png[16:20], "big") // 2
    image = f'<img alt="{label}" width="{width}" src="data:image/png;base64,{source}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1, h2 { line-height: 1.2; margin-top: 2.2rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
table { display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { cursor: pointer; vertical-align: bottom; }
code { overflow-wrap: anywhere; }
"""

SORTING = """
for (const th of document.querySelectorAll("th")) th.addEventListener("click", () => {
  const body = th.closest("table").tBodies[0], column = th.cellIndex;
  const key = row => {
    const cell = row.cells[column], number = cell.querySelector("data");
    return number ? parseFloat(number.value) : cell.textContent;
  };
  const descending = th.dataset.order = th.dataset.order === "1" ? "-1" : "1";
  [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    return descending * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  }).forEach(row => body.append(row));
});
"""
