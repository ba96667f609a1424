"""The command ``fastdens``: options become data, an analysis and a report.

==============  ==================================================================
`app`           the commands, each of which has a file of its own here
`entry`         :func:`main`: exit statuses, errors in one sentence, signals
`options`       options of files, what is taken for one that is left out, and which exclude each other
`inputs`        what is analyzed, made of these options
`output`        what a command prints, as text or as JSON
`help_groups`   the titles in the help
==============  ==================================================================

Each option is a field of a dataclass, in :mod:`fastdens.cli.options`, :mod:`fastdens.cli.output` or
:mod:`fastdens.pipeline.options`, with its default and, below it, its help; cyclopts makes the arguments from them. An
option that the user leaves out has the value of the protocol, of the preset of the data set, or else the default of the
field; :mod:`fastdens.pipeline.protocols` says which wins.
"""

import sys

try:
    import cyclopts  # noqa: F401
except ImportError:
    sys.exit("fastdens: the command needs cyclopts, which is not installed: pip install 'fastdens[analysis]'.")

from fastdens.cli.app import make_app
from fastdens.cli.entry import main

__all__ = ["main", "make_app"]
