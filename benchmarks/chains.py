"""Do chains that start far apart agree, and at how good a log-joint: ``python -m benchmarks.chains``.

Each data set is fitted from four starts (overdispersed, k-means, random, one cluster for all points), by single-site
updates alone and with split-merge moves and searches. Chains agree where the split R-hat of the log-joint is
under 1.1. Chains that start alike may agree far from the posterior, so three yardsticks stand beside it, in nats, as
medians over models: how far the mean log-joint of a model lies below that of the planted labels, below the best mean of
any chain in any setting, and above that of chains that started from one cluster with the same moves.

The planted data are mixtures of eight Gaussians, 500 points a model, whose means are normal with a given deviation in
each dimension; covariances are A A' with A standard normal over sqrt(D), or the identity. The activations are those of
the last stage of a narrow ResNet-18 on scikit-learn's digits. The rendered glyphs are the images themselves, not
activations. Both are projected on 16 dimensions, each class in a model of its own.

Held-out densities, in nats a point, have scikit-learn's truncated variational Dirichlet process beside them and, where
it is installed, dpgmm 0.2.0 on the first of the models.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastdens.kernels.reference.gibbs import log_joint
from torch import Tensor

import fastdens as fd
from benchmarks.held_out import held_out_mask, network_activations
from fastdens.bench.peers.dpgmm import dpgmm_log_prob, dpgmm_sweeps
from fastdens.distributions.niw import data_prior
from fastdens.training.datasets.images import load_images

ROOT = Path(__file__).parents[1]
CLUSTERS, POINTS, CHAINS, DIMENSIONS, TRUNCATION = 8, 500, 4, 16, 30
# Deviation of the planted means in each dimension.
SEPARATIONS = {4: 3.0, 16: 1.0, 64: 0.5}
RHAT = 1.1
ONE_CLUSTER = "one cluster"
STARTS = ("overdispersed", "kmeans", "random", ONE_CLUSTER)
PLAIN: dict[str, Any] = {"split_merge": 0, "search": 0}
MOVES: dict[str, dict[str, Any]] = {"single-site": PLAIN, "moves and searches": {}}


class Problem(NamedTuple):
    """Points to fit and to score of M models, and the labels [N] that the former were drawn with, if they were."""

    name: str
    batch: fd.RaggedBatch
    held_out: fd.RaggedBatch
    labels: Tensor | None


def planted(d: int, n_models: int, isotropic: bool, seed: int, n_points: int = POINTS) -> Problem:
    """Mixtures of eight Gaussians of equal weight, and as many held-out points."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    label = torch.randint(0, CLUSTERS, (n_models, 2 * n_points), generator=generator)
    model = torch.arange(n_models)[:, None]
    means = SEPARATIONS[d] * torch.randn(n_models, CLUSTERS, d, **options)
    factors = torch.randn(n_models, CLUSTERS, d, d, **options) / d**0.5
    x = torch.randn(n_models, 2 * n_points, d, **options)
    if not isotropic:
        for m, k in itertools.product(range(n_models), range(CLUSTERS)):
            own = label[m] == k
            x[m, own] = x[m, own] @ factors[m, k].mT
    x = x + means[model, label]
    batch, held_out = (fd.RaggedBatch.from_list(list(part)) for part in x.split(n_points, 1))
    shape = "unit covariances" if isotropic else "random covariances"
    return Problem(
        f"planted, D = {d}, means {SEPARATIONS[d]:g} sd, {shape}", batch, held_out, label[:, :n_points].flatten()
    )


def projected(name: str, x: Tensor, labels: Tensor, n_models: int, seed: int) -> Problem:
    """The first classes, on the leading singular vectors; a fifth of each is held out."""
    left_out = held_out_mask(labels, seed)
    svd = fd.reduction.UncentredSVD(DIMENSIONS).fit(x[~left_out].double())
    points, first = svd.transform(x.double()), labels < n_models
    # Units matter to no density ratio, but scikit-learn bounds variances by an absolute constant.
    points = points / torch.stack([points[labels == c].var(0).mean() for c in range(n_models)]).mean().sqrt()
    batch, held_out = (
        fd.RaggedBatch.from_labels(points[rows], labels[rows], n_classes=n_models)
        for rows in (first & ~left_out, first & left_out)
    )
    return Problem(name, batch, held_out, None)


