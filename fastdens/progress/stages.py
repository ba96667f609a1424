"""The stages of a work that has several: which one begins, about how long it takes, and what is left in all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from fastdens.printable import printable
from fastdens.progress.bars import tell
from fastdens.progress.words import about


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
            tell(printable(self._line(at)))
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
