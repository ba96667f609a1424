"""What was analysed: examples, classes, the network, the densities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from fastdens.cli.densities import INIT_COMPONENTS, MAX_COMPONENTS, burn_in
from fastdens.cli.options import AnalyzeOptions
from fastdens.cli.page import Number, Numbers, Section, by_layer_html

if TYPE_CHECKING:
    from fastdens.cli.analyze import Analysis

DENSITY_NAMES = {"dp": "Dirichlet-process mixture of Gaussians", "gmm": "mixture of Gaussians"}


def _numbers(analysis: Analysis) -> Iterable[Number]:
    subject = analysis.subject
    yield Number("training examples", len(subject.labels))
    yield Number("classes", len(subject.class_names))
    if subject.test_labels is not None:
        yield Number("test examples", len(subject.test_labels))
    if subject.test_accuracy is not None:
        yield Number("network test accuracy", subject.test_accuracy)
    if subject.train_predicted is not None:
        fitted = subject.train_predicted == subject.labels
        if subject.flipped is None or not subject.flipped.any():
            yield Number("network share of labels fitted", _share(fitted))
        else:
            yield Number("flipped labels", int(subject.flipped.sum()))
            yield Number("network share of kept labels fitted", _share(fitted[~subject.flipped]))
            yield Number("network share of flipped labels memorized", _share(fitted[subject.flipped]))
    for layer in analysis.layers:
        yield Number("features", subject.train.features[layer.layer].shape[1], layer.layer)
        yield Number("dimensions", layer.n_features, layer.layer)
        yield Number("share of squares explained", layer.explained, layer.layer)


def _share(correct: Tensor) -> float:
    return float(correct.double().mean())


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    name = DENSITY_NAMES[analysis.options.density]
    layers = [layer.layer for layer in analysis.layers]
    columns = {"features": "d", "dimensions": "d", "share of squares explained": ".4f"}
    return f"""<p>{_about_the_network(analysis, numbers)}</p>
<p>At each layer the pooled activations were projected on their leading right singular vectors, and to each class (of
given labels) a {name} was fitted {_how(analysis.options)}. Log-densities are in nats, of training examples under the
class of their given label.{_left_out(analysis.options)}</p>
{by_layer_html(numbers, layers, columns)}"""


def _about_the_network(analysis: Analysis, numbers: Numbers) -> str:
    subject, options, n = analysis.subject, analysis.options, numbers.html
    examples = f"{n('training examples', digits='d')} training examples of {n('classes', digits='d')} classes"
    if subject.images is None:
        tests = "" if subject.test is None else f" and {n('test examples', digits='d')} test examples"
        return f"The activations of {examples}{tests} were read from {escape(str(options.activations))}."
    network = escape(str(options.network))
    made = (
        f"A {network} with the weights of {escape(str(options.weights))} was run on"
        if options.weights
        else f"A {network} of width {options.width} was trained for {options.epochs} epochs on"
    )
    tests = (
        f"On {n('test examples', digits='d')} test images its accuracy is {n('network test accuracy', digits='.4f')}."
    )
    if subject.flipped is None or not subject.flipped.any():
        return f"{made} {examples}. {tests} It gives {n('network share of labels fitted')} of them their label."
    return (
        f"{made} {examples}; the labels of {n('flipped labels', digits='d')} of them had been flipped at random. "
        f"{tests} (Labels of test images are clean.) It gives the label it was taught to "
        f"{n('network share of kept labels fitted')} of the examples whose label was kept and to "
        f"{n('network share of flipped labels memorized')} of those whose label was flipped: these it has memorized."
    )


def _how(options: AnalyzeOptions) -> str:
    if options.density == "dp":
        assert options.sweeps is not None
        return (
            f"by collapsed Gibbs sampling: {options.chains} chains of {options.sweeps} sweeps for each class, started "
            f"from {INIT_COMPONENTS} components assigned at random; after the first {burn_in(options.sweeps)} sweeps "
            f"every {options.thin}th was kept. A density is the posterior predictive one, averaged over all draws kept"
        )
    if options.components:
        return f"by EM, with {options.components} components a class"
    return (
        f"by EM, with as many components, up to {MAX_COMPONENTS}, as give the least BIC over all classes of the layer"
    )


def _left_out(options: AnalyzeOptions) -> str:
    if options.density != "dp":
        return ""
    return (
        " Each training example is left out of its own component when it is scored: a few odd ones that have a "
        "component of their own would be dense under it."
    )


SETTING = Section(lambda analysis: True, _numbers, {}, _html)
