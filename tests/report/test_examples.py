"""The examples that stand out, and what is embedded for looking up others."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fastdens.report import metrics_of
from fastdens.report.sections import examples as section
from tests.report.analysis_problem import CLASSES, LAYERS, analysis_problem
from tests.report.test_page import ACTIVATIONS_ALONE, page


def lookup_of(text):
    return json.loads(re.search(r'<script type="application/json" id="example_data">(.*?)</script>', text, re.S)[1])


def test_cards_show_the_extremes_with_their_labels_and_pictures(rng):
    analysis = analysis_problem(rng)
    text, examples, pictures = page(analysis), analysis.examples, analysis.pictures
    shown = dict(re.findall(r"<h3>(Least dense|Most dense|Most memorized)</h3>\s*<ul(.*?)</ul>", text, re.S))
    density, scores = analysis.layers[-1].log_density, analysis.memorization.scores.values
    order = {
        "Least dense": np.argsort(density),
        "Most dense": np.argsort(-density),
        "Most memorized": np.argsort(-scores),
    }
    metrics = metrics_of(analysis)
    for title, cards in shown.items():
        numbers = [int(number) for number in re.findall(r"<b>(\d+)</b>", cards)]
        assert numbers == order[title][:12].tolist()
        for i, card in zip(numbers, re.findall(r"<li>(.*?)</li>", cards, re.S), strict=True):
            given, true, predicted = (
                CLASSES[labels[i]] for labels in (examples.labels, examples.true_labels, examples.train_predicted)
            )
            flip = f", flipped from {true}" if examples.flipped[i] else ""
            words = f"given label {given}{flip}, predicted {predicted}"
            assert f"<b>{i}</b>: {words}; log-density" in card
            assert metrics[f"layer2.examples.example.{i}.log_density"].value == density[i]
            np.testing.assert_equal(metrics[f"examples.example.{i}.score"].value, scores[i])
            picture = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', card)
            assert (picture is not None) == (i in pictures.examples)
            if picture:
                assert html.unescape(picture[2]) == f"Example {i}: {words}"
                with Image.open(io.BytesIO(base64.b64decode(picture[1]))) as image:
                    own = pictures.images[pictures.examples == i][0]
                    np.testing.assert_array_equal(np.asarray(image), own.transpose(1, 2, 0))
    assert set(shown) == set(order) and "There are no pictures" not in text


def test_activations_alone_have_no_pictures_and_no_labels_but_the_given_one(rng):
    text = page(analysis_problem(rng, without=ACTIVATIONS_ALONE))
    assert "There are no pictures, since the images are not known." in text and "Most memorized" not in text
    assert re.search(r"<b>\d+</b>: given label \d; log-density", text)
    assert list(lookup_of(text)["labels"]) == ["given label"]


def test_a_grey_picture_and_a_class_that_was_left_out(rng):
    analysis = analysis_problem(rng)
    examples = replace(analysis.examples, train_predicted=np.full(len(analysis.examples.labels), -1))
    grey = replace(analysis.pictures, images=analysis.pictures.images[:, :1])
    text = page(replace(analysis, examples=examples, pictures=grey))
    assert "predicted –" in text
    source = next(iter(lookup_of(text)["pictures"].values()))
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert image.mode == "L"


def test_every_example_can_be_looked_up(rng):
    analysis = analysis_problem(rng, class_names=("a</script>", "b", "c"))
    found, examples = lookup_of(page(analysis)), analysis.examples
    assert found["examples"] == list(range(len(examples.labels))) and found["classes"] == [*examples.class_names]
    assert found["labels"]["true label"] == examples.true_labels.tolist()
    for name in LAYERS:
        np.testing.assert_allclose(
            found["numbers"][f"log-density {name}"], analysis.layer(name).log_density, atol=0.00051
        )
    scores = np.array(found["numbers"]["memorization score"], float)
    np.testing.assert_allclose(scores, analysis.memorization.scores.values, atol=0.00051)
    assert found["pictures"].keys() == {str(i) for i in analysis.pictures.examples}


@pytest.mark.parametrize("most", [7, 300])
def test_of_many_examples_those_that_stand_out_in_their_class_are_embedded(rng, monkeypatch, most):
    analysis = analysis_problem(rng)
    monkeypatch.setattr(section, "_MOST_NUMBERS", most * 7)
    text = page(analysis)
    found, labels = lookup_of(text)["examples"], analysis.examples.labels
    if most == 300:
        assert "every training example can be looked up" in text and len(found) == len(labels)
        return
    assert "the least dense, the most dense and the most memorized can be looked up" in text
    for c in range(len(CLASSES)):
        own = np.flatnonzero(labels == c)
        density, scores = analysis.layers[-1].log_density[own], analysis.memorization.scores.values[own]
        assert {own[density.argmin()], own[density.argmax()], own[np.nanargmax(scores)]} <= {*found}
    assert len(found) <= 3 * len(CLASSES)
