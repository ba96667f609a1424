"""The examples in docstrings run, on their own, and print what they say."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The docstrings of a module and of all that it defines, by name."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        yield name, ast.get_docstring(node) or ""
        for child in node.body:
            yield from docstrings(child, f"{name}.{getattr(child, 'name', '')}")


def examples() -> dict[str, doctest.DocTest]:
    """The examples of each docstring that has some; the names that they use are their own."""
    found = {}
    for folder, package in (("fastdens", "fastdens"), ("kernels", "fastdens.kernels")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if ">>> " not in text:
                continue
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            for name, docstring in docstrings(ast.parse(text), module):
                test = doctest.DocTestParser().get_doctest(docstring, {}, name, str(path), 0)
                if test.examples:
                    found[name] = test
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_it_says(name, tmp_path, monkeypatch):
    # Files of an example lie beside it.
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    failures: list[str] = []
    results = doctest.DocTestRunner(optionflags=OPTIONS).run(EXAMPLES[name], out=failures.append)
    assert results.failed == 0, "".join(failures)


def test_no_example_is_skipped():
    skipped = {
        name
        for name, test in EXAMPLES.items()
        for example in test.examples
        if example.options.get(doctest.SKIP) or "doctest: +SKIP" in example.source
    }
    assert not skipped


def test_a_wrong_example_fails():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong.py", 0)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda text: None).failed == 1
