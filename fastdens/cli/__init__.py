"""The command ``fastdens``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    from fastdens.cli.arguments import parser

    options = vars(parser().parse_args(arguments))
    command = options.pop("command")
    try:
        if command == "analyze":
            from fastdens.cli.analyze import analyze
            from fastdens.cli.options import AnalyzeOptions

            analyze(AnalyzeOptions(**options))
        else:
            from fastdens.cli.memorization import memorization
            from fastdens.cli.options import MemorizationOptions

            memorization(MemorizationOptions(**options))
    except (ValueError, OSError, ImportError) as error:
        print(f"fastdens: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fastdens: interrupted", file=sys.stderr)
        return 130
    return 0
