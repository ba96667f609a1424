"""The report: one self-contained page, its figures as PNG beside it, every number again as CSV and JSON.

Numbers on the page stand in ``<data value="...">`` with all their digits; each is a row of ``numbers.csv``.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastdens.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis, StageAnalysis


class Number(NamedTuple):
    """One number of the report; ``layer`` and ``class_name`` are empty where it belongs to none."""

    quantity: str
    layer: str
    class_name: str
    value: float


class _Numbers:
    """All numbers of a report, to be looked up by what they are."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        self.rows = list(numbers)
        self._values = {number[:3]: number.value for number in self.rows}

    def html(self, quantity: str, layer: str = "", class_name: str = "", digits: str = ".3f") -> str:
        """The number as it stands on the page."""
        value = self._values[quantity, layer, class_name]
        shown = "–" if math.isnan(value) else format(int(value) if digits == "d" else value, digits)
        return f'<data value="{value!r}">{shown}</data>'


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise a FileExistsError if the folder has a report that may not be replaced."""
    if (folder / "report.html").exists() and not overwrite:
        raise FileExistsError(f"{folder / 'report.html'} exists already: choose another --output or pass --overwrite.")


def write_report(analysis: Analysis) -> Path:
    """Write ``report.html``, figures, ``numbers.csv``, ``examples.csv`` and ``report.json``; the page's path.

    Files of other names in the folder stay as they are.
    """
    folder = analysis.options.output
    numbers = _Numbers(_numbers(analysis))
    figures = {name: _png(draw(analysis)) for name, draw in _FIGURES.items()}
    files: dict[str, bytes] = {f"{name}.png": png for name, png in figures.items()}
    files["numbers.csv"] = _csv(Number._fields, numbers.rows)
    files["examples.csv"] = _examples_csv(analysis)
    files["report.json"] = json.dumps(
        {
            "options": analysis.options.as_json(),
            "class_names": analysis.images.class_names,
            "numbers": [
                {**number._asdict(), "value": None if math.isnan(number.value) else number.value}
                for number in numbers.rows
            ],
        },
        indent=1,
    ).encode()
    # The page comes last: where it is, everything it speaks of is.
    files["report.html"] = _page(analysis, numbers, figures).encode()
    for name, content in files.items():
        with written_whole(folder / name, overwrite=True) as partial:
            partial.write_bytes(content)
    return folder / "report.html"


def _numbers(analysis: Analysis) -> Iterable[Number]:
    images, given, network = analysis.images, analysis.given, analysis.network
    flipped = given.flipped
    for quantity, value in {
        "training images": len(images.train),
        "test images": len(images.test),
        "classes": len(images.class_names),
        "flipped labels": int(flipped.sum()),
        "network test accuracy": _share(network.test_predicted == images.test_labels),
        "network share of kept labels fitted": _share((network.train_predicted == given.labels)[~flipped]),
        "network share of flipped labels memorized": _share((network.train_predicted == given.labels)[flipped]),
    }.items():
        yield Number(quantity, "", "", float(value))
    for stage in analysis.stages:
        flips = flipped.numpy()
        for quantity, value in {
            "dimensions": stage.n_features,
            "share of squares explained": stage.explained,
            "components": stage.n_components,
            "groups": stage.modes.n_groups,
            "line": stage.modes.line,
            "dip test p-value": stage.modes.dip_pvalue,
            "BIC gain of two groups": stage.modes.bic_gain,
            "held-out accuracy": stage.held_out.accuracy,
            "held-out precision": stage.held_out.precision,
            "held-out recall": stage.held_out.recall,
            "held-out F1": stage.held_out.f1,
            "flipped AUC": stage.flipped_auc,
            "mean log-density, label kept": _mean(stage.log_density[~flips]),
            "mean log-density, label flipped": _mean(stage.log_density[flips]),
        }.items():
            yield Number(quantity, stage.layer, "", float(value))
        for c, name in enumerate(images.class_names):
            for quantity, value in {
                "class log-density": stage.classes.mean[c],
                "class log-density standard deviation": stage.classes.std[c],
                "class examples": stage.classes.size[c],
                "class group": stage.modes.group[c],
            }.items():
                yield Number(quantity, stage.layer, name, float(value))


def _share(correct: Any) -> float:
    return float(correct.double().mean())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _examples_csv(analysis: Analysis) -> bytes:
    names = analysis.images.class_names
    columns = [
        range(len(analysis.images.train)),
        [names[c] for c in analysis.images.train_labels],
        [names[c] for c in analysis.given.labels],
        analysis.given.flipped.int().tolist(),
        [names[c] for c in analysis.network.train_predicted],
        *[stage.log_density.tolist() for stage in analysis.stages],
    ]
    header = ["example", "true label", "given label", "flipped", "network's label"]
    header += [f"log-density {stage.layer}" for stage in analysis.stages]
    return _csv(header, zip(*columns, strict=True))


def _grid(n: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), layout="constrained")
    return figure, list(figure.subplots(math.ceil(n / 2), 2).flat)


def _class_log_density_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_class_log_density

    figure, axes = _grid(len(analysis.stages))
    for stage, own in zip(analysis.stages, axes, strict=True):
        plot_class_log_density(own, stage.classes, stage.modes, analysis.images.class_names).set_title(stage.layer)
    return figure


def _flipped_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_flipped

    figure, axes = _grid(len(analysis.stages))
    for stage, own in zip(analysis.stages, axes, strict=True):
        title = stage.layer if math.isnan(stage.flipped_auc) else f"{stage.layer}, AUC {stage.flipped_auc:.3f}"
        plot_flipped(own, stage.log_density, analysis.given.flipped).set_title(title)
    return figure


def _held_out_figure(analysis: Analysis) -> Figure:
    from matplotlib.figure import Figure

    from fastdens.analysis.figures import plot_scores

    figure = Figure(figsize=(7, 4), layout="constrained")
    accuracy = _share(analysis.network.test_predicted == analysis.images.test_labels)
    layers = [stage.layer for stage in analysis.stages]
    plot_scores(figure.subplots(), layers, [stage.held_out.accuracy for stage in analysis.stages], accuracy)
    return figure


_FIGURES: dict[str, Callable[[Analysis], Figure]] = {
    "class_log_density": _class_log_density_figure,
    "flipped_labels": _flipped_figure,
    "held_out_accuracy": _held_out_figure,
}


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"


def _figure(name: str, png: bytes, caption: str) -> str:
    source = base64.b64encode(png).decode()
    label = name.replace("_", " ")
    return (
        f'<figure><img alt="{label}" src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
    )


def _modes_sentence(stage: StageAnalysis, numbers: _Numbers) -> str:
    pvalue = numbers.html("dip test p-value", stage.layer, digits=".2g")
    if stage.modes.n_groups == 1:
        return f"{stage.layer}: one group (dip test p = {pvalue})"
    line = numbers.html("line", stage.layer, digits=".4g")
    return f"{stage.layer}: two groups, line at {line} (dip test p = {pvalue})"


def _page(analysis: Analysis, numbers: _Numbers, figures: dict[str, bytes]) -> str:
    options, stages, n = analysis.options, analysis.stages, numbers.html
    stage_columns = {
        "dimensions": "d",
        "share of squares explained": ".4f",
        "components": "d",
        "groups": "d",
        "line": ".4g",
        "dip test p-value": ".2g",
        "BIC gain of two groups": ".2f",
        "flipped AUC": ".3f",
        "mean log-density, label kept": ".2f",
        "mean log-density, label flipped": ".2f",
    }
    held_out_columns = ["held-out accuracy", "held-out precision", "held-out recall", "held-out F1"]
    first, last = stages[0].layer, stages[-1].layer
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastdens: {escape(options.dataset)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>How a network fits the classes of {escape(options.dataset)}</h1>
<p>A {escape(options.network)} of width {options.width} with the stem for small images was trained for {options.epochs}
epochs on {n("training images", digits="d")} images of {n("classes", digits="d")} classes; the labels of
{n("flipped labels", digits="d")} of them had been flipped at random. On {n("test images", digits="d")} test images,
whose labels are clean, its accuracy is {n("network test accuracy", digits=".4f")}. It gives the label it was taught to
{n("network share of kept labels fitted")} of the examples whose label was kept and to
{n("network share of flipped labels memorized")} of those whose label was flipped: these it has memorized.</p>
<p>At each stage the pooled activations were projected on their leading right singular vectors, and a mixture of
Gaussians was fitted to each class (of given labels, flipped ones included). Log-densities are in nats, of training
examples under the class of their given label.</p>

<h2>Densely and sparsely fitted classes</h2>
{
        _figure(
            "class_log_density",
            figures["class_log_density"],
            "Mean log-density of each class, with bars of one standard deviation over its examples, sorted. Classes "
            "are split by a line in the largest gap where the dip test and the BIC of two Gaussians against one both "
            "ask for two groups. " + "; ".join(_modes_sentence(stage, numbers) for stage in stages) + ".",
        )
    }
{
        _table(
            ["stage", *stage_columns],
            [[s.layer, *(n(q, s.layer, digits=digits) for q, digits in stage_columns.items())] for s in stages],
        )
    }

<h2>Flipped labels</h2>
{
        _figure(
            "flipped_labels",
            figures["flipped_labels"],
            "Log-density of examples whose label was flipped against those whose label was kept. The area under the "
            "ROC curve of finding the flipped ones by low density is "
            f"{n('flipped AUC', first)} at {first} and {n('flipped AUC', last)} at {last} (0.5 is chance).",
        )
    }

<h2>Where the label arises</h2>
{
        _figure(
            "held_out_accuracy",
            figures["held_out_accuracy"],
            "Test images classified by the class density that is largest at them: accuracy "
            f"{n('held-out accuracy', first)} at {first}, {n('held-out accuracy', last)} at {last}; the network's own "
            f"is {n('network test accuracy')}.",
        )
    }
{
        _table(
            ["stage", "accuracy", "precision", "recall", "F1"],
            [[s.layer, *(n(q, s.layer) for q in held_out_columns)] for s in stages],
        )
    }

<h2>Classes</h2>
{
        _table(
            ["stage", "class", "examples", "mean log-density", "standard deviation", "group"],
            [
                [
                    s.layer,
                    escape(c),
                    n("class examples", s.layer, c, "d"),
                    n("class log-density", s.layer, c),
                    n("class log-density standard deviation", s.layer, c),
                    n("class group", s.layer, c, "d"),
                ]
                for s in stages
                for c in analysis.images.class_names
            ],
        )
    }
<p>Every number of this page is a row of <code>numbers.csv</code> and of <code>report.json</code>, every training
example a row of <code>examples.csv</code>. Options: <code>{escape(json.dumps(options.as_json()))}</code></p>
<script>{_SORTING}</script>
</body>
</html>
"""


_STYLE = """
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

_SORTING = """
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
