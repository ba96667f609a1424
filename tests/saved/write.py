"""Write a small fit of every kind, and what it says of the points of :func:`questions`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastdens as fd
from fastdens.io.state_file import FORMAT_VERSION
from tests.mixtures.problems import quiet_fit

HERE = Path(__file__).parent


def questions() -> fd.RaggedBatch:
    """Points of two classes, on two clusters each."""
    grid = torch.arange(24, dtype=torch.float64)
    x = torch.stack([(grid * 7 % 5) - 2 + 9 * (grid % 2), (grid * 3 % 4) - 1.5], 1)
    return fd.RaggedBatch.from_labels(x, ["ant", "bee", "bee"] * 8)


def fits() -> dict[str, Any]:
    """A fit of every kind, by the name of its file."""
    batch, shared = questions(), {"n_sweeps": 12, "burn_in": 8, "thin": 2, "progress": False}
    kinds = {
        "gaussian": fd.GaussianMixtures(2),
        "gaussian_diag": fd.GaussianMixtures(2, covariance_type="diag"),
        "gaussian_tied": fd.GaussianMixtures(2, covariance_type="tied"),
        "gaussian_shared": fd.GaussianMixtures(2, covariance_type="tied_across_models"),
        "gaussian_shrunk": fd.GaussianMixtures(2, shrinkage="oas"),
        "factor_analysers": fd.FactorAnalyserMixtures(2, n_factors=1),
        "dirichlet_process": fd.DirichletProcessMixtures(n_chains=2, **shared),
        "variational": fd.VariationalDirichletProcessMixtures(truncation=3),
    }
    made = {name: quiet_fit(estimator, batch) for name, estimator in kinds.items()}
    layers = {"layer1": made["gaussian"], "layer2": made["variational"]}
    made["class_layer_models"] = fd.ClassLayerModels(dict.fromkeys(layers, batch), layers)
    made["uncentred_svd"] = fd.reduction.UncentredSVD(1).fit(batch.points)
    return made


def answers(fit: Any) -> Tensor:
    """Log-densities, or coordinates, of the points: float64 [...]."""
    batch = questions()
    if isinstance(fit, fd.ClassLayerModels):
        return torch.stack([answers(models) for models in fit.values()])
    if isinstance(fit, fd.reduction.UncentredSVD):
        return fit.transform(batch.points)
    return torch.cat([fit.score_samples(batch)[:, None], fit.log_prob(batch.points)], 1)


def main() -> None:
    """Add the fits that the folder lacks."""
    folder = HERE / f"format_{FORMAT_VERSION}"
    for name, fit in fits().items():
        if not (folder / f"{name}.safetensors").exists():
            fit.save(folder / f"{name}.safetensors")
            (folder / f"{name}.txt").write_text("\n".join(repr(v) for v in answers(fit).flatten().tolist()) + "\n")


if __name__ == "__main__":
    main()
