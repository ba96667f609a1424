"""Results as text for a terminal and as Markdown for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby

from fastdens.bench import text
from fastdens.bench.cases import Peer
from fastdens.bench.problems import PROBLEMS
from fastdens.bench.results import NOT_INSTALLED, PeerFacts, Results, RowResult, Timing
from fastdens.bench.rows import Row

HEADLINES = (
    ("em-full/small",),
    ("em-full/paper-16",),
    ("em-full/paper-64",),
    ("em-full/imagenet", "em-full/imagenet-tenth"),
    ("em-full/tiny",),
    ("em-full/big", "em-full/large"),
    ("em-full/wide",),
    ("em-diag/paper-64", "em-diag/paper-16"),
    ("start-kmeans++/paper-64",),
    ("start-kmeans/paper-64",),
    ("log_prob/paper-64",),
    ("gibbs/paper-16",),
    ("variational/paper-16",),
    ("kl/paper-16",),
    ("neighbours/paper-64",),
    ("scores/paper-64",),
)
"""Rows of the short table, the first of each that there is."""

LEGEND = (
    "In brackets: how many times as long as fastdens. ~ timed on some of the models and scaled to all; "
    "¹ one call without a warm-up; ≠ came to another outcome; - has no such operation."
)


def describe_row(row: RowResult) -> str:
    """A row as lines of a terminal."""
    about = "  ".join(part for part in (row.name, text.size(row.problem), text.amount(row), row.remark) if part)
    if row.ours.seconds is None:
        return f"{about}\n{_failed_line(row.ours)}"
    lines = [about, _line(row.ours.name, text.seconds(row.ours.seconds))]
    if row.floor is not None:
        over = text.times(row.ours.seconds / row.floor)
        lines.append(_line("floor", text.seconds(row.floor), f"fastdens takes {over} times {row.floor_is}"))
    lines += [_peer_line(row, peer) for peer in row.peers if not peer.error.startswith(NOT_INSTALLED)]
    absent = ", ".join(peer.name for peer in row.peers if peer.error.startswith(NOT_INSTALLED))
    if absent:
        lines.append(f"  {NOT_INSTALLED:20}{absent}")
    return "\n".join(lines)


def _line(name: str, *columns: str) -> str:
    return f"  {name:20}{columns[0]:>10}   {'  '.join(columns[1:])}".rstrip()


def _failed_line(timing: Timing) -> str:
    return f"  {timing.name:20}{text.short(timing.error)}"


def _peer_line(row: RowResult, peer: Timing) -> str:
    if peer.seconds is None:
        return _failed_line(peer)
    remarks = [text.agreement(peer)]
    if row.is_scaled(peer):
        remarks.append(f"scaled from {peer.n_models:,} model{'s' * (peer.n_models > 1)}")
    if not peer.is_warm:
        remarks.append("one call, no warm-up")
    ratio = f"{text.times(peer.seconds / (row.ours.seconds or 1.0)):>6} x"
    return _line(peer.name, text.seconds(peer.seconds), ratio, ", ".join(part for part in remarks if part))


def describe_summary(results: Results) -> str:
    """The headlines in aligned columns."""
    shown = headlines(results.rows)
    if not shown:
        return ""
    rows = [("", *_SHORT_HEADER), *((_named(row), *_short_cells(row)) for row in shown)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def describe_results(results: Results) -> str:
    """What stands below the rows: the headlines, exponents and threads, and where all was measured."""
    parts = [describe_summary(results), describe_scaling(results), f"{machine_in_words(results)}."]
    return "\n\n".join(part for part in (*parts, f"{results.seconds:.0f} seconds in all.") if part)


def describe_choice(rows: Iterable[Row], peers: Iterable[Peer]) -> str:
    """The rows, and the libraries that take part, as lines of a terminal."""
    lines = [f"{row.name:28}{text.size(PROBLEMS[row.problem])}" for row in rows]
    lines += ["", *(f"{peer.name:28}{', '.join(peer.operations)}" for peer in peers)]
    return "\n".join(lines)


def describe_scaling(results: Results) -> str:
    """Exponents and thread scaling as lines of a terminal."""
    lines = []
    for method, own in groupby(results.exponents, lambda exponent: exponent.method):
        found = "  ".join(f"{one.axis}^{one.exponent:.2f}" for one in own)
        lines.append(f"time of {method} grows with  {found}")
    for operation, timings in groupby(results.threads, lambda timing: timing.operation):
        found = "  ".join(f"{one.n_threads}: {text.seconds(one.seconds)}" for one in timings)
        lines.append(f"threads, {operation}  {found}")
    return "\n".join(lines)


def headlines(rows: Iterable[RowResult]) -> list[RowResult]:
    """The rows of the short table."""
    by_name = {row.name: row for row in rows}
    found = (next((by_name[name] for name in names if name in by_name), None) for names in HEADLINES)
    return [row for row in found if row is not None]


_SHORT_HEADER = ("models x points x dimensions", "fastdens", "over the floor", "fastest other library")


def _short_cells(row: RowResult) -> tuple[str, ...]:
    if row.ours.seconds is None:
        return text.size(row.problem), "fails", "-", "-"
    best = text.best_peer(row)
    other = "-" if best is None else f"{best.name} {_time_cell(row, best)}"
    return text.size(row.problem), text.seconds(row.ours.seconds), _over_the_floor(row), other


def _over_the_floor(row: RowResult) -> str:
    return "-" if row.floor is None or row.ours.seconds is None else text.times(row.ours.seconds / row.floor)


def _named(row: RowResult) -> str:
    return ", ".join(part for part in (text.title(row.operation, row.variant), text.amount(row)) if part)


def _time_cell(row: RowResult, peer: Timing) -> str:
    ratio = text.times((peer.seconds or 0.0) / (row.ours.seconds or 1.0))
    marks = "~" * row.is_scaled(peer) + "≠" * (peer.agrees is False)
    once = "¹" * (not peer.is_warm)
    return f"{marks}{text.seconds(peer.seconds or 0.0)}{once} ({ratio}×)"


def machine_in_words(results: Results) -> str:
    """One sentence on where the times were measured."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)} of {machine['cores']} cores"
    return f"{machine['processor']}, {threads}, {machine['system']}, Python {machine['python']}, {versions}"


