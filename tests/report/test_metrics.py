"""Identifiers of metrics: unique, stable, whatever layers and classes are called."""

from __future__ import annotations

import math

import pytest

from fastdens.report.metrics import SECTION_NAMES, Metrics, identifier, section_scope


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("setting", "n_classes"), "setting.n_classes"),
        (("layer4", "modes", "n_groups"), "layer4.modes.n_groups"),
        (("layer4", "modes", "class", "7", "log_density"), "layer4.modes.class.7.log_density"),
        (("layer1.0/conv", "modes", "line"), "layer1%2E0%2Fconv.modes.line"),
        (("modes", "modes", "line"), "%6Dodes.modes.line"),
        (("a", "modes", "class", "größe 50%", "group"), "a.modes.class.gr%C3%B6%C3%9Fe%2050%25.group"),
        (("a", "modes", "class", "", "group"), "a.modes.class..group"),
    ],
)
def test_an_identifier_is_the_encoded_parts_joined_by_dots(parts, expected):
    assert identifier(*parts) == expected


def test_no_two_names_share_an_identifier():
    names = [
        *SECTION_NAMES,
        "%6Dodes",
        "a.b",
        "a%2Eb",
        "a",
        "a ",
        "A",
        "",
        ".",
        "..",
        "class",
        "é",
        "e\u0301",
        "a.modes",
    ]
    ids = {section_scope("modes", layer).of_class(c)("group", "", 0).id for layer in names for c in names}
    ids |= {section_scope(section)("group", "", 0).id for section in SECTION_NAMES}
    assert len(ids) == len(names) ** 2 + len(SECTION_NAMES)


def test_a_scope_says_what_a_metric_belongs_to():
    of_layer = section_scope("divergences", "layer4")
    pair = of_layer.of_pair("cat", "dog")("kl", "KL divergence", 2, standard_error=0.5)
    assert pair[:7] == ("layer4.divergences.pair.cat.dog.kl", "KL divergence", 2.0, "layer4", "cat", "dog", "")
    assert pair.standard_error == 0.5 and math.isnan(pair.low) and math.isnan(pair.high)
    of_bin = section_scope("robustness", "layer4").of_group("bin", "1", "bin 1")("radius", "mean radius", 1)
    assert of_bin.id == "layer4.robustness.bin.1.radius" and of_bin.group == "bin 1" and of_bin.class_name == ""


def test_metrics_are_found_by_their_parts_and_kept_in_order():
    scope = section_scope("modes", "layer.4")
    given = [scope(name, "", at) for at, name in enumerate(("line", "n_groups", "pvalue"))]
    metrics = Metrics(given)
    assert list(metrics.values()) == given and len(metrics) == 3
    assert metrics.at("layer.4", "modes", "n_groups").value == 1 == metrics["layer%2E4.modes.n_groups"].value
    with pytest.raises(KeyError, match=r"the report has no metric 'layer%2E4\.modes\.n_group'"):
        metrics.at("layer.4", "modes", "n_group")


def test_two_metrics_of_one_identifier_are_an_error():
    of_class = section_scope("modes", "layer4").of_class("cat")
    with pytest.raises(ValueError, match=r"'layer4\.modes\.class\.cat\.group'"):
        Metrics([of_class("group", "", 0), of_class("group", "", 1)])
