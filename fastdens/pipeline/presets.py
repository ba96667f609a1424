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
                # Few and small images, many epochs: the network memorizes labels that are wrong.
                "images_per_class": 150,
                "image_size": 16,
                "width": 8,
                "epochs": 40,
                # All features of the stages, 8 to 64: under 16 of them, long-tailed classes are no group of their own.
                "limit_dimensions": False,
                "chains": 2,
                "thin": 16,
                "memorization_networks": 8,
                "memorization_share": 0.5,
                "bin_epochs": 10,
                "sigma": 0.25,
                "certified_examples": 200,
            }
        ),
    }
)

# A GPU trains the hundred classes at the paper's numbers of images and pixels, and at its width.
GPU_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "glyphs100": MappingProxyType(
            {"images_per_class": 500, "image_size": 32, "width": 64, "memorization_networks": 40}
        )
    }
)


def preset(dataset: str, device: str) -> Preset:
    """The preset of a data set on a torch device; empty where the paper's settings apply."""
    gpu = GPU_PRESETS.get(dataset, {}) if device.startswith("cuda") else {}
    return {**PRESETS.get(dataset, {}), **gpu}
