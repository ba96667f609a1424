"""Every public name has a docstring in numpydoc's form, and a place in the reference."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.docs.public_names import MODULES, Public, members_of, names_of, public_objects

pytest.importorskip("numpydoc")
pytest.importorskip("pytorch_ood")

from numpydoc.docscrape import NumpyDocString, get_doc_object
from numpydoc.validate import validate

API = Path(__file__).parents[2] / "docs" / "api"

# Checks of numpydoc that are off, and why.
SWITCHED_OFF = {
    "ES01": "a summary may be all there is to say",
    "EX01": "examples are asked for below, of what a user calls first",
    "SA01": "the pages of the reference bring together what belongs together",
    "SS05": "a summary may name what is returned; numpydoc takes each such noun in -s for a verb",
    "PR08": "a description may begin with a shape or a dtype",
    "RT04": "a description may begin with a shape or a dtype",
}
# A record may have its arguments among the attributes; the test of fields below looks into both sections.
OFF_FOR_CLASSES = {"PR01"}

# Functions and classes without an example, beside records and errors.
WITHOUT_EXAMPLE = {
    "fastdens.activations.Passes": "evaluating has one",
    "fastdens.convergence.bulk_effective_sample_size": "effective_sample_size has one",
    "fastdens.convergence.tail_effective_sample_size": "effective_sample_size has one",
    "fastdens.distributed.job": "it needs a job of torchrun; the guide has one",
    "fastdens.kernels.as_layout": "Layout has one",
    "fastdens.kernels.canonical_loadings": "a step of FactorAnalyserMixtures",
    "fastdens.kernels.factor_responsibilities": "a step of FactorAnalyserMixtures",
    "fastdens.kernels.factor_statistics": "a step of FactorAnalyserMixtures",
    "fastdens.kernels.factor_update": "a step of FactorAnalyserMixtures",
    "fastdens.kernels.gaussian_parameters": "a step of em_steps",
    "fastdens.kernels.sufficient_statistics": "a step of em_steps",
    "fastdens.ood.Detector": "a base class",
    "fastdens.report.Metrics": "what metrics_of returns",
    "fastdens.report.check_comparison_output": "what write_comparison calls first",
    "fastdens.report.check_output": "what write_report calls first",
    "fastdens.report.comparison_metrics": "write_report has one",
    "fastdens.report.metrics_of": "write_report has one",
    "fastdens.report.write_comparison": "write_report has one",
    "fastdens.training.datasets.StreamedImages": "it needs files of images",
    "fastdens.training.datasets.outline_images": "load_images has one",
    "fastdens.training.datasets.reading": "it needs files of images",
    "fastdens.training.runs.load_predictions": "it needs trained networks",
    "fastdens.training.runs.load_run": "it needs trained networks",
    "fastdens.training.runs.new_network": "build_network has one",
    "fastdens.training.runs.run_path": "it needs trained networks",
    "fastdens.training.runs.train_by_recipe": "train has one",
    "fastdens.training.runs.train_runs": "it trains networks in processes",
}

OBJECTS = list(public_objects())
CLASSES = [public for public in OBJECTS if inspect.isclass(public.value)]
CALLABLES = [public for public in OBJECTS if callable(public.value)]
MEMBERS = [member for public in CLASSES for member in members_of(public)]


def complaints(public: Public) -> list[str]:
    """What numpydoc finds wrong with a docstring."""
    off = SWITCHED_OFF.keys() | (OFF_FOR_CLASSES if inspect.isclass(public.value) else set())
    return [f"{code} {text}" for code, text in validate(get_doc_object(public.value))["errors"] if code not in off]


def test_docstrings_are_in_numpydoc_form():
    found = {public.name: complaints(public) for public in (*CALLABLES, *MEMBERS)}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_parameter_that_is_missing_is_found():
    def scale(x: float, factor: float) -> float:
        """Multiply.

        Parameters
        ----------
        x : float
            What to multiply.

        Returns
        -------
        float
            The product.
        """
        return factor * x

    assert [text[:4] for text in complaints(Public("scale", scale))] == ["PR01"]


def is_ours(owner: type) -> bool:
    return owner.__module__.split(".")[0] == "fastdens"


def documented_fields(owner: type) -> set[str]:
    """Names in the sections of parameters and attributes of a class, and fields with a docstring of their own."""
    doc = NumpyDocString(inspect.getdoc(owner) or "")
    entries = [entry.name for section in ("Parameters", "Attributes") for entry in doc[section]]
    found = {name.strip().lstrip("*") for entry in entries for name in entry.split(",")}
    for base in filter(is_ours, owner.__mro__):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        found |= {
            field.target.id
            for field, text in pairwise(body)
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
        }
    return found


def fields_of(owner: type) -> set[str]:
    """Fields of a record; of another class its arguments and what a fit sets, properties apart."""
    if hasattr(owner, "_fields"):
        return set(owner._fields)
    if dataclasses.is_dataclass(owner):
        return {field.name for field in dataclasses.fields(owner)}
    annotated = {name for base in filter(is_ours, owner.__mro__) for name in vars(base).get("__annotations__", {})}
    fitted = {name for name in annotated if name.endswith("_") and not name.startswith("_")}
    arguments = set(inspect.signature(owner).parameters)
    return {name for name in arguments | fitted if not isinstance(getattr(owner, name, None), property)}


@pytest.mark.parametrize(
    "public", [public for public in CLASSES if not issubclass(public.value, Warning)], ids=lambda public: public.name
)
def test_fields_arguments_and_fitted_attributes_are_documented(public):
    assert fields_of(public.value) <= documented_fields(public.value)


def raises(function: Callable[..., Any]) -> bool:
    """Whether a function has a ``raise`` of its own; what it calls may raise more."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def test_errors_that_a_function_raises_are_documented():
    functions = [public for public in (*CALLABLES, *MEMBERS) if inspect.isfunction(inspect.unwrap(public.value))]
    lacking = {
        public.name
        for public in functions
        if raises(inspect.unwrap(public.value)) and not NumpyDocString(inspect.getdoc(public.value) or "")["Raises"]
    }
    assert lacking == set()


