"""The page about the paper: every command is one that the program takes, every function one that there is."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from fastdens import cli
from fastdens.report import sections

TEXT = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```shell\n(.*?)^```$", TEXT, flags=re.S | re.M)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
CODE = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.S | re.M))


def options_of(command):
    """The options of a command, as they are typed."""
    function = getattr(importlib.import_module(f"fastdens.cli.{command}"), command)
    parameters = inspect.signature(function).parameters.values()
    groups = [p.default for p in parameters if is_dataclass(p.default)]
    own = {field.name: field.default for group in groups for field in fields(group)}
    names = {name.replace("_", "-"): default for name, default in own.items()}
    return {f"--{name}" for name in names} | {f"--no-{name}" for name, default in names.items() if default is True}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_the_program_takes(command):
    program, *arguments = shlex.split(command)
    assert program == "fastdens"
    cli.make_app().parse_args(arguments, exit_on_error=False, print_error=False)


def test_options_in_the_text_exist():
    known = options_of("analyze") | options_of("memorization")
    named = {word for code in CODE for word in code.split() if word.startswith("--")}
    assert len(named) > 10 and named <= known


def test_functions_in_the_text_exist():
    named = {code for code in CODE if re.fullmatch(r"fastdens(\.\w+)+", code)}
    assert len(named) > 15
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_text_names_every_figure_of_a_report():
    section = TEXT[TEXT.index("## Figures") : TEXT.index("## Scripts")]
    sources = (path.read_text(encoding="utf-8") for path in Path(sections.__file__).parent.glob("*.py"))
    drawn = set(re.findall(r'yield "(\w+)", ', "".join(sources)))
    assert len(drawn) > 10 and drawn <= set(re.findall(r"`(\w+)`", section))
