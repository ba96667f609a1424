"""Activations of classes of two densities, with a tenth of the training labels flipped, and scores that say which."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

N_CLASSES, N_DENSE, N_EACH, WIDTH = 24, 10, 60, 5


class Part(NamedTuple):
    """Activations [N, D] by layer, given labels [N], and which of them were flipped [N]."""

    activations: dict[str, np.ndarray]
    labels: np.ndarray
    flipped: np.ndarray


class PlantedGroups(NamedTuple):
    """The first ``N_DENSE`` classes are dense at layer "deep" and like the others at layer "first"."""

    train: Part
    test: Part
    scores: np.ndarray

    def save(self, folder: Path) -> None:
        """As the folders and the file of scores that the command reads."""
        for name, part in (("train", self.train), ("test", self.test)):
            (folder / name).mkdir(parents=True)
            for layer, activations in part.activations.items():
                np.save(folder / name / f"{layer}.npy", activations)
            np.save(folder / name / "labels.npy", part.labels)
        names = "\n".join(f"class-{c}" for c in range(N_CLASSES))
        (folder / "train" / "class_names.txt").write_text(names)
        np.savez(folder / "scores.npz", tr_mem=self.scores, tr_labels=self.train.labels.astype(np.int32))


def planted_groups(seed: int = 20) -> PlantedGroups:
    rng = np.random.default_rng(seed)
    centres = 40 * rng.normal(size=(N_CLASSES, WIDTH))
    train, test = _part(rng, centres, 0.1), _part(rng, centres, 0.0)
    scores = np.clip(train.flipped + 0.1 * rng.normal(size=len(train.labels)), 0, 1).astype(np.float32)
    return PlantedGroups(train, test, scores)


def _part(rng: np.random.Generator, centres: np.ndarray, flip: float) -> Part:
    spread = np.where(np.arange(N_CLASSES) < N_DENSE, 0.2, 1.5)
    true = rng.permutation(np.repeat(np.arange(N_CLASSES), N_EACH))
    deep = centres[true] + spread[true, None] * rng.normal(size=(len(true), WIDTH))
    first = rng.normal(size=deep.shape)
    flipped = rng.random(len(true)) < flip
    labels = np.where(flipped, (true + 7) % N_CLASSES, true)
    return Part({"first": first.astype(np.float32), "deep": deep.astype(np.float32)}, labels, flipped)
