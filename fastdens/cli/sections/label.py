"""Where the label arises: test examples classified by the class densities of each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, single

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis


def _numbers(analysis: Analysis) -> Iterable[Number]:
    for layer in analysis.layers:
        held_out = layer.held_out
        assert held_out is not None
        yield Number(
            "held-out accuracy", held_out.accuracy, layer.layer, standard_error=held_out.accuracy_standard_error
        )
        yield Number("held-out precision", held_out.precision, layer.layer)
        yield Number("held-out recall", held_out.recall, layer.layer)
        yield Number("held-out F1", held_out.f1, layer.layer)


def _held_out_accuracy(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_scores

    figure, axes = single(7, 4)
    scores = [layer.held_out.accuracy for layer in analysis.layers if layer.held_out is not None]
    plot_scores(axes, [layer.layer for layer in analysis.layers], scores, analysis.subject.test_accuracy)
    return figure


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers, n = [layer.layer for layer in analysis.layers], numbers.html
    first, last = layers[0], layers[-1]
    own = ""
    if analysis.subject.test_accuracy is not None:
        own = f"; the network's own is {n('network test accuracy')}"
    columns = dict.fromkeys(["held-out accuracy", "held-out precision", "held-out recall", "held-out F1"], ".3f")
    return f"""
<h2>Where the label arises</h2>
{
        figure_html(
            "held_out_accuracy",
            figures["held_out_accuracy"],
            "Test examples classified by the class density that is largest at them: accuracy "
            f"{n('held-out accuracy', first)} at {first}, {n('held-out accuracy', last)} at {last}{own}.",
        )
    }
{by_layer_html(numbers, layers, columns)}"""


LABEL = Section(
    lambda analysis: analysis.subject.test is not None,
    _numbers,
    {"held_out_accuracy": _held_out_accuracy},
    _html,
)
