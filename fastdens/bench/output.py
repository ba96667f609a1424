"""Results as files: numbers, tables for pages, the picture."""

from __future__ import annotations

from pathlib import Path

from fastdens.bench import picture, table
from fastdens.bench.results import FILE, Results
from fastdens.io.atomic import atomic_write, check_place

SHORT, FULL, SCALING, PEERS = "summary.md", "table.md", "scaling.md", "peers.md"


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raise before anything is measured if the results could not be written.

    Raises
    ------
    FileExistsError
        If there are results, or parts of them, in the folder and ``overwrite`` is False.
    """
    files = (FILE, SHORT, FULL, SCALING, PEERS, *picture.FILES)
    if not overwrite and any((folder / name).exists() for name in files):
        raise FileExistsError(f"{folder} has results already: choose another --output or pass --overwrite.")
    check_place(folder / FILE)


def write(results: Results, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``results.json``, ``table.md``, ``summary.md``, ``scaling.md``, ``peers.md``, ``times.png`` and its PDF."""
    written = [results.save(folder, overwrite=overwrite)]
    for name, content in pages(results).items():
        with atomic_write(folder / name, overwrite=overwrite) as partial:
            partial.write_text(content)
        written.append(folder / name)
    return [*written, *picture.draw(results.rows, folder, overwrite=overwrite)]


def pages(results: Results) -> dict[str, str]:
    """The parts of pages, by the names of their files."""
    return {
        SHORT: table.short_markdown(results),
        FULL: table.full_markdown(results),
        SCALING: table.scaling_markdown(results),
        PEERS: table.peers_markdown(results.peers),
    }
