"""The commands; a new one is a function in a file of its own, and one line here."""

from __future__ import annotations

from cyclopts import App, Group, Parameter

import fastdens as fd
from fastdens.cli.analyze import analyze
from fastdens.cli.bench import bench
from fastdens.cli.compare import compare
from fastdens.cli.memorization import memorization
from fastdens.cli.options import presets_in_words, settle
from fastdens.cli.report import report
from fastdens.cli.scores import scores

COMMANDS = (
    analyze,
    memorization,
    scores,
    report,
    compare,
    bench,
)


def make_app() -> App:
    """The commands and their options."""
    app = App(
        name="fastdens",
        help="Densities of the classes of a network, by layer.",
        help_format="markdown",
        version=f"fastdens {fd.__version__}",
        version_flags=["--version"],
        version_format="plaintext",
        config=settle,
        # The last value of a repeated option counts, so that the options of a script can be overridden.
        default_parameter=Parameter(
            consume_multiple=True, negative_iterable=(), negative_none=(), allow_repeating=True
        ),
    )
    for command in COMMANDS:
        app.command(command, help_epilogue=presets_in_words() if command is analyze else None)
    app.register_install_completion_command(
        group=Group("Shell"), help="Let the shell complete commands and options: bash, zsh, fish or PowerShell."
    )
    return app
