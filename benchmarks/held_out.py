"""How well densities of real activations hold on points that they have not seen: ``python -m benchmarks.held_out``.

A narrow ResNet-18 learns scikit-learn's digits; its four stages, projected on 16 dimensions, are fitted class by class
on four fifths of the training images. The mean log-density in nats of each point under its own class, in float64, is
taken over the other fifth and over the test images, which the network has not seen; the unit of length is the root of
the mean variance within classes. Compared are fastdens, dpgmm 0.2.0 with the predictive mixture that it makes of its
own draws, and scikit-learn's Gaussian mixture of the best BIC.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from fastdens.bench.peers.dpgmm import dpgmm_log_prob, dpgmm_sweeps
from fastdens.training.datasets.images import load_images
from fastdens.training.loop import predict, train
from fastdens.training.networks.layers import STAGES
from fastdens.training.networks.small_image_resnet import small_image_resnet

ROOT = Path(__file__).parents[1]
DIMENSIONS, MAX_COMPONENTS, HELD_OUT_SHARE, WIDTH = 16, 6, 0.2, 16
PEERS = ("fastdens, published weights", "dpgmm", "scikit-learn")

# Densities of one class fitted to points [N, D]: name -> function of points [L, D] to float64 [L].
LogProbs = dict[str, Callable[[Tensor], Tensor]]


def network_activations(epochs: int, seed: int) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor], Tensor, float]:
    """Activations and labels of the training and the test images, and the accuracy on the latter."""
    images = load_images("digits", Path(), None, seed)
    torch.manual_seed(seed)
    model = small_image_resnet("resnet18", len(images.class_names), images.train.shape[1], WIDTH)
    generator = torch.Generator().manual_seed(seed)
    train(model, images.train, images.train_labels, epochs=epochs, generator=generator, progress=False)
    seen, unseen = (
        fd.activations.extract(model, DataLoader(TensorDataset(x), batch_size=256), STAGES, progress=False).features
        for x in (images.train, images.test)
    )
    accuracy = float((predict(model, images.test) == images.test_labels).double().mean())
    return seen, images.train_labels, unseen, images.test_labels, accuracy


def held_out_mask(labels: Tensor, seed: int) -> Tensor:
    """A random fifth of each class, bool [N]."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        rows = torch.nonzero(labels == c)[:, 0]
        chosen = torch.randperm(len(rows), generator=generator)[: round(HELD_OUT_SHARE * len(rows))]
        mask[rows[chosen]] = True
    return mask


def fastdens_densities(batch: fd.RaggedBatch, options: argparse.Namespace) -> tuple[list[LogProbs], list[float]]:
    """Of every class, with exact and with the published weights; and the mean number of clusters of each."""
    dp = fd.DirichletProcessMixtures(
        n_sweeps=options.sweeps,
        burn_in=options.burn_in,
        thin=options.thin,
        random_state=options.seed,
        progress=False,
    ).fit(batch)

    def of_class(c: int) -> LogProbs:
        return {
            "fastdens": lambda x: dp.log_prob(x)[:, c],
            "fastdens, published weights": lambda x: dp.log_prob(x, weighting="published")[:, c],
        }

    return [of_class(c) for c in range(batch.n_models)], dp.n_components_.double().mean((1, 2)).tolist()


def dpgmm_density(points: Tensor, options: argparse.Namespace) -> tuple[LogProbs, float]:
    """The same numbers of sweeps, kept after the same ones."""
    sweeps = dpgmm_sweeps(points, options.sweeps, seed=options.seed)
    kept = [sweep.trace for sweep in sweeps[options.burn_in + options.thin - 1 :: options.thin]]
    n_clusters = [len(trace["cluster_assignment"]) for trace in kept]
    return {"dpgmm": lambda x: dpgmm_log_prob(kept, x)}, sum(n_clusters) / len(kept)


