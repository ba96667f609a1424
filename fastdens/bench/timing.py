"""Times of libraries that do the same, taken in turns."""

from __future__ import annotations

import contextlib
import gc
import io
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastdens.bench.cases import Case, Peer, Run

# Models of a library that treats many at once.
_MANY = 16


class Budget(NamedTuple):
    """How long a library is tried in a row.

    Attributes
    ----------
    seconds : float
        A library that treats models one by one is timed on as many as take about this long.
    rounds : int
        Calls of each, less where they take longer than ``rounds`` times ``seconds``.
    patience : float
        A first call that takes longer than this many seconds is the only one: it counts, warm or not.
    max_bytes : int
        The most that the work of a library may hold at a time, by its own account.
    """

    seconds: float
    rounds: int
    patience: float
    max_bytes: int = 2 << 30


class TooLargeError(MemoryError):
    """A library would hold more than there is room for."""


@dataclass
class Contestant:
    """A library in a row: what it runs, on how many models, and the seconds of each call.

    ``made`` is what the last call returned. A time of the first call of all, which may import and compile, counts as
    long as there is no other: ``is_warm`` is then False. ``times_before`` are those of work that is taken off.
    """

    name: str
    run: Run
    n_models: int
    times: list[float] = field(default_factory=list)
    times_before: list[float] = field(default_factory=list)
    made: Any = None
    is_warm: bool = True

    @property
    def seconds(self) -> float:
        """The shortest time of a call, less the shortest of what is taken off."""
        # The least of differences would be one that noise has made small.
        return max(0.0, min(self.times) - min(self.times_before, default=0.0))

    @property
    def is_mostly_taken_off(self) -> bool:
        """Whether the seconds are a small difference of two times, and so uncertain."""
        return min(self.times_before, default=0.0) > 4 * self.seconds

    @property
    def elapsed(self) -> float:
        """The time of all calls, with what is taken off."""
        return sum(self.times) + sum(self.times_before)

    def call(self) -> None:
        """Time a call."""
        if self.run.before is not None:
            self.times_before.append(_seconds_of(self.run.before)[0])
        seconds, self.made = _seconds_of(self.run.work)
        self.times.append(seconds)

    def forget(self) -> None:
        """Leave out the calls that were made."""
        self.times.clear()
        self.times_before.clear()


def enter(
    name: str,
    make: Callable[[Case], Run],
    case: Case,
    budget: Budget,
    *,
    scales: bool,
    whole: bool = False,
    together: bool = False,
) -> Contestant:
    """A library with its first calls: of one model to warm up, then of as many as its time allows.

    Parameters
    ----------
    name : str
    make : callable
        What the library does for a case.
    case : Case
    budget : Budget
    scales : bool
        Whether fewer models are the same work for each of them.
    whole : bool
        All models, whatever their time.
    together : bool
        Many models, at least, or as many as its patience allows.
    """
    n_all = case.problem.n_models
    n_models = 1 if scales else n_all
    contestant = Contestant(name, make(case.first(n_models)), n_models)
    contestant.call()
    if whole and n_models < n_all:
        contestant = Contestant(name, make(case), n_all)
        contestant.call()
        return contestant
    if contestant.elapsed > budget.patience and not whole:
        contestant.is_warm = False
        return contestant
    contestant.forget()
    contestant.call()
    if whole:
        return contestant
    while n_models < n_all:
        seconds_of_one = max(contestant.elapsed / len(contestant.times), 1e-4) / n_models
        fitting = int(budget.seconds / seconds_of_one)
        if together and n_models == 1:
            fitting = max(fitting, min(_MANY, int(budget.patience / seconds_of_one)))
        if fitting < 2 * n_models:
            break
        # A library that takes all models at once seems slower by its first one than it is: see how it does with more.
        n_models = min(n_all, fitting, 64 * n_models)
        contestant = Contestant(name, make(case.first(n_models)), n_models)
        contestant.call()
    return contestant


def check_room(peer: Peer, case: Case, budget: Budget, *, scales: bool) -> Case:
    """The case, or as many of its models as leave a library within the memory that there is.

    Raises
    ------
    TooLargeError
        If one model takes too much.
    """
    if case.operation not in peer.holds:
        return case
    holds = peer.holds[case.operation]
    n_models = case.problem.n_models
    while holds(case.first(n_models)) > budget.max_bytes:
        if not scales or n_models == 1:
            raise TooLargeError(f"would hold {holds(case.first(n_models)) / 1e9:.1f} GB at a time")
        n_models = max(1, n_models // 2)
    return case.first(n_models)


def take_turns(contestants: list[Contestant], budget: Budget) -> None:
    """Call all of them in rounds, in one order and then in the other, the slow ones in fewer rounds."""
    order = list(contestants)
    for _ in range(budget.rounds):
        for contestant in order:
            if contestant.elapsed * (1 + 1 / len(contestant.times)) <= budget.rounds * budget.seconds:
                contestant.call()
        order.reverse()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, nothing printed, no collection of garbage: libraries are asked to do what some of them warn of."""
    gc.collect()
    gc.disable()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            gc.enable()


def seconds_of_run(run: Run) -> float:
    """The shortest time of three calls, without other libraries in between."""
    contestant = Contestant("", run, 0)
    for _ in range(3):
        contestant.call()
    return contestant.seconds


def _seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    made = work()
    return time.perf_counter() - begin, made
