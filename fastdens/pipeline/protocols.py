"""Protocols: definitions and settings, as options of an analysis, by which its numbers can be held against others'.

"exact" is what the options of :mod:`fastdens.pipeline.options` are by default. "published" computes what the code
published with Jamroz & Kurdziel, "Neural Representations Reveal Distinct Modes of Class Fitting in Residual
Convolutional Networks", AAAI 2023 (arXiv 2212.00771), computes; its sampler is that of Jamroz, Kurdziel & Opala, "A
Bayesian Nonparametrics View into Deep Representations", NeurIPS 2020. What is wrong in that code is not reproduced: the
update of alpha and its start.

An option that a user sets wins over the protocol. For the data sets that come with fastdens, the definitions of the
protocol win over the preset, the preset over the amounts, and networks are trained as the preset has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

ProtocolName = Literal["exact", "published"]


class Protocol(NamedTuple):
    """Values of options by name.

    Attributes
    ----------
    definitions : mapping of str to object
        What quantities are.
    amounts : mapping of str to object
        How much is computed.
    training : mapping of str to object
        How networks are trained and how many, for data that come with images.
    """

    definitions: Mapping[str, Any] = MappingProxyType({})
    amounts: Mapping[str, Any] = MappingProxyType({})
    training: Mapping[str, Any] = MappingProxyType({})


_PUBLISHED = Protocol(
    definitions=MappingProxyType(
        {
            "limit_dimensions": False,
            "init": "random",
            "split_merge": 0.0,
            "search": 0.0,
            "stop": "sweeps",
            "training_density": "in_sample",
            "average": "log_density",
            "weighting": "published",
            "relative_entropy": "draws",
            "pair_divergence": "draws",
            "kl_subsets": "threshold",
            "label_subsets": "global",
            "bin_ranks": "global",
            "sigma_units": "standardized",
        }
    ),
    amounts=MappingProxyType(
        {
            "chains": 1,
            "sweeps": 400,
            "thin": 4,
            "kl_high": 0.7,
            "kl_low": 0.015,
            "kl_examples": 100,
            "label_examples": 1000,
            "sigma": 0.5,
            "certified_examples": "all",
            "certificate_draws": 100_000,
        }
    ),
    # Two thousand networks for memorization scores are for the user to ask for.
    training=MappingProxyType(
        {
            "schedule": "linear",
            "learning_rate": 0.4,
            "batch_size": 512,
            "weight_decay": 1e-6,
            "epochs": 100,
            "augment": True,
            "augmentation": "crop_flip",
            "zero_init": True,
            "flip_redraw": True,
            "bins": 50,
            "bin_epochs": 160,
        }
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({"exact": Protocol(), "published": _PUBLISHED})
