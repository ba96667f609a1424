"""How much faster more threads are: the same work on one thread, on two, on four, and on all."""

from __future__ import annotations

from collections.abc import Iterator

from fastdens.bench.machine import threads
from fastdens.bench.ours import OURS
from fastdens.bench.results import ThreadTime
from fastdens.bench.rows import Row, make_case
from fastdens.bench.timing import quiet, seconds_of_run

ROWS = {
    "EM, full covariances": Row("em", "full", "paper-64", 20),
    "k-means++": Row("start", "kmeans++", "paper-64"),
    "log-probability": Row("log_prob", "", "paper-64"),
    "Gibbs sweeps": Row("gibbs", "", "paper-16", 20),
}
QUICK = {"EM, full covariances": Row("em", "full", "paper-64", 5)}


def counts_up_to(n_threads: int) -> list[int]:
    """1, 2, 4 and so on, and the number itself."""
    powers = [1 << power for power in range(n_threads.bit_length()) if 1 << power < n_threads]
    return [*powers, n_threads]


def measure_threads(most: int, *, quick: bool = False) -> Iterator[ThreadTime]:
    """Seconds of each operation with each number of threads, up to ``most``; quick, of few iterations of EM alone."""
    for operation, row in (QUICK if quick else ROWS).items():
        with quiet():
            run = OURS.operations[row.operation](make_case(row))
            run.work()
        for n_threads in counts_up_to(most):
            with quiet(), threads(n_threads):
                seconds = seconds_of_run(run)
            yield ThreadTime(operation, n_threads, seconds)