def problems(options: argparse.Namespace) -> Iterator[Problem]:
    """The data sets, each made when its turn comes."""
    for isotropic in (False, True):
        for d in SEPARATIONS:
            yield planted(d, options.models, isotropic, options.seed)
    if options.epochs > 0:
        seen, labels, _, _, _ = network_activations(options.epochs, options.seed)
        last = seen["layer4"]
        yield projected("digits, activations of layer4, D = 16", last, labels, min(options.models, 10), options.seed)
    glyphs = load_images("glyphs100", Path(), None, options.seed)
    images = glyphs.train.flatten(1)
    yield projected("glyphs, the images, D = 16", images, glyphs.train_labels, min(options.models, 100), options.seed)


def planted_log_joint(problem: Problem, prior_components: int) -> Tensor:
    """Mean of the log-joint at the planted labels over the posterior of alpha given those, float64 [M]."""
    batch, labels = problem.batch, problem.labels
    assert labels is not None
    prior = data_prior(batch.points, batch.layout, init_components=prior_components)
    alpha = torch.logspace(-4, 3, 4001, base=10, dtype=torch.float64)
    means = []
    for m, (start, stop) in enumerate(batch.ranges.tolist()):
        own, n = labels[start:stop], stop - start
        centred = batch.points[start:stop] - prior.mean[m]
        # At alpha = 1, whose factors are taken out again.
        at_one = log_joint(centred, own, 1.0, prior.scale_diagonal[m], prior.kappa, prior.nu, (1.0, 1.0))
        factor = len(own.unique()) * alpha.log() + alpha.lgamma() - (alpha + n).lgamma() - alpha
        one = torch.tensor([1.0, n + 1], dtype=torch.float64).lgamma()
        log = at_one - float(one[0] - one[1] - 1) + factor
        # The points of the grid are apart in proportion to alpha.
        means.append((torch.softmax(log + alpha.log(), 0) * log).sum())
    return torch.stack(means)


def fit(problem: Problem, start: str, moves: str, options: argparse.Namespace) -> tuple[Any, float]:
    """A fit and its seconds."""
    initial: dict[str, Any] = {"init": start}
    if start == ONE_CLUSTER:
        initial = {"labels_init": torch.zeros(len(problem.batch.points), dtype=torch.int64)}
    dp = fd.DirichletProcessMixtures(
        n_sweeps=options.sweeps,
        burn_in=4 * options.sweeps // 5,
        thin=4,
        n_chains=CHAINS,
        random_state=options.seed,
        progress=False,
        **initial,
        **MOVES[moves],
    )
    begin = time.perf_counter()
    dp.fit(problem.batch)
    return dp, time.perf_counter() - begin


