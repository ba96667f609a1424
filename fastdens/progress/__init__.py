"""Progress of long work on stderr: bars in a terminal and in a notebook, a line a minute in a log; and its stages.

============  ==================================================================
`bars`        :func:`progress_bar`, which every long operation uses
`stages`      :class:`Stages` of a work that has several
`terminal`    bars that move, drawn by rich
`notebook`    bars in the output of a Jupyter cell
`log`         lines, where stderr is a file, a pipe or a terminal that cannot move
`words`       times in words
============  ==================================================================
"""

from __future__ import annotations

from fastdens.progress.bars import Advance, progress_bar
from fastdens.progress.stages import Stage, Stages
from fastdens.progress.words import about

__all__ = ["Advance", "Stage", "Stages", "about", "progress_bar"]