def sklearn_density(points: Tensor, options: argparse.Namespace) -> tuple[LogProbs, float]:
    """Full covariances, the best BIC of one to six components, the best of three starts each."""
    from sklearn.mixture import GaussianMixture

    x = points.numpy()
    fits = [GaussianMixture(k, n_init=3, random_state=options.seed).fit(x) for k in range(1, MAX_COMPONENTS + 1)]
    best = min(fits, key=lambda fit: fit.bic(x))
    return {"scikit-learn": lambda x: torch.from_numpy(best.score_samples(x.numpy()))}, best.n_components


def compare(points: Tensor, labels: Tensor, sets: dict[str, tuple[Tensor, Tensor]], options: Any) -> dict[str, Any]:
    """One stage: densities of the first classes fitted to points, and their mean log-densities on each set."""
    fitted = labels < options.classes
    batch = fd.RaggedBatch.from_labels(points[fitted], labels[fitted], n_classes=options.classes)
    densities, n_fastdens = fastdens_densities(batch, options)
    clusters = {"fastdens": n_fastdens, "dpgmm": [], "scikit-learn": []}
    for c in range(options.classes):
        own = points[labels == c]
        for name, fit in (("dpgmm", dpgmm_density), ("scikit-learn", sklearn_density)):
            density, n_components = fit(own, options)
            densities[c] |= density
            clusters[name].append(n_components)
    row: dict[str, Any] = {"clusters": {name: sum(n) / len(n) for name, n in clusters.items()}}
    for name, (x, y) in sets.items():
        logs = {
            who: torch.cat([densities[c][who](x[y == c]) for c in range(options.classes)])
            for who in ("fastdens", *PEERS)
        }
        row[name] = {"points": len(logs["fastdens"]), "nats": {who: float(log.mean()) for who, log in logs.items()}}
        gains = {who: logs["fastdens"] - logs[who] for who in PEERS}
        row[name]["fastdens gains"] = {
            who: {"mean": float(gain.mean()), "standard_error": float(gain.std() / math.sqrt(len(gain)))}
            for who, gain in gains.items()
        }
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line a stage and set: nats of fastdens, and its gain over each peer with the paired standard error."""
    print(f"{'':30}{'fastdens':>10}" + "".join(f"{'over ' + who:>34}" for who in PEERS))
    for row in rows:
        for name in ("training images left out", "test images"):
            part = row[name]
            cells = (
                f"{gain['mean']:23.3f} ± {gain['standard_error']:8.3f}" for gain in part["fastdens gains"].values()
            )
            print(f"{row['stage'] + ', ' + name:33}{part['nats']['fastdens']:7.3f}" + "".join(cells))


def main() -> None:
    """Train, fit, print, and keep what there is after every stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/held-out-digits.json")
    parser.add_argument("--classes", type=int, default=10, help="only the first so many; dpgmm takes most of the time")
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--burn-in", type=int, default=40)
    parser.add_argument("--thin", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    # dpgmm's operations are small: a second thread slows it down.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    seen, labels, unseen, unseen_labels, accuracy = network_activations(options.epochs, options.seed)
    report: dict[str, Any] = {"options": {k: v for k, v in vars(options).items() if k != "output"}}
    report |= {"dimensions": DIMENSIONS, "torch": torch.__version__, "network_test_accuracy": accuracy, "rows": []}
    print(f"The network's accuracy on the test images: {accuracy:.2%}", flush=True)
    left_out = held_out_mask(labels, options.seed)
    for stage in STAGES:
        begin = time.perf_counter()
        svd = fd.reduction.UncentredSVD(DIMENSIONS).fit(seen[stage][~left_out].double())
        points, test = svd.transform(seen[stage].double()), svd.transform(unseen[stage].double())
        # In units of the deviation within classes: the peers bound variances from below by absolute constants.
        own = points[~left_out]
        unit = torch.stack([own[labels[~left_out] == c].var(0).mean() for c in labels.unique()]).mean().sqrt()
        points, test = points / unit, test / unit
        sets = {
            "training images left out": (points[left_out], labels[left_out]),
            "test images": (test, unseen_labels),
        }
        row = {"stage": stage, **compare(points[~left_out], labels[~left_out], sets, options)}
        report["rows"].append(row)
        options.output.write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(row), f"{time.perf_counter() - begin:.0f} s", flush=True)
    print_table(report["rows"])


if __name__ == "__main__":
    main()