def test_what_a_user_calls_first_has_an_example():
    lacking = {
        public.name
        for public in CALLABLES
        if not public.is_record
        and not (inspect.isclass(public.value) and issubclass(public.value, Exception))
        and not NumpyDocString(inspect.getdoc(public.value) or "")["Examples"]
    }
    assert lacking == set(WITHOUT_EXAMPLE)


def names_in_reference() -> Counter[str]:
    """Every name for which the pages have an entry: a page of its own, or one on the page of its topic."""
    found: Counter[str] = Counter()
    for page in API.glob("*.md"):
        module = ""
        for block in re.split(r"\n\n(?=\S)", page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if match := re.match(r"\.\. (?:current|py:)module:: (\S+)", line):
                    module = match[1]
                elif match := re.match(r"\.\. auto(?:class|function|data):: (\S+)", line):
                    found[f"{module}.{match[1]}"] += 1
            if ":toctree:" in block:
                found.update(f"{module}.{name}" for name in re.findall(r"^   (\w+)$", block, re.MULTILINE))
    return found


# Names of a second module, and classes that public functions return without a name in a public module.
ELSEWHERE = {
    "fastdens.analysis.MonteCarloEstimate": "fastdens.MonteCarloEstimate",
    "fastdens.training.runs.Recipe": "fastdens.training.Recipe",
}
RETURNED = {"fastdens.batch.BatchOnDisk"}


def test_reference_has_every_public_name_once_and_no_other():
    expected = {public.name for public in OBJECTS} - set(ELSEWHERE) | RETURNED
    found = names_in_reference()
    assert sorted(expected - set(found)) == []
    assert sorted(set(found) - expected) == []
    assert {name: times for name, times in found.items() if times > 1} == {}


def test_names_of_modules_exist():
    assert all(names_of(module) for module in MODULES)
    for name, other in ELSEWHERE.items():
        values = {public.name: public.value for public in OBJECTS}
        assert values[name] is values[other]
