"""The page about security: the tests that it names exist, its limits and options are those of the code."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from fastdens.training.datasets.image_formats import FORMATS
from fastdens.training.datasets.torchvision import UNPICKLED
from tests.test_paper_page import options_of

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "guides" / "security.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
TABLES = re.findall(r"^\|.*\|$(?:\n^\|.*\|$)+", TEXT, flags=re.M)


def rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def object_of(name):
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:at]))
        except ModuleNotFoundError:
            continue
        for part in parts[at:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"there is no {name}")


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_test_on_the_page_is_one_that_there_is(file, name):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_a_table_names_a_test():
    assert len(TABLES) == 4
    for table in TABLES:
        for row in rows(table):
            assert re.search(r"`tests/[\w/]+\.py::\w+`", row[-1]), row


def test_limits_are_those_of_the_code():
    (table,) = (table for table in TABLES if table.startswith("| limit"))
    limits = {row[2]: int(row[1].replace(",", "")) for row in rows(table)}
    ours = {constant.strip("`"): value for constant, value in limits.items() if constant.startswith("`fastdens")}
    assert len(ours) == len(limits) == 8
    assert all(object_of(constant) == value for constant, value in ours.items())


def test_functions_and_options_on_the_page_exist():
    names = re.findall(r"`(fastdens(?:\.\w+)+)`", TEXT)
    assert len(names) > 10 and all(object_of(name) is not None for name in names)
    options = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in code.split() if word.startswith("--")}
    assert (
        options == {"--allow-pickle", "--allow-code", "--overwrite", "--network", "--weights"} <= options_of("analyze")
    )


def test_numbers_in_words_are_those_of_the_code():
    assert "in seven formats" in TEXT and len(FORMATS) == 7
    assert all(name in TEXT for name in UNPICKLED if not name.endswith("Class"))


def test_every_permission_is_on_the_page():
    """A permission of the command begins with --allow: none is left out of the first table."""
    listed = {re.search(r"`(--[\w-]+)`", row[0])[1] for row in rows(TABLES[0])}
    permissions = {name for command in ("analyze", "memorization") for name in options_of(command) if "allow" in name}
    assert permissions == {name for name in listed if "allow" in name}
