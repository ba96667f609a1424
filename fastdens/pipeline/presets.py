"""Options of the demonstrations, in place of the paper's: data sets that come with fastdens, on a small machine.

A preset maps names of options (see :mod:`fastdens.pipeline.options`) to values. Options that a user sets take
precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Preset = Mapping[str, Any]

# Two cores finish it: a narrow network, few networks for memorization, few draws.
_SMALL: Preset = MappingProxyType(
    {
        "flip": 0.1,
        "augment": False,
        "seeds": 2,
        "entropy_draws": 2_000,
        "divergence_draws": 200,
        "bins": 4,
        "certified_examples": 40,
        "certificate_draws": 1_000,
        "processes": 2,
    }
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Fewer flips than in digits: in classes of 80, twice as many would widen the ordinary ones as well.
        "anagrams": MappingProxyType(
            {
                **_SMALL,
                "flip": 0.05,
                "width": 8,
                "epochs": 14,
                "dimensions": (8, 8, 16, 16),
                "chains": 2,
                "memorization_networks": 10,
                "memorization_share": 0.6,
                "bin_epochs": 10,
                # Letters of so few pixels drown in the noise of the paper.
                "sigma": 0.15,
                "epsilon": 0.25,
            }
        ),
        "digits": MappingProxyType(
            {**_SMALL, "width": 16, "epochs": 12, "stop": "converged", "memorization_networks": 16}
        ),
        "glyphs100": MappingProxyType(
            {
                **_SMALL,
                "width": 8,
                "epochs": 5,
                "chains": 2,
                "thin": 16,
                "memorization_networks": 6,
                "memorization_share": 0.5,
                "memorization_epochs": 3,
                "bin_epochs": 3,
            }
        ),
    }
)

# A GPU trains the hundred classes at the paper's width.
GPU_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "glyphs100": MappingProxyType(
            {"width": 64, "epochs": 30, "memorization_networks": 40, "memorization_epochs": 15, "bin_epochs": 15}
        )
    }
)


def preset(dataset: str, device: str) -> Preset:
    """The preset of a data set on a torch device; empty where the paper's settings apply."""
    gpu = GPU_PRESETS.get(dataset, {}) if device.startswith("cuda") else {}
    return {**PRESETS.get(dataset, {}), **gpu}
