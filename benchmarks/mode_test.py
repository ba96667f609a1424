"""Error rates of `find_modes`: ``python -m benchmarks.mode_test``.

Two groups of classes are a false alarm for class means of one mode, and a detection for two groups of normal class
means. Hartigan's dip test at the 5 % level, the usual choice, is applied to the same samples. Where two groups are
found, the share of classes on the wrong side of the line is measured, for the line of `find_modes` and for the largest
gap.
``--tables`` prints the tables of ``docs/mathematics/mode_test.md`` from the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import find_modes

ROOT = Path(__file__).parents[1]
Array = NDArray[np.float64]


def _skew_normal(rng: np.random.Generator, n: int) -> Array:
    return 4 * np.abs(rng.normal(size=n)) + rng.normal(size=n)


def _outlying(rng: np.random.Generator, n: int) -> Array:
    return rng.normal(size=n) + 8 * (np.arange(n) < max(1, n // 20))


ONE_MODE: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "t, 3 degrees of freedom": lambda rng, n: rng.standard_t(3, size=n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(size=n),
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "log-normal": lambda rng, n: rng.lognormal(size=n),
    "gamma(2)": lambda rng, n: rng.gamma(2, size=n),
    "beta(1.2, 1.2)": lambda rng, n: rng.beta(1.2, 1.2, size=n),
    "beta(1.5, 1.5)": lambda rng, n: rng.beta(1.5, 1.5, size=n),
    "beta(2, 2)": lambda rng, n: rng.beta(2, 2, size=n),
    "beta(2, 5)": lambda rng, n: rng.beta(2, 5, size=n),
    "skew normal": _skew_normal,
    "triangular": lambda rng, n: rng.triangular(0, 0.3, 1, size=n),
    "right triangular": lambda rng, n: rng.triangular(0, 0, 1, size=n),
    "trapezoid": lambda rng, n: rng.uniform(size=n) + 0.5 * rng.uniform(size=n),
    "normal, a tenth of 5 sd": lambda rng, n: rng.normal(size=n) * np.where(rng.random(n) < 0.1, 5, 1),
    "normal, a twentieth 8 sd away": _outlying,
}
# Share of the upper group, and deviations between the means.
TWO_GROUPS = [(0.5, 4), (0.4, 4), (0.3, 4), (0.2, 4), (0.1, 4), (0.5, 3), (0.5, 5), (0.3, 5), (0.2, 5), (0.1, 5)]
# Classes, and batches of so many.
SIZES = {10: 200, 20: 400, 50: 400, 100: 1000, 200: 200, 1000: 50}


def false_alarms(name: str, n_classes: int, n_batches: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n_classes])
    found = [find_modes(ONE_MODE[name](rng, n_classes)) for _ in range(n_batches)]
    return {
        "means": name,
        "classes": n_classes,
        "batches": n_batches,
        "announced": float(np.mean([modes.n_groups == 2 for modes in found])),
        "dip_test": float(np.mean([modes.dip_pvalue < 0.05 for modes in found])),
    }


def power(share: float, apart: float, n_classes: int, n_batches: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n_classes])
    found, dip, misplaced, by_largest_gap = [], [], [], []
    upper = np.arange(n_classes) < round(share * n_classes)
    for _ in range(n_batches):
        means = rng.normal(size=n_classes) + apart * upper
        modes = find_modes(means)
        found.append(modes.n_groups == 2)
        dip.append(modes.dip_pvalue < 0.05)
        if modes.n_groups == 2:
            ordered = np.sort(means)
            widest = np.diff(ordered).argmax()
            misplaced.append((modes.group != upper).mean())
            by_largest_gap.append(((means > ordered[widest]) != upper).mean())
    return {
        "share": share,
        "apart": apart,
        "classes": n_classes,
        "batches": n_batches,
        "found": float(np.mean(found)),
        "dip_test": float(np.mean(dip)),
        "misplaced": float(np.mean(misplaced)) if misplaced else None,
        "misplaced_by_largest_gap": float(np.mean(by_largest_gap)) if misplaced else None,
    }


def print_row(n_classes: int, name: str, found: float, by_dip_test: float) -> None:
    print(f"{n_classes:5} classes, {name:32} two groups {found:.3f}   dip test {by_dip_test:.3f}", flush=True)


def print_table(header: str, rows: list[dict[str, Any]], name: Callable[[dict[str, Any]], str], *columns: str) -> None:
    """A Markdown table with one row for each name and one column for each size: percent of two columns of results."""

    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0")

    print(f"| {header} | " + " | ".join(f"M = {n:,}" for n in SIZES) + " |\n|---|" + "---|" * len(SIZES))
    for title in dict.fromkeys(map(name, rows)):
        own = {row["classes"]: [percent(row[column]) for column in columns] for row in rows if name(row) == title}
        print(f"| {title} | " + " | ".join("{} ({})".format(*own[n]) for n in SIZES) + " |")
    print()


def print_tables(results: dict[str, Any]) -> None:
    """The tables of docs/mathematics/mode_test.md."""
    print_table("class means", results["one_mode"], lambda row: row["means"], "announced", "dip_test")
    for columns in (("found", "dip_test"), ("misplaced", "misplaced_by_largest_gap")):
        print_table(
            "smaller group, distance",
            results["two_groups"],
            lambda row: f"{row['share']:.0%}, {row['apart']}".replace("%", " %"),
            *columns,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/mode_test.json")
    parser.add_argument("--classes", type=int, nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="print the tables of earlier results, and run nothing")
    options = parser.parse_args()
    if options.tables:
        print_tables(json.loads(options.output.read_text()))
        return
    one_mode, two_groups = [], []
    # Fresh processes, not forks: torch has threads.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for n_classes in options.classes:
            size = n_classes, SIZES[n_classes], options.seed
            alarms = [pool.submit(false_alarms, name, *size) for name in ONE_MODE]
            powers = [pool.submit(power, *groups, *size) for groups in TWO_GROUPS]
            for future in alarms:
                row = future.result()
                one_mode.append(row)
                print_row(n_classes, row["means"], row["announced"], row["dip_test"])
            for future in powers:
                row = future.result()
                two_groups.append(row)
                print_row(n_classes, f"{row['share']:.0%} {row['apart']} sd away", row["found"], row["dip_test"])
    results = {"seed": options.seed, "one_mode": one_mode, "two_groups": two_groups}
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
