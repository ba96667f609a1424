"""Saved analyses of earlier versions: how to fill in the fields that they lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastdens.convergence import chain_convergence
from fastdens.pipeline.saving import Upgrade

Fields = dict[str, Any]


def upgrade_options(options: Fields, version: int) -> Fields:
    """Options of an analysis; before version 2 chains started at random, and there were no split-merge moves."""
    if version < 2 and options["density"] == "dp":
        options |= {"init": "random", "split_merge": 0.0, "search": 0.0}
    return options


def upgrade_chains(chains: Fields, version: int) -> Fields:
    """Chains of a layer; before version 2 all made the same sweeps, and agreed if split R-hat was at most a limit."""
    if version >= 2:
        return chains
    sweeps, log_joint = chains["sweeps"], chains["log_joint"]
    n_models, n_chains, _ = log_joint.shape
    found = chain_convergence({"log-joint": torch.from_numpy(log_joint)}, chains.pop("limit"), 0.0)
    return chains | {
        "sweeps": np.tile(sweeps, (n_models, 1)),
        "n_sweeps": np.full(n_models, sweeps[-1]),
        "rhat": found.rhat.numpy(),
        "effective_sample_size": found.effective_sample_size.numpy(),
        "agree": found.converged.numpy(),
        "max_rhat": found.max_rhat,
        "min_effective_sample_size": found.min_effective_sample_size,
        "split_merge": np.zeros((n_models, n_chains, 4), np.int64),
    }


def upgrade_analysis(analysis: Fields, version: int) -> Fields:
    """Agreement of groups; before version 3 one group agreed with one group, by an index of 1.

    The index of one group and two is exactly 0, by which the networks of other seeds with one group are told.
    """
    if version >= 3:
        return analysis
    one_group = np.array([layer.modes.n_groups == 1 for layer in analysis["layers"]])
    analysis["layer_agreement"] = _without_single_groups(analysis["layer_agreement"], one_group)
    if analysis.get("seed_agreement") is not None:
        analysis["seed_agreement"] = np.stack(
            [
                _without_single_groups(agreement, agreement[0] == (1 if one else 0))
                for agreement, one in zip(analysis["seed_agreement"], one_group, strict=True)
            ]
        )
    return analysis


def _without_single_groups(agreement: NDArray[np.float64], one_group: NDArray[np.bool_]) -> NDArray[np.float64]:
    """An agreement [L, L] without its value where both splits have one group."""
    return np.where(one_group[:, None] & one_group, np.nan, agreement)


UPGRADES: Mapping[str, Upgrade] = {
    "Analysis": upgrade_analysis,
    "AnalysisOptions": upgrade_options,
    "Chains": upgrade_chains,
}
