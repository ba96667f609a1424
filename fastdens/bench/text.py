"""Numbers of the table in words that fit into it."""

from __future__ import annotations

from fastdens.bench.cases import Problem
from fastdens.bench.results import RowResult, Timing

OPERATIONS = {
    "em": "EM",
    "factors": "EM, factor analysers",
    "start": "start",
    "log_prob": "log-probability",
    "gibbs": "Gibbs sweep",
    "chains": "chains until they agree",
    "variational": "variational fit",
    "kl": "Monte Carlo KL",
    "neighbours": "k-th neighbour",
    "scores": "Mahalanobis scores",
}
_VARIANTS = {"kmeans++": "k-means++", "kmeans": "k-means", "diag": "diagonal"}
_LONGEST_MESSAGE = 72


def title(operation: str, variant: str) -> str:
    """The name of an operation, such as "EM, full covariances"."""
    if operation == "em":
        return f"EM, {_VARIANTS.get(variant, variant)} covariance{'' if variant == 'tied' else 's'}"
    return ", ".join(part for part in (OPERATIONS.get(operation, operation), _VARIANTS.get(variant, variant)) if part)


def size(problem: Problem) -> str:
    """A size, such as "100 x 500 x 16, K = 6"."""
    m, n, d = problem.n_models, problem.n_points, problem.n_features
    return f"{m:,} x {n:,} x {d}, K = {problem.n_components}"


def amount(row: RowResult) -> str:
    """What ``n_iter`` of the row counts, in words."""
    what = {
        "em": "iteration",
        "factors": "iteration",
        "start": "iteration",
        "variational": "iteration",
        "gibbs": "sweep",
        "kl": "draw",
    }.get(row.operation)
    if row.operation == "neighbours":
        return f"k = {row.n_iter}"
    if row.operation == "chains":
        return f"rounds of {row.n_iter:,} sweeps"
    return "" if not row.n_iter or what is None else f"{row.n_iter:,} {what}{'s' * (row.n_iter > 1)}"


def seconds(value: float) -> str:
    """Two or three digits: "0.46 s", "3.2 ms", "1,240 s"."""
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 0.1:
        return f"{value:.3g} s"
    if value >= 1e-4:
        return f"{1e3 * value:.2g} ms"
    return f"{1e6 * value:.2g} µs"


def times(ratio: float) -> str:
    """Two or three digits: "85.6", "0.73", "12,000"."""
    if ratio >= 1000:
        return f"{float(f'{ratio:.2g}'):,.0f}"
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2g}"


def agreement(timing: Timing) -> str:
    """How the outcome compares with that of fastdens."""
    if timing.agrees is None:
        return ""
    if timing.difference is None:
        return "outcome not finite"
    word = "agrees to" if timing.agrees else "DIFFERS by"
    return f"{word} {timing.difference:.0e}"


def short(message: str) -> str:
    """A message, cut where it is long."""
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."


def best_peer(row: RowResult) -> Timing | None:
    """The fastest of the peers that came to the same outcome; None if there is none."""
    able = [peer for peer in row.peers if peer.seconds is not None and peer.agrees]
    return min(able, key=lambda peer: peer.seconds or 0.0, default=None)
