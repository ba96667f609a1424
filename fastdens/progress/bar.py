"""The state of one bar, and its words; how it looks is the business of a display."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from fastdens.progress.words import clock


@dataclass(eq=False)
class Bar:
    """Steps of a work: all of them, those made before, and those made by now.

    Attributes
    ----------
    description : str
    total : int or None
        None if the end is not known.
    before : int
        Steps that were made before the work began.
    made : int
        Steps made in all, with those before.
    note : str
        What the work says of itself.
    began, stepped : float
        When it began, and when the last step was made, in seconds of ``time.perf_counter``.
    ended : float or None
        When it ended.
    failed : bool
        Whether an error ended it.
    """

    description: str
    total: int | None
    before: int = 0
    made: int = field(init=False)
    note: str = ""
    began: float = field(init=False)
    stepped: float = field(init=False)
    ended: float | None = None
    failed: bool = False

    def __post_init__(self) -> None:
        self.made = self.before
        self.began = self.stepped = time.perf_counter()

    def step(self, steps: int, note: str | None) -> None:
        """Count steps, of which there may be none, and keep a note."""
        if steps:
            self.made += steps
            self.stepped = time.perf_counter()
        if note is not None:
            self.note = note

    def end(self, *, failed: bool) -> None:
        """Stop the clock."""
        self.ended, self.failed = time.perf_counter(), failed

    @property
    def elapsed(self) -> float:
        """Seconds since it began, until it ended."""
        return (time.perf_counter() if self.ended is None else self.ended) - self.began

    @property
    def left(self) -> float | None:
        """Seconds until the end, if its steps take as long as those so far; None before the first, or without an end.

        Time since the last step counts as part of the step that is being made.
        """
        made = self.made - self.before
        if self.total is None or made <= 0:
            return None
        a_step, steps = (self.stepped - self.began) / made, max(self.total - self.made, 0)
        waited = time.perf_counter() - self.stepped
        return max(steps * a_step - waited, max(steps - 1, 0) * a_step)

    @property
    def time(self) -> str:
        """The time that is left; after the end, the time that it took."""
        return clock(self.elapsed) if self.ended is not None or self.total is None else f"{clock(self.left)} left"

    @property
    def count(self) -> str:
        """Steps made of all, as short as can be."""
        return f"{self.made:,}" if self.total is None else f"{self.made:,}/{self.total:,}"

    @property
    def sentence(self) -> str:
        """A line for readers of a log."""
        line = f"{self.description}: {self.made:,}"
        if self.total is not None:
            line += f" of {self.total:,}"
            if 0 < self.total != self.made:
                line += f" ({100 * self.made // self.total} %)"
        if self.ended is not None:
            line += f", {'stopped after' if self.failed else 'took'} {clock(self.elapsed)}"
        else:
            line += f", {self.time}" if self.total is not None else f", {self.time} so far"
        return f"{line}, {self.note}" if self.note else line


class Display(Protocol):
    """Where bars are shown, from the beginning of the first to the end of the last."""

    def show(self, bars: tuple[Bar, ...]) -> None:
        """Bars have begun, changed or gone; the outermost is the first. This is called often and must be cheap."""

    def close(self, bar: Bar) -> None:
        """The last bar has ended; nothing is shown after it."""
