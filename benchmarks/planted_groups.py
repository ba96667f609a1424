"""Groups that a network makes of planted classes: ``python -m benchmarks.planted_groups``.

For each seed, a network is trained on the default data set of the analysis, by its preset, once with long-tailed
classes and once without. The densities of its stages are fitted as the analysis fits them, and `find_modes` looks for
groups. Planted, there should be one group at the first stage and two at the last two; without, one everywhere. Rows go
to ``results/planted_groups.json`` as they are measured; those of other seeds stay.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fastdens.pipeline import AnalysisData, AnalysisOptions
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.layers import fit_layer, project_layer, projected_dimensions
from fastdens.pipeline.options import DensityOptions, MachineOptions
from fastdens.pipeline.presets import preset

DEFAULT = ImageOptions.dataset
RESULTS = Path(__file__).parent / "results" / "planted_groups.json"
FIRST, DEEP = "layer1", ("layer3", "layer4")


def measure(seed: int, planted: bool) -> dict[str, Any]:
    """One network: what it fits and recognizes, and the groups at each stage."""
    torch.set_num_threads(1)
    started = time.process_time()
    values = preset(DEFAULT, "cpu")
    chosen = {
        options: {own.name: values[own.name] for own in fields(options) if own.name in values}
        for options in (ImageOptions, NetworkOptions, DensityOptions)
    }
    images = ImageOptions(**chosen[ImageOptions], long_tailed=None if planted else ("0",))
    options = AnalysisOptions(**chosen[DensityOptions], seed=seed, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.load(images, NetworkOptions(**chosen[NetworkOptions]), Path(folder), seed)
        machine = MachineOptions(seed=seed, device="cpu")
        data = AnalysisData.from_experiment(experiment, machine=machine, progress=False)
    examples = data.examples
    tailed, flipped = examples.long_tailed, examples.flipped
    right = examples.test_predicted == examples.test_labels
    row: dict[str, Any] = {
        "seed": seed,
        "planted": planted,
        "long_tailed": int(tailed.sum()),
        "training_accuracy": float((examples.train_predicted == examples.labels).mean()),
        "flipped_labels_fitted": float((examples.train_predicted == examples.labels)[flipped].mean()),
        "test_accuracy": float(right.mean()),
        "test_accuracy_of_ordinary": float(right[~tailed[examples.test_labels]].mean()),
        "stages": {},
    }
    trained = time.process_time()
    for layer, n_dimensions in projected_dimensions(data, options).items():
        projected = project_layer(data, data.train[layer], layer, n_dimensions)
        fitted = fit_layer(data, projected, options, progress=False)
        modes = fitted.modes
        sparse = modes.group == 0 if modes.n_groups == 2 else tailed & False
        row["stages"][layer] = {
            "groups": modes.n_groups,
            "pvalue": modes.pvalue,
            "sparse": int(sparse.sum()),
            "sparse_and_long_tailed": int((sparse & tailed).sum()),
            "chains_agree": fitted.fit.chains.n_agreeing,
        }
    row["seconds"] = {"training": trained - started, "densities": time.process_time() - trained}
    return row


def as_planted(row: dict[str, Any]) -> bool:
    """Whether the groups are where they should be, and only there."""
    groups = {layer: stage["groups"] for layer, stage in row["stages"].items()}
    if not row["planted"]:
        return set(groups.values()) == {1}
    return groups[FIRST] == 1 and all(groups[layer] == 2 for layer in DEEP)


def describe(row: dict[str, Any]) -> str:
    """One line."""
    stages = "  ".join(
        f"{layer} {stage['groups']} (p {stage['pvalue']:.3f}"
        + (f", {stage['sparse_and_long_tailed']} of {stage['sparse']} sparse planted)" if stage["groups"] == 2 else ")")
        for layer, stage in row["stages"].items()
    )
    verdict = "as it should be" if as_planted(row) else "OTHERWISE"
    return (
        f"seed {row['seed']}, {row['long_tailed']} classes planted, {verdict}: "
        f"{stages}  flips fitted {row['flipped_labels_fitted']:.3f}, test {row['test_accuracy']:.3f} (ordinary "
        f"{row['test_accuracy_of_ordinary']:.3f}), {sum(row['seconds'].values()):.0f} s"
    )


def main() -> None:
    """Measure the seeds asked for, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(10), *range(200, 210)])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print what the results file has, and measure nothing")
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
    if not arguments.summary:
        wanted = [(seed, planted) for seed in arguments.seeds for planted in (True, False)]
        rows = [row for row in rows if (row["seed"], row["planted"]) not in wanted]
        with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
            for row in pool.map(measure, *zip(*wanted, strict=True)):
                rows.append(row)
                print(describe(row), flush=True)
                ordered = sorted(rows, key=lambda row: (row["seed"], not row["planted"]))
                arguments.output.write_text(json.dumps(ordered, indent=1) + "\n")
    for planted in (True, False):
        those = [row for row in rows if row["planted"] == planted]
        where = f"one group at {FIRST} and two at {' and '.join(DEEP)}" if planted else "one group at every stage"
        n_right = sum(map(as_planted, those))
        print(f"{'Planted' if planted else 'Not planted'}: {where} for {n_right} of {len(those)} seeds")


if __name__ == "__main__":
    main()
