"""The table of README and the pages of the benchmark are what the committed results give."""

from __future__ import annotations

import pytest

from benchmarks.readme import BEGIN, END, README, RESULTS, with_table
from fastdens.bench.output import pages
from fastdens.bench.results import Results


def test_readme_has_the_table_of_the_results():
    text = README.read_text()
    assert with_table(text, Results.load(RESULTS)) == text, "run python -m benchmarks.readme"


def test_pages_are_those_of_the_results():
    for name, content in pages(Results.load(RESULTS)).items():
        assert (RESULTS / name).read_text() == content, f"{name}: run fastdens bench --output again"


def test_a_page_without_markers_is_refused():
    results = Results.load(RESULTS)
    for text in ("", BEGIN, f"{BEGIN}{END}{END}"):
        with pytest.raises(ValueError, match="each once"):
            with_table(text, results)
