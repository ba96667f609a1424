"""``fastdens bench``: options become rows, and rows a table, a picture and files."""
# ruff: noqa: B008 (the defaults of the arguments are frozen)

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastdens.cli import help_groups
from fastdens.cli.options import Flag
from fastdens.cli.output import Output

if TYPE_CHECKING:
    from fastdens.bench.cases import Peer

NONE = "none"
"""In place of peers: no peer."""


def bench(
    *patterns: str,
    quick: Flag = False,
    peers: tuple[str, ...] | None = None,
    threads: int | None = None,
    output: Path | None = None,
    list_rows: Annotated[bool, Parameter(name="--list", negative=())] = False,
    overwrite: Flag = False,
    data: Path | None = None,
    prints: Annotated[Output, help_groups.OUTPUT] = Output(),
) -> None:
    """Time fastdens beside other libraries, and beside the matrix products that it cannot do without.

    All libraries have the same data, the same start, the same number of iterations and float32, in one process and in
    turns; what they make of it is compared. Without patterns all rows are timed, and then how time grows with sizes and
    falls with threads.

    Parameters
    ----------
    patterns : str
        Rows, by parts of their names or with wildcards: em, paper-64, "em-*/tiny".
    quick : bool
        Fewer and smaller rows, less time for each library: two minutes, once all is compiled.
    peers : tuple of str
        Other libraries to time, all that are known by default; "none" for none.
    threads : int
        Threads of all libraries; by default those of torch.
    output : Path
        Folder for results.json, which grows with every row, tables and the picture.
    list_rows : bool
        Print the rows and libraries that there are, and do nothing.
    overwrite : bool
        Replace earlier results in that folder.
    data : Path
        Folder to write the data of the rows to, in place of timing them.
    """
    from fastdens.bench import table
    from fastdens.bench.data import write_data
    from fastdens.bench.machine import threads as on_threads
    from fastdens.bench.output import check_output, write
    from fastdens.bench.results import Results
    from fastdens.bench.rows import choose
    from fastdens.bench.run import Plan, rows_of, run

    rows = choose(rows_of(quick), patterns)
    chosen = _peers_named(peers)
    if list_rows:
        prints.line(table.describe_choice(rows, chosen))
        prints.document("bench", rows=[row.name for row in rows], peers=[peer.name for peer in chosen])
        return
    if data is not None:
        folders = write_data(rows, data, overwrite=overwrite)
        prints.line("\n".join(map(str, folders)))
        prints.document("bench", folders=folders)
        return
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, but must be at least 1.")
    plan = Plan(rows, chosen, quick, scaling=not patterns)
    with on_threads(threads):
        if output is None:
            results, files = run(plan, prints.line), []
        else:
            check_output(output, overwrite=overwrite)
            # What is there from here on is of this run, or may go.
            results = run(plan, prints.line, keep=partial(Results.save, folder=output, overwrite=True))
            files = write(results, output, overwrite=True)
    prints.line("\n".join([table.describe_results(results), *map(str, files)]))
    prints.document("bench", files=files, results=json.loads(results.to_json()))


def _peers_named(names: tuple[str, ...] | None) -> tuple[Peer, ...]:
    """The peers of these names, all if there are none.

    Raises
    ------
    ValueError
        If there is no such peer.
    """
    from fastdens.bench.peers import PEERS

    if names is None:
        return PEERS
    known = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in known and names != (NONE,):
            raise ValueError(f"peers has {name!r}, but there are {', '.join(known)}, or {NONE!r}.")
    return tuple(peer for peer in PEERS if peer.name in names)
