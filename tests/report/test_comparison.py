"""The page of a comparison: it opens with what was found, and every number is in numbers.csv."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from fastdens.cli import main
from fastdens.pipeline import compare
from fastdens.report import write_comparison
from fastdens.report.comparison import comparison_metrics, render_comparison
from fastdens.report.figures import Picture
from tests.report.analysis_problem import CLASSES, analysis_problem


@pytest.fixture
def pair(rng):
    """Two analyses of the same examples, the classes of the first layer in one group."""
    a, b = analysis_problem(rng), analysis_problem(rng)
    return a, replace(b, examples=a.examples)


def page_of(comparison):
    """The page without its figure."""
    return render_comparison(comparison, comparison_metrics(comparison), {"class_densities": Picture("", 1, "data:,")})


def words(page):
    """The words of a page, one space between them."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", "", body).split())


def findings(page):
    return re.findall(r"<li>(.*?)</li>", page, re.S)


def test_every_number_of_the_page_is_in_the_table(pair, tmp_path):
    page = write_comparison(compare(*pair, ("one", "two")), tmp_path / "new")
    with (tmp_path / "new" / "numbers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    known = {repr(float(row[column])) for row in rows for column in ("value", "standard_error", "low", "high")}
    shown = set(re.findall(r'<data value="([^"]+)">', page.read_text()))
    assert shown and shown <= known
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    expected = ["layer2.modes.class_spearman", "layer2.modes.rand_index", "memorization.spearman"]
    expected += ["setting.analysis.b.test_accuracy", "layer1.modes.class.3.analysis.a.log_density"]
    assert set(expected) <= set(ids)
    assert (tmp_path / "new" / "class_densities.pdf").is_file()


def test_the_page_opens_with_at_most_five_findings(pair):
    page = page_of(compare(*pair, ("one", "two")))
    found = findings(page)
    assert 3 <= len(found) <= 5 and all("<data" in finding for finding in found)
    assert words(page).index("A is one (resnet18 on digits), B is two") < words(page).index("Class densities")
    for anchor in re.findall(r'href="#(\w+)"', page):
        assert f'id="{anchor}"' in page


def with_means(analysis, mean):
    layers = [replace(layer, classes=layer.classes._replace(mean=mean)) for layer in analysis.layers]
    return replace(analysis, layers=tuple(layers))


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (lambda x: x, "dense in A tend to be dense in B (Spearman 1.00"),
        (lambda x: -x, "dense in A tend to be sparse in B (Spearman -1.00"),
        (np.zeros_like, "too few class densities differ"),
        (lambda x: np.abs(x - np.median(x)), "do not decide whether the classes that are dense in A are dense in B"),
    ],
)
def test_the_sentence_on_classes_follows_from_the_interval(rng, mean, expected):
    a = with_means(analysis_problem(rng, class_names=[f"c{k}" for k in range(24)]), np.arange(24.0))
    page = page_of(compare(a, with_means(a, mean(np.arange(24.0)))))
    assert expected in words(findings(page)[0])


def test_classes_that_change_group_are_named(pair):
    a, b = pair
    last = b.layers[1]
    group = last.modes.group.copy()
    group[[0, 3]] = 1 - group[[0, 3]]
    b = replace(b, layers=(b.layers[0], replace(last, modes=last.modes._replace(group=group))))
    text = words(page_of(compare(a, b)))
    assert "2 of 5 classes are in another group in B than in A" in text
    assert "In another group in B than in A: 0 and 3." in text and "Squares are classes" in text
    single = replace(b, layers=(b.layers[0], replace(last, modes=last.modes._replace(n_groups=1, group=0 * group))))
    text = words(page_of(compare(a, single)))
    assert "there are no groups to compare; A has two at layer2; B has one group at each layer" in text
    assert "adjusted Rand index" not in text


def test_what_is_not_the_same_is_said(rng):
    a = analysis_problem(rng, class_names=(*CLASSES, "x"))
    b = analysis_problem(rng, layer_names=("p", "q", "r"), without=("network", "memorization", "test_labels"))
    text = words(page_of(compare(a, b)))
    assert "the training examples are not the same (A has 240 and B has 200)" in text
    assert "Only in A, and left out: x." in text and "paired by their position" in text
    assert "layer1 of A, p of B" in text and "Without a counterpart is layer r of B." in text
    assert "Test accuracy" not in text and "accuracy by density" not in text


def test_options_that_differ_are_a_table(pair):
    a, b = pair
    assert "optionAB chains23" in words(page_of(compare(a, replace(b, options=replace(b.options, chains=3)))))
    assert "Both were made with the same options." in words(page_of(compare(a, b)))


def test_two_layers_of_one_name_are_refused(pair):
    comparison = compare(*pair)
    with pytest.raises(ValueError, match="two metrics have the identifier"):
        comparison_metrics(replace(comparison, layers=comparison.layers[:1] * 2))


def test_the_command_compares_reports_and_saved_analyses(pair, tmp_path, capsys):
    a, b = pair
    a.save(tmp_path / "report" / "analysis")
    b.save(tmp_path / "saved")
    arguments = ["compare", str(tmp_path / "report"), str(tmp_path / "saved"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    page = tmp_path / "out" / "comparison.html"
    assert capsys.readouterr().out == f"Comparison: {page}\n" and str(tmp_path / "saved") in words(page.read_text())
    before = page.read_bytes()
    assert main(arguments) == 1 and "--overwrite" in capsys.readouterr().err and page.read_bytes() == before
    assert main([*arguments, "--overwrite"]) == 0 and page.read_bytes() == before
    assert main(["compare", str(tmp_path), str(tmp_path / "saved")]) == 1
    assert "has no analysis.json: pass the folder of a saved analysis." in capsys.readouterr().err
    (tmp_path / "out" / "report.html").touch()
    assert main([*arguments, "--overwrite"]) == 1 and "holds a report" in capsys.readouterr().err
