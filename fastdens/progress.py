"""Progress on stderr: the bar that every long operation shows, and the stages of a work that has several."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from fastdens.kernels.optional import require
from fastdens.printable import printable

Advance = Callable[..., None]


@contextmanager
def progress_bar(description: str, total: int | None, *, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """A bar on stderr; the block gets ``advance(steps=1, note=None)``.

    The time that is left follows from that of all steps so far, however slow they are.

    Parameters
    ----------
    description : str
    total : int or None
        Steps until the end; None if that is not known.
    done : int
        Those of them that were made before.
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

    # rich's own column looks back by 30 seconds, in which a network is not trained.
    class Time(rich.ProgressColumn):  # type: ignore[misc, name-defined]
        """The time that is left, and at the end the time that it took."""

        def render(self, task: Any) -> str:
            if task.remaining == 0:
                return str(timedelta(seconds=round(task.elapsed or 0)))
            return f"{time_left(task.elapsed, task.completed - done, task.remaining)} left"

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        Time(),
        rich.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich.Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=printable(note))

        yield advance


def time_left(elapsed: float | None, n_made: float, n_left: float | None) -> str:
    """As h:mm:ss, or -:--:-- before the first step and where the end is not known."""
    if not elapsed or n_made <= 0 or n_left is None:
        return "-:--:--"
    return str(timedelta(seconds=math.ceil(elapsed * n_left / n_made)))


class Stage(NamedTuple):
    """A part of a long work.

    Attributes
    ----------
    name : str
        By which :meth:`Stages.stage` calls it.
    title : str
        What is done, such as "training 16 networks for memorization".
    work : mapping of str to float
        How much is to be done, by the kind of work, such as ``{"training image": 57_480}``.
    """

    name: str
    title: str
    work: Mapping[str, float] = MappingProxyType({})


class Stages:
    """Tells on stderr which stage of a work begins, of how many, about how long it takes, and what is left in all.

    A time is told where the seconds that each kind of its work takes are known: they were measured beforehand, or
    follow from an earlier stage that had no other kind of work.

    Parameters
    ----------
    stages : iterable of Stage
        In the order of the work.
    seconds : mapping of str to float
        Seconds that one unit of each kind of work takes, as far as they are known.
    shown : bool
        False tells nothing.

    Examples
    --------
    ::

        stages = Stages([Stage("networks", "training 2 networks"), Stage("layers", "fitting 40 classes")])
        with stages.stage("networks"):  # 1 of 2: training 2 networks
            ...
    """

    def __init__(
        self, stages: Iterable[Stage], seconds: Mapping[str, float] = MappingProxyType({}), *, shown: bool = True
    ) -> None:
        self._stages = tuple(stages)
        self._seconds = dict(seconds)
        self._shown = shown

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell that a stage begins; where it ends, learn from the time that it took. Other names tell nothing."""
        at = next((at for at, own in enumerate(self._stages) if own.name == name), None)
        if at is None:
            yield
            return
        if self._shown:
            print(printable(self._line(at)), file=sys.stderr, flush=True)
        start = time.perf_counter()
        yield
        self._learn(self._stages[at], time.perf_counter() - start)

    def _line(self, at: int) -> str:
        line = f"{at + 1} of {len(self._stages)}: {self._stages[at].title}"
        own, rest = (self._time_of(stages) for stages in ((self._stages[at],), self._stages[at:]))
        if own is not None:
            line += f", {about(own)}"
        if rest is not None and at + 1 < len(self._stages):
            line += f"; {about(rest)} left in all"
        return line

    def _time_of(self, stages: Iterable[Stage]) -> float | None:
        """Seconds that stages take, None where one of them has unknown work or a kind that was not measured."""
        total = 0.0
        for stage in stages:
            if not stage.work or not stage.work.keys() <= self._seconds.keys():
                return None
            total += sum(amount * self._seconds[kind] for kind, amount in stage.work.items())
        return total

    def _learn(self, stage: Stage, seconds: float) -> None:
        if len(stage.work) == 1:
            ((kind, amount),) = stage.work.items()
            if amount:
                self._seconds[kind] = seconds / amount


def about(seconds: float) -> str:
    """A time in words, to two digits: "about 4 min"."""
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            amount = seconds / size
            return f"about {amount:.0f} {unit}" if amount >= 10 else f"about {amount:.1f} {unit}".replace(".0 ", " ")
    return f"about {seconds:.0f} s" if seconds >= 1 else "under a second"
