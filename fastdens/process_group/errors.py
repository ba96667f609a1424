"""Errors that concern ranks, and errors as ranks tell them to each other."""

from __future__ import annotations

import builtins
from typing import Any

from fastdens.errors import ModelError


class RankEndedError(RuntimeError):
    """A rank has ended while others still needed it.

    Parameters
    ----------
    rank : int
        The rank that has ended.
    name : str
        The rank, its host and its process, for messages.
    remedy : str
        What to do, for the message.

    Attributes
    ----------
    rank, name : int, str
        As they were given.
    """

    def __init__(self, rank: int, name: str, remedy: str = "start again") -> None:
        super().__init__(f"{name} has ended before the others were done: {remedy}.")
        self.rank, self.name = rank, name

    def with_remedy(self, remedy: str) -> RankEndedError:
        """The same error with other advice.

        Parameters
        ----------
        remedy : str
            What to do instead.

        Returns
        -------
        RankEndedError
            Of the same rank.
        """
        return RankEndedError(self.rank, self.name, remedy)


def to_message(error: BaseException) -> dict[str, Any]:
    """An error as JSON holds it."""
    failures = error.failures if isinstance(error, ModelError) else {}
    text = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
    return {"type": type(error).__name__, "text": text, "failures": {str(m): why for m, why in failures.items()}}


def from_message(message: dict[str, Any], name: str) -> Exception:
    """The error of another rank, of its own type where that is a plain one, with a note that names the rank."""
    kind, text = message["type"], message["text"]
    found = getattr(builtins, kind, None)
    error: Exception
    if kind == ModelError.__name__:
        error = ModelError(text, {int(m): why for m, why in message["failures"].items()})
    elif found in _PLAIN:
        error = found(text)
    else:
        error = RuntimeError(f"{name} raised {kind}: {text}")
    error.add_note(f"Raised on {name}.")
    return error


# Those that a text alone makes.
_PLAIN = frozenset(
    {
        *(ArithmeticError, AssertionError, AttributeError, FloatingPointError, ImportError, IndexError, LookupError),
        *(MemoryError, NotImplementedError, OSError, OverflowError, RuntimeError, TypeError, ValueError),
        *(FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
    }
)
