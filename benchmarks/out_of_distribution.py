"""Out-of-distribution scores beside pytorch-ood's: ``OMP_NUM_THREADS=1 python -m benchmarks.out_of_distribution``.

Features are normal about class means that are normal too, float32. Both fit the same training features, ours with
pytorch-ood's ridge, and score the same others, in turns; the least time of each counts, in seconds of the processor,
which other programs disturb less than the clock. Where pytorch-ood goes through the classes one by one, it scores as
many rows as ``--their-elements`` allows, rows x classes x D x D; seconds are per 10,000 rows. Scores of rows that both
have are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_ood.detector import KNN, RMD, Mahalanobis
from torch import Tensor

import fastdens as fd

RESULTS = Path(__file__).parent / "results" / "out_of_distribution.json"
ROWS, REPEATS = 10_000, 3
SHAPES = ((10, 512, 20_000), (100, 512, 20_000), (1_000, 2_048, 20_000))


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    result = call()
    return result, time.process_time() - begin


def compare(
    name: str, ours: Any, theirs: Any, factor: float, data: tuple[Tensor, ...], rows: tuple[int, int]
) -> dict[str, Any]:
    """Times of scores, and the largest relative difference; ``rows`` are those that we and they score."""
    x, y, others = data
    ours.fit(x, y)
    theirs.fit_features(x, y)
    our_seconds, their_seconds = [], []
    for _ in range(REPEATS):
        own, seconds = seconds_of(lambda: ours.score(others[: rows[0]]))
        our_seconds.append(seconds * ROWS / rows[0])
        other, seconds = seconds_of(lambda: theirs.predict_features(others[: rows[1]]))
        their_seconds.append(seconds * ROWS / rows[1])
    expected = factor * other.double()
    return {
        "detector": name,
        "classes": int(y.max()) + 1,
        "dimensions": x.shape[1],
        "training_rows": len(x),
        "score": min(our_seconds),
        "their_score": min(their_seconds),
        "rows": rows,
        "difference": float((own.double()[: rows[1]] - expected).abs().max() / expected.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--their-elements", type=float, default=2e11)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    print("| detector | classes, D | 10,000 rows, s | pytorch-ood | ratio | difference |")
    print("|---|---|---|---|---|---|")
    for n_classes, n_features, n in SHAPES:
        generator = torch.Generator().manual_seed(options.seed)
        y = torch.arange(n) % n_classes
        means = torch.randn(n_classes, n_features, generator=generator)
        data = (
            means[y] + torch.randn(n, n_features, generator=generator),
            y,
            1.5 * torch.randn(ROWS, n_features, generator=generator),
        )
        few = min(ROWS, max(20, int(options.their_elements / (n_classes * n_features**2))))
        ridge = 1e-6 / n
        for result in (
            compare("Mahalanobis", fd.ood.Mahalanobis(reg_covar=ridge), Mahalanobis(None), 2 * n, data, (ROWS, few)),
            compare(
                "RelativeMahalanobis", fd.ood.RelativeMahalanobis(reg_covar=ridge), RMD(None), n, data, (ROWS, few)
            ),
            compare("NearestNeighbours", fd.ood.NearestNeighbours(50), KNN(None, k=50), 1, data, (1_000, 1_000)),
        ):
            rows.append(result)
            print(
                f"| {result['detector']} | {n_classes:,}, {n_features:,} "
                f"| {result['score']:.2f} | {result['their_score']:.1f} "
                f"| {result['their_score'] / result['score']:.1f} | {result['difference']:.0e} |",
                flush=True,
            )
    settings = {"seed": options.seed, "threads": torch.get_num_threads(), "torch": torch.__version__}
    options.output.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
