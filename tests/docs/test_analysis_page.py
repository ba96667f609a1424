"""The guide to the analysis: figures, sections, functions, options and commands on it are those of the program."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from fastdens.report.metrics import SECTION_NAMES
from fastdens.report.sections import SECTIONS
from tests.test_paper_page import options_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guides" / "analysis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```shell\n(.*?)^```$", TEXT, flags=re.S | re.M)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.startswith("fastdens")]
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.S | re.M))


def rows_under(heading):
    """Cells of the table below a heading."""
    table = re.search(rf"^## {heading}$.*?\n\|[-|]+\|\n(.*?)\n\n", TEXT, flags=re.S | re.M)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()]


def test_figures_are_those_of_the_report():
    """Of every section, with the functions that draw them and the place of their numbers."""
    sources = {path.stem: path.read_text() for path in (ROOT / "fastdens" / "report" / "sections").glob("*.py")}
    drawn = {(name, stem) for stem, text in sources.items() for name in re.findall(r'yield "(\w+)"', text)}
    rows = rows_under("Find a figure")
    assert {(row[0].strip("`"), row[1].strip("`#")) for row in rows} == drawn
    figures = importlib.import_module("fastdens.analysis.figures")
    for figure, section, drawn_by, numbers in rows:
        functions = re.findall(r"`(\w+)`", drawn_by)
        assert functions and all(
            hasattr(figures, name) and name in sources[section.strip("`#")] for name in functions
        ), figure
        assert all(number.split(".")[0] == section.strip("`#") for number in re.findall(r"`([^`]+)`", numbers))
    assert {row[1].strip("`#") for row in rows} <= set(SECTION_NAMES)


def test_sections_are_those_of_the_report():
    titles = [section.title for section in SECTIONS if section.name != "findings"]
    assert [row[0] for row in rows_under("What each section says")] == titles


def test_functions_and_options_exist():
    analysis = importlib.import_module("fastdens.analysis")
    named = [name for row in rows_under("Its parts") for name in re.findall(r"`(\w+)`", row[1])]
    assert len(named) > 15 and all(hasattr(analysis, name) for name in named)
    options = {word for code in CODE for word in code.split() if word.startswith("--")}
    known = options_of("analyze") | options_of("memorization") | {"--help", "--no-stream"}
    assert len(options) > 15 and options <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_the_program_takes(command):
    from fastdens import cli

    program, *arguments = shlex.split(command, comments=True)
    assert program == "fastdens"
    cli.make_app().parse_args(arguments, exit_on_error=False, print_error=False)