def short_markdown(results: Results) -> str:
    """The short table, as README has it."""
    rows = [(_named(row), *_short_cells(row)) for row in headlines(results.rows)]
    return f"{_markdown(('', *_SHORT_HEADER), rows)}\n{LEGEND} Float32; {machine_in_words(results)}.\n"


def full_markdown(results: Results) -> str:
    """All rows: a table for each operation, with the messages of what failed below it."""
    parts = [f"Float32; {machine_in_words(results)}.", LEGEND]
    for (operation, variant), rows in groupby(results.rows, lambda row: (row.operation, row.variant)):
        parts += _operation(text.title(operation, variant), list(rows))
    return "\n\n".join(parts) + "\n"


def _operation(title: str, rows: Sequence[RowResult]) -> list[str]:
    names = list(dict.fromkeys(peer.name for row in rows for peer in row.peers))
    messages: list[str] = []
    lines = [_full_cells(row, names, messages) for row in rows]
    header = ("models x points x dimensions", "", "fastdens", "over the floor", *names)
    floor = next((row.floor_is for row in rows if row.floor_is), "")
    remarks = [f"The floor: {floor}."] if floor else []
    remarks += [f"- {row.name}: {row.remark}" for row in rows if row.remark]
    remarks += [f"- [{at}] {message}" for at, message in enumerate(messages, start=1)]
    notes = dict.fromkeys(f"{peer.name}: {peer.note}" for row in rows for peer in row.peers if peer.note)
    remarks += [f"- {note}" for note in notes]
    table = _markdown(header, lines).rstrip()
    return [f"### {title[0].upper()}{title[1:]}", table, *(["\n".join(remarks)] if remarks else [])]


def _full_cells(row: RowResult, names: Sequence[str], messages: list[str]) -> list[str]:
    def cell(timing: Timing | None, words: Callable[[Timing], str]) -> str:
        if timing is None:
            return "-"
        if timing.seconds is not None:
            return words(timing)
        message = f"{timing.name}: {text.short(timing.error)}"
        if message not in messages:
            messages.append(message)
        return f"fails [{messages.index(message) + 1}]"

    peers = {peer.name: peer for peer in row.peers}
    own = cell(row.ours, lambda timing: text.seconds(timing.seconds or 0.0))
    others = [cell(peers.get(name), partial(_time_cell, row)) for name in names]
    return [text.size(row.problem), text.amount(row), own, _over_the_floor(row), *others]


def scaling_markdown(results: Results) -> str:
    """Exponents and thread scaling."""
    parts = []
    if results.exponents:
        axes = list(dict.fromkeys(exponent.axis for exponent in results.exponents))
        by_method: dict[str, dict[str, str]] = {}
        for exponent in results.exponents:
            by_method.setdefault(exponent.method, {})[exponent.axis] = f"{exponent.exponent:.2f}"
        rows = [(method, *(found.get(axis, "-") for axis in axes)) for method, found in by_method.items()]
        parts.append(_markdown(("exponent of the time in", *axes), rows).rstrip())
    if results.threads:
        counts = sorted({timing.n_threads for timing in results.threads})
        times = {(timing.operation, timing.n_threads): timing.seconds for timing in results.threads}
        operations = list(dict.fromkeys(timing.operation for timing in results.threads))
        rows = [(name, *(text.seconds(times[name, n]) for n in counts)) for name in operations]
        parts.append(_markdown(("threads", *map(str, counts)), rows).rstrip())
    return "\n\n".join(parts) + "\n"


def peers_markdown(peers: Sequence[PeerFacts]) -> str:
    """What each library does that fastdens does not."""
    parts = []
    for peer in peers:
        version = f" {peer.version}" if peer.version else ", not installed here"
        parts.append(f"**{peer.name}** ({peer.distribution.partition('==')[0]}{version}). {peer.beyond}")
    return "\n\n".join(parts) + "\n"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
