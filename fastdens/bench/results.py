"""What a benchmark found, as data: saved as JSON and loaded again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastdens.bench.cases import Problem
from fastdens.io.atomic import atomic_write

FORMAT = 1
FILE = "results.json"
NOT_INSTALLED = "not installed"
"""How the message begins of a library that is not there."""


@dataclass(frozen=True)
class Timing:
    """A library in a row.

    Attributes
    ----------
    name : str
    seconds : float or None
        For all models; None if it failed.
    n_models : int
        Models that were timed; the time is scaled where these are not all.
    n_calls : int
        Calls, of which the shortest counts.
    is_warm : bool
        Whether there was a call before that did not count.
    difference : float or None
        Of the outcome from that of fastdens (:func:`fastdens.bench.comparison.difference`).
    agrees : bool or None
        Whether it is small enough; None where there is nothing to compare.
    note : str
        What sets the library apart in this row.
    error : str
        The whole message if it failed.
    """

    name: str
    seconds: float | None = None
    n_models: int = 0
    n_calls: int = 0
    is_warm: bool = True
    difference: float | None = None
    agrees: bool | None = None
    note: str = ""
    error: str = ""


@dataclass(frozen=True)
class RowResult:
    """A row of the table.

    Attributes
    ----------
    name, operation, variant, n_iter
        Of the :class:`~fastdens.bench.rows.Row`.
    problem : Problem
    ours : Timing
        With the message alone where it failed; the row has no more then.
    floor : float or None
        Seconds.
    floor_is : str
        What the floor is, in words.
    peers : tuple of Timing
    remark : str
        What else there is to say of the outcome of fastdens.
    """

    name: str
    operation: str
    variant: str
    n_iter: int
    problem: Problem
    ours: Timing
    floor: float | None = None
    floor_is: str = ""
    peers: tuple[Timing, ...] = ()
    remark: str = ""

    def is_scaled(self, timing: Timing) -> bool:
        """Whether a time was measured on some of the models."""
        return timing.n_models < self.problem.n_models


@dataclass(frozen=True)
class Exponent:
    """How seconds grow with one size: in proportion to its power ``exponent``, measured at ``values``."""

    method: str
    axis: str
    exponent: float
    values: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ThreadTime:
    """Seconds of an operation with some number of threads."""

    operation: str
    n_threads: int
    seconds: float


@dataclass(frozen=True)
class PeerFacts:
    """A library that took part: its version here, and what it does that fastdens does not."""

    name: str
    distribution: str
    version: str | None
    beyond: str


@dataclass(frozen=True)
class Results:
    """Everything that a run measured, and where.

    Attributes
    ----------
    machine : dict of str to object
        Processor, cores, threads, versions (:func:`fastdens.bench.machine.describe`).
    seconds : float
        Of the whole run.
    """

    machine: dict[str, Any]
    rows: tuple[RowResult, ...] = ()
    exponents: tuple[Exponent, ...] = ()
    threads: tuple[ThreadTime, ...] = ()
    peers: tuple[PeerFacts, ...] = ()
    quick: bool = False
    seconds: float = 0.0
    format: int = field(default=FORMAT)

    def to_json(self) -> str:
        """As JSON, a key a line."""
        made = asdict(self)
        for row in made["rows"]:
            row["problem"] = row["problem"]._asdict()
        return json.dumps(made, indent=1, allow_nan=False) + "\n"

    def save(self, folder: Path, *, overwrite: bool = False) -> Path:
        """Write ``results.json``.

        Raises
        ------
        FileExistsError
            If it is there and ``overwrite`` is False.
        """
        path = folder / FILE
        with atomic_write(path, overwrite=overwrite) as partial:
            partial.write_text(self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """The results in a file, or in a folder of ``results.json``.

        Raises
        ------
        ValueError
            If it holds no results of this version.
        """
        file = path / FILE if path.is_dir() else path
        try:
            read = json.loads(file.read_text())
            if read["format"] != FORMAT:
                raise ValueError(f"{file} has format {read['format']}, but this version reads {FORMAT}: run it again.")
            rows = tuple(
                RowResult(
                    **{
                        **row,
                        "problem": Problem(**row["problem"]),
                        "ours": Timing(**row["ours"]),
                        "peers": tuple(Timing(**timing) for timing in row["peers"]),
                    }
                )
                for row in read["rows"]
            )
            exponents = tuple(
                Exponent(**{**own, "values": tuple(own["values"]), "seconds": tuple(own["seconds"])})
                for own in read["exponents"]
            )
            threads = tuple(ThreadTime(**own) for own in read["threads"])
            peers = tuple(PeerFacts(**own) for own in read["peers"])
            lists = {"rows": rows, "exponents": exponents, "threads": threads, "peers": peers}
            return cls(**{**read, **lists})
        except (TypeError, LookupError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} holds no results of a benchmark ({error}): run fastdens bench again.") from None
