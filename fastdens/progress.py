"""The progress bar that every long operation shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastdens.kernels.optional import require

Advance = Callable[..., None]


@contextmanager
def progress_bar(description: str, total: int | None, *, shown: bool = True) -> Iterator[Advance]:
    """A bar on stderr; the block gets ``advance(steps=1, note=None)``.

    Parameters
    ----------
    description : str
    total : int or None
        Steps until the end; None if that is not known.
    shown : bool
        False shows nothing and needs nothing installed.

    Raises
    ------
    ImportError
        If rich is missing.
    """
    if not shown:
        yield lambda steps=1, note=None: None
        return
    rich = require("rich.progress", "a progress bar (progress=True)", "cpu")
    console = require("rich.console", "a progress bar (progress=True)", "cpu").Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance
