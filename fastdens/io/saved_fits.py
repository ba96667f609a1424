"""Fits of Dirichlet-process mixtures in a file: the points, what was drawn, and the parameters."""

from __future__ import annotations

import os

import torch

from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference.gibbs import Draws
from fastdens.inference.variational import VariationalResult
from fastdens.io.state_file import read_state, write_state
from fastdens.mixtures.dirichlet_process import RESUMABLE, DirichletProcessMixtures, plain

_PARAMETERS = (
    *RESUMABLE,
    "method",
    "n_sweeps",
    "backend",
    "progress",
    "on_error",
    "truncation",
    "max_iter",
    "tol",
    "dtype",
    "matmul_precision",
)
_GIBBS_TENSORS = ("log_joint_", "sampled_labels_", "rhat_", "effective_sample_size_")
_VARIATIONAL_TENSORS = (
    "weights_",
    "means_",
    "covariances_",
    "mean_precision_",
    "degrees_of_freedom_",
    "lower_bound_",
    "n_iter_",
    "converged_",
)
_RESULT_TENSORS = (
    "mean_precision",
    "means",
    "degrees_of_freedom",
    "covariances",
    "precisions_cholesky",
    "alpha",
    "bad",
    "lower_bound",
    "n_iter",
    "converged",
)


def save(dp: DirichletProcessMixtures, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a fit to one safetensors file with a JSON header.

    Raises
    ------
    FileExistsError
        If ``path`` exists and ``overwrite`` is False.
    """
    fitted = dp._fitted
    tensors = {"points": fitted.points, "offsets": fitted.offsets, "models": dp._models, "order": dp._order}
    tensors |= {"labels_": dp.labels_, "n_components_": dp.n_components_, "alpha_": dp.alpha_}
    tensors |= {"prior_mean": dp.prior_.mean, "prior_scale": dp.prior_.scale_diagonal, "failed_": dp.failed_}
    if dp.method == "gibbs":
        tensors |= {f"draws_{name}": value for name, value in dp._draws._asdict().items()}
        tensors |= {name: getattr(dp, name) for name in _GIBBS_TENSORS}
    else:
        tensors |= {name: getattr(dp, name) for name in _VARIATIONAL_TENSORS}
        tensors |= {f"concentration_{i}": value for i, value in enumerate(dp.weight_concentration_)}
        result = dp._variational
        tensors |= {f"variational_{name}": getattr(result, name) for name in _RESULT_TENSORS}
        tensors |= {f"variational_concentration_{i}": v for i, v in enumerate(result.weight_concentration)}
    facts = {
        "estimator": "DirichletProcessMixtures",
        "parameters": {name: plain(getattr(dp, name)) for name in _PARAMETERS},
        "prior": [dp.prior_.kappa, dp.prior_.nu],
        "classes": list(fitted.labels),
        "layer": fitted.layer,
        "failures": {str(m): why for m, why in dp.failures_.items()},
    }
    write_state(path, "fit", tensors, facts, overwrite=overwrite)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> DirichletProcessMixtures:
    """A fit that :meth:`DirichletProcessMixtures.save` wrote; it gives the same densities, bit for bit.

    Parameters
    ----------
    path : path-like
    device : torch.device or str
        Where its tensors go.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or not a fit of this library.
    ImportError
        If safetensors is missing.
    """
    tensors, facts = read_state(path, "fit")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    parameters = facts["parameters"]
    parameters["alpha_prior"] = tuple(parameters["alpha_prior"])
    parameters["dtype"] = getattr(torch, parameters["dtype"]) if parameters["dtype"] else None
    dp = DirichletProcessMixtures(**parameters)
    points, offsets = tensors["points"], tensors["offsets"]
    index = torch.arange(len(points), device=points.device)
    dp._fitted = RaggedBatch(points, offsets, index, tuple(facts["classes"]), facts["layer"])
    dp._models, dp._order, dp._density = tensors["models"], tensors["order"], {}
    dp.prior_ = NormalInverseWishart(tensors["prior_mean"], tensors["prior_scale"], *facts["prior"])
    dp.failures_ = {int(m): why for m, why in facts["failures"].items()}
    for name in ("labels_", "n_components_", "alpha_", "failed_"):
        setattr(dp, name, tensors[name])
    if dp.method == "gibbs":
        dp._draws = Draws(**{name: tensors[f"draws_{name}"] for name in Draws._fields})
        for name in _GIBBS_TENSORS:
            setattr(dp, name, tensors[name])
    else:
        for name in _VARIATIONAL_TENSORS:
            setattr(dp, name, tensors[name])
        dp.weight_concentration_ = (tensors["concentration_0"], tensors["concentration_1"])
        dp._variational = VariationalResult(
            weight_concentration=(tensors["variational_concentration_0"], tensors["variational_concentration_1"]),
            **{name: tensors[f"variational_{name}"] for name in _RESULT_TENSORS},
        )
    return dp
