"""The report: one self-contained page, its figures as PNG beside it, every number again as CSV and JSON.

Numbers on the page stand in ``<data value="...">`` with all their digits; each is a row of ``numbers.csv``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdens.cli.density_parts import DENSITY_PARTS
from fastdens.cli.page import SORTING, STYLE, Number, Numbers, csv_bytes, figure_html, grid, png_bytes, table_html
from fastdens.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis, StageAnalysis


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise a FileExistsError if the folder has a report that may not be replaced."""
    if (folder / "report.html").exists() and not overwrite:
        raise FileExistsError(f"{folder / 'report.html'} exists already: choose another --output or pass --overwrite.")


def write_report(analysis: Analysis) -> Path:
    """Write ``report.html``, figures, ``numbers.csv``, ``examples.csv`` and ``report.json``; the page's path.

    Files of other names in the folder stay as they are.
    """
    folder = analysis.options.output
    numbers = Numbers(_numbers(analysis))
    drawings = {**_FIGURES, **DENSITY_PARTS[analysis.options.density].figures}
    figures = {name: png_bytes(draw(analysis)) for name, draw in drawings.items()}
    files: dict[str, bytes] = {f"{name}.png": png for name, png in figures.items()}
    files["numbers.csv"] = csv_bytes(Number._fields, numbers.rows)
    files["examples.csv"] = _examples_csv(analysis)
    files["report.json"] = json.dumps(
        {
            "options": analysis.options.as_json(),
            "class_names": analysis.images.class_names,
            "numbers": [
                {**number._asdict(), "value": number.value if math.isfinite(number.value) else None}
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
            "components": stage.n_components.mean(),
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
    yield from DENSITY_PARTS[analysis.options.density].numbers(analysis)


def _share(correct: Any) -> float:
    return float(correct.double().mean())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


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
    return csv_bytes(header, zip(*columns, strict=True))


def _class_log_density_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_class_log_density

    figure, axes = grid(len(analysis.stages))
    for stage, own in zip(analysis.stages, axes, strict=True):
        plot_class_log_density(own, stage.classes, stage.modes, analysis.images.class_names).set_title(stage.layer)
    return figure


def _flipped_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_flipped

    figure, axes = grid(len(analysis.stages))
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


def _modes_sentence(stage: StageAnalysis, numbers: Numbers) -> str:
    pvalue = numbers.html("dip test p-value", stage.layer, digits=".2g")
    if stage.modes.n_groups == 1:
        return f"{stage.layer}: one group (dip test p = {pvalue})"
    line = numbers.html("line", stage.layer, digits=".4g")
    return f"{stage.layer}: two groups, line at {line} (dip test p = {pvalue})"


def _page(analysis: Analysis, numbers: Numbers, figures: dict[str, bytes]) -> str:
    options, stages, n = analysis.options, analysis.stages, numbers.html
    parts = DENSITY_PARTS[options.density]
    stage_columns = {
        "dimensions": "d",
        "share of squares explained": ".4f",
        **parts.stage_columns,
        "groups": "d",
        "line": ".4g",
        "dip test p-value": ".2g",
        "BIC gain of two groups": ".2f",
        "flipped AUC": ".3f",
        "mean log-density, label kept": ".2f",
        "mean log-density, label flipped": ".2f",
    }
    class_columns = {
        "class examples": "d",
        "class log-density": ".3f",
        "class log-density standard deviation": ".3f",
        "class group": "d",
        **parts.class_columns,
    }
    held_out_columns = ["held-out accuracy", "held-out precision", "held-out recall", "held-out F1"]
    first, last = stages[0].layer, stages[-1].layer
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastdens: {escape(options.dataset)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>How a network fits the classes of {escape(options.dataset)}</h1>
<p>A {escape(options.network)} of width {options.width} with the stem for small images was trained for {options.epochs}
epochs on {n("training images", digits="d")} images of {n("classes", digits="d")} classes; the labels of
{n("flipped labels", digits="d")} of them had been flipped at random. On {n("test images", digits="d")} test images,
whose labels are clean, its accuracy is {n("network test accuracy", digits=".4f")}. It gives the label it was taught to
{n("network share of kept labels fitted")} of the examples whose label was kept and to
{
        n("network share of flipped labels memorized")
    } of those whose label was flipped: these it has memorized. How densely it
fits each class is told by a {parts.name}.</p>
<p>At each stage the pooled activations were projected on their leading right singular vectors, and to each class (of
given labels, flipped ones included) a {parts.name} was fitted {parts.how(options)}. Log-densities are in nats, of
training examples under the class of their given label.</p>

<h2>Densely and sparsely fitted classes</h2>
{
        figure_html(
            "class_log_density",
            figures["class_log_density"],
            "Mean log-density of each class, with bars of one standard deviation over its examples, sorted. Classes "
            "are split by a line in the largest gap where the dip test and the BIC of two Gaussians against one both "
            "ask for two groups. " + "; ".join(_modes_sentence(stage, numbers) for stage in stages) + ".",
        )
    }
{
        table_html(
            ["stage", *stage_columns],
            [[s.layer, *(n(q, s.layer, digits=digits) for q, digits in stage_columns.items())] for s in stages],
        )
    }
{parts.section(analysis, numbers, figures)}
<h2>Flipped labels</h2>
{
        figure_html(
            "flipped_labels",
            figures["flipped_labels"],
            "Log-density of examples whose label was flipped against those whose label was kept. The area under the "
            "ROC curve of finding the flipped ones by low density is "
            f"{n('flipped AUC', first)} at {first} and {n('flipped AUC', last)} at {last} (0.5 is chance; under it the "
            f"flipped ones are the denser). {parts.caveat}",
        )
    }

<h2>Where the label arises</h2>
{
        figure_html(
            "held_out_accuracy",
            figures["held_out_accuracy"],
            "Test images classified by the class density that is largest at them: accuracy "
            f"{n('held-out accuracy', first)} at {first}, {n('held-out accuracy', last)} at {last}; the network's own "
            f"is {n('network test accuracy')}.",
        )
    }
{
        table_html(
            ["stage", "accuracy", "precision", "recall", "F1"],
            [[s.layer, *(n(q, s.layer) for q in held_out_columns)] for s in stages],
        )
    }

<h2>Classes</h2>
{
        table_html(
            ["stage", "class", *(quantity.removeprefix("class ") for quantity in class_columns)],
            [
                [s.layer, escape(c), *(n(q, s.layer, c, digits) for q, digits in class_columns.items())]
                for s in stages
                for c in analysis.images.class_names
            ],
        )
    }
<p>Every number of this page is a row of <code>numbers.csv</code> and of <code>report.json</code>, every training
example a row of <code>examples.csv</code>. Options: <code>{escape(json.dumps(options.as_json()))}</code></p>
<script>{SORTING}</script>
</body>
</html>
"""
