"""One progress bar for everything that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        raise ImportError("A progress bar needs rich: pip install rich, or pass progress=False.") from None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance
