"""Parts of a report's page: numbers, tables, figures, style."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Number(NamedTuple):
    """One number of the report; ``layer`` and ``class_name`` are empty where it belongs to none."""

    quantity: str
    layer: str
    class_name: str
    value: float


class Numbers:
    """All numbers of a report, to be looked up by what they are."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        self.rows = list(numbers)
        self._values = {number[:3]: number.value for number in self.rows}

    def html(self, quantity: str, layer: str = "", class_name: str = "", digits: str = ".3f") -> str:
        """The number as it stands on the page."""
        value = self._values[quantity, layer, class_name]
        shown = "–" if math.isnan(value) else format(int(value) if digits == "d" else value, digits)
        return f'<data value="{value!r}">{shown}</data>'


def csv_bytes(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def grid(n: int) -> tuple[Figure, list[Any]]:
    """A figure and its axes, two a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), layout="constrained")
    return figure, list(figure.subplots(math.ceil(n / 2), 2).flat)


def png_bytes(figure: Figure) -> bytes:
    """A figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def table_html(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already; a click on a column's name sorts it."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"


def figure_html(name: str, png: bytes, caption: str) -> str:
    """A picture inside the page, with a caption that is HTML already."""
    source = base64.b64encode(png).decode()
    label = name.replace("_", " ")
    return (
        f'<figure><img alt="{label}" src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
    )


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
