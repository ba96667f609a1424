"""A report shows names of any kind, and does what they say nowhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from fastdens.pipeline import compare
from fastdens.pipeline.results import Provenance
from fastdens.printable import printable
from fastdens.report import metrics_of, write_report
from fastdens.report.comparison import comparison_metrics, render_comparison
from fastdens.report.figures import Picture, literal
from fastdens.report.page import render_page
from fastdens.report.sections import sections_of
from fastdens.report.write import csv_text
from tests.report.analysis_problem import analysis_problem
from tests.report.hostile_names import CLASSES, LAYERS


class Undrawn(dict):
    def __missing__(self, name):
        return Picture(name, 100, "data:,")


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *sorted(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data):
        self.text.append(data)


def problem(classes, layers, **options):
    analysis = analysis_problem(np.random.default_rng(0), class_names=classes, layer_names=layers, **options)
    odd = classes[0]
    provenance = Provenance(odd, network=odd, weights=odd, settings={odd: odd, "dataset": classes[-1]})
    return replace(analysis, provenance=provenance)


def page_of(analysis):
    return render_page(analysis, sections_of(analysis), metrics_of(analysis), Undrawn())


@pytest.fixture(scope="module")
def hostile():
    return page_of(problem(CLASSES, LAYERS))


def test_the_elements_of_the_page_do_not_depend_on_names(hostile):
    plain = page_of(problem([f"class {c}" for c in range(len(CLASSES))], [f"layer {k}" for k in range(len(LAYERS))]))
    expected, found = Structure(plain), Structure(hostile)
    assert found.elements == expected.elements and found.links == expected.links
    assert all(link.startswith(("#", "data:")) for link in found.links)
    text = "".join(found.text)
    for name in (*CLASSES, *LAYERS):
        assert printable(name) in text, name
    assert not set("\x00\x07\x1b\u202e\u2028\udcff") & set(hostile)


def test_the_elements_of_a_comparison_do_not_depend_on_names():
    def structure(classes, layers, subjects):
        a, b = (problem(classes[:-1], layers), problem(classes[1:], layers[::-1]))
        comparison = compare(a, b, subjects)
        return Structure(render_comparison(comparison, comparison_metrics(comparison), Undrawn()))

    plain = structure([f"class {c}" for c in range(len(CLASSES))], [f"layer {k}" for k in range(4)], ("a", "b"))
    hostile = structure(CLASSES, LAYERS, CLASSES[1:3])
    assert hostile.elements == plain.elements and hostile.links == plain.links
    assert all(printable(name) in "".join(hostile.text) for name in (*CLASSES, *LAYERS))


def test_the_data_of_the_look_up_stay_in_their_element(hostile):
    data = re.search(r'<script type="application/json" id="example_data">(.*?)</script>', hostile, re.S)[1]
    assert json.loads(data)["classes"] == [*map(printable, CLASSES)]
    assert "<" not in data


def test_the_page_allows_the_scripts_that_it_has_and_no_other(hostile):
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', hostile)[1])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'" and "unsafe" not in policy
    for element in ("script", "style"):
        contents = re.findall(rf"<{element}>(.*?)</{element}>", hostile, re.S)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents]
        assert rules[f"{element}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    # Nothing of the page needs what the policy forbids.
    assert not re.search(r'<[^>]* (style|on[a-z]+)="', re.sub(r"<script.*?</script>", "", hostile, flags=re.S))


def test_a_report_of_hostile_names_is_written_into_its_folder_alone(tmp_path):
    folder = tmp_path / "deep" / "er" / "report"
    analysis = problem(CLASSES[-8:], LAYERS[-1:], density="gmm", without=("network", "memorization", "test_labels"))
    write_report(analysis, folder)
    assert all(file.is_relative_to(folder) for file in tmp_path.rglob("*") if file.is_file())
    assert json.loads((folder / "report.json").read_text())["class_names"] == list(CLASSES[-8:])
    with (folder / "numbers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {printable(name) for name in CLASSES[-8:]} <= {row["class_name"].removeprefix("'") for row in rows}
    for file in ("numbers.csv", "examples.csv"):
        with (folder / file).open(newline="") as stream:
            for cell in (cell for row in csv.reader(stream) for cell in row):
                assert not cell.startswith(("=", "+", "-", "@")) or float(cell) is not None
                assert cell == printable(cell)


def test_a_spreadsheet_takes_names_for_names_and_numbers_for_numbers():
    row = ["=1+1", "+1+cmd", "@x", "-2+3", "-2", "+1e5", "-inf", "a=b", "", "\x1b[2J", -1.5, 3]
    expected = ["'=1+1", "'+1+cmd", "'@x", "'-2+3", "-2", "+1e5", "-inf", "a=b", "", "\\x1b[2J", "-1.5", "3"]
    assert next(csv.reader([csv_text(row, [])])) == expected


def test_figures_show_names_and_typeset_none(tmp_path):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from fastdens.report.figures import save_pictures

    def figures():
        figure = Figure()
        axes = figure.subplots()
        axes.set_title(" ".join(map(literal, CLASSES)))
        assert not axes.title.get_usetex() and axes.title._preprocess_math(axes.title.get_text())[1] is False
        yield "names", figure

    with rc_context({"text.usetex": True}):
        save_pictures(figures(), tmp_path)
    assert literal("$\\input{x}$") == "\\$\\input{x}\\$"