def of_chains(problem: Problem, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each start, without and with the moves."""
    keys = [(moves, start) for moves in MOVES for start in STARTS]
    fits = {key: fit(problem, key[1], key[0], options) for key in keys}
    of_chain = {key: dp.log_joint_.mean(-1) for key, (dp, _) in fits.items()}
    best = torch.cat(list(of_chain.values()), 1).amax(1)
    at_planted = planted_log_joint(problem, 6) if problem.labels is not None else None
    rows = []
    for key, (dp, seconds) in fits.items():
        mean = of_chain[key].mean(1)
        rows.append(
            {
                "data": problem.name,
                "moves": key[0],
                "start": key[1],
                "share that agrees": float((dp.rhat_ < RHAT).double().mean()),
                "below planted": None if at_planted is None else float((at_planted - mean).median()),
                "below best": float((best - mean).median()),
                "above one cluster": float((mean - of_chain[key[0], ONE_CLUSTER].mean(1)).median()),
                "components": float(dp.n_components_.double().mean()),
                "held-out nats": float(dp.score_samples(problem.held_out).mean()),
                "seconds": seconds,
            }
        )
    return rows


def of_sklearn(problem: Problem, options: argparse.Namespace) -> dict[str, Any]:
    """Variational inference with full covariances and a Dirichlet-process prior, model after model."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    warnings.simplefilter("ignore", ConvergenceWarning)
    batch, held_out = problem.batch, problem.held_out
    logs, used, begin = [], [], time.perf_counter()
    for m in range(batch.n_models):
        x, y = (part.points[part.offsets[m] : part.offsets[m + 1]].numpy() for part in (batch, held_out))
        mixture = BayesianGaussianMixture(
            n_components=min(TRUNCATION, len(x)),
            weight_concentration_prior_type="dirichlet_process",
            max_iter=options.sweeps,
            random_state=options.seed,
        ).fit(x)
        logs.append(torch.from_numpy(mixture.score_samples(y)))
        used.append(len(set(mixture.predict(x).tolist())))
    seconds = time.perf_counter() - begin
    row = {"data": problem.name, "peer": "scikit-learn", "held-out nats": float(torch.cat(logs).mean())}
    return row | {"components": sum(used) / len(used), "seconds": seconds}


def of_dpgmm(problem: Problem, options: argparse.Namespace) -> dict[str, Any]:
    """The first model alone: one chain, the second half of its sweeps kept."""
    x, y = (part.points[: part.offsets[1]] for part in (problem.batch, problem.held_out))
    begin = time.perf_counter()
    kept = [sweep.trace for sweep in dpgmm_sweeps(x, options.dpgmm_sweeps, seed=options.seed)]
    kept = kept[options.dpgmm_sweeps // 2 :]
    seconds = time.perf_counter() - begin
    row = {"data": problem.name, "peer": "dpgmm", "models": 1, "sweeps": options.dpgmm_sweeps}
    row |= {"held-out nats": float(dpgmm_log_prob(kept, y).mean())}
    dp = fit(
        Problem("", fd.RaggedBatch.from_list([x]), problem.held_out, None),
        "overdispersed",
        "moves and searches",
        options,
    )[0]
    row |= {"fastdens, held-out nats of that model": float(dp.log_prob(y).mean())}
    return row | {"components": sum(len(t["cluster_assignment"]) for t in kept) / len(kept), "seconds": seconds}


COLUMNS = ("share that agrees", "below planted", "below best", "above one cluster", "components", "held-out nats")


def print_rows(rows: list[dict[str, Any]]) -> None:
    """One line a row, under the name of the data."""
    print(f"\n{rows[0]['data']}\n{'':40}" + "".join(f"{name:>19}" for name in (*COLUMNS, "seconds")))
    for row in rows:
        cells = (row.get(name) for name in (*COLUMNS, "seconds"))
        name = row.get("peer") or f"{row['moves']}, {row['start']}"
        print(f"{name:40}" + "".join(f"{'':>19}" if cell is None else f"{cell:19.2f}" for cell in cells), flush=True)


def main() -> None:
    """Measure, print, and keep what there is after every data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/chains.json")
    parser.add_argument("--models", type=int, default=4, help="of each data set")
    parser.add_argument("--sweeps", type=int, default=400, help="of each chain; the last fifth is kept")
    parser.add_argument("--epochs", type=int, default=5, help="of the network on the digits; 0 leaves them out")
    parser.add_argument("--dpgmm-sweeps", type=int, default=20, help="0 leaves dpgmm out")
    parser.add_argument("--only", default="", help="data sets whose name contains this, e.g. 'planted'")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    has_dpgmm = options.dpgmm_sweeps > 0 and importlib.util.find_spec("dpgmm") is not None
    if not has_dpgmm:
        print("dpgmm is left out: it is not installed, or has no sweeps.")
    report: dict[str, Any] = {"options": {k: v for k, v in vars(options).items() if k != "output"}}
    report |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "dpgmm": has_dpgmm, "rows": []}
    # The first fit compiles.
    fit(planted(4, 1, True, 0), "overdispersed", "moves and searches", argparse.Namespace(sweeps=40, seed=0))
    for problem in problems(options):
        if options.only not in problem.name:
            continue
        rows = [*of_chains(problem, options), of_sklearn(problem, options)]
        if has_dpgmm:
            rows.append(of_dpgmm(problem, options))
        report["rows"] += [{**row, "machine's load": os.getloadavg()[0]} for row in rows]
        options.output.write_text(json.dumps(report, indent=1) + "\n")
        print_rows(rows)


if __name__ == "__main__":
    main()
