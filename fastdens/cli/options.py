"""Options of the commands, and what they are by default for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from fastdens.cli.densities import density_options


@dataclass(frozen=True)
class AnalyzeOptions:
    """What ``fastdens analyze --help`` lists; None stands for what :meth:`with_defaults` puts there."""

    dataset: str | None = None
    data_root: Path = Path("data")
    image_size: int | None = None
    flip: float | None = None
    long_tailed: list[str] | None = None
    activations: Path | None = None
    test_activations: Path | None = None
    network: str | None = None
    weights: Path | None = None
    layers: list[str] | None = None
    width: int | None = None
    epochs: int | None = None
    augment: bool | None = None
    seeds: int | None = None
    dimensions: list[int] | None = None
    density: str = "dp"
    chains: int | None = None
    sweeps: int | None = None
    thin: int | None = None
    components: int | None = None
    entropy_draws: int | None = None
    divergence_draws: int | None = None
    memorization: Path | None = None
    memorization_networks: int | None = None
    memorization_epochs: int | None = None
    memorization_share: float | None = None
    neighbours: int = 10
    bins: int | None = None
    bin_epochs: int | None = None
    sigma: float = 0.5
    epsilon: float = 0.5
    certified_examples: int | None = None
    certificate_draws: int | None = None
    seed: int = 0
    device: str | None = None
    processes: int | None = None
    runs: Path | None = None
    output: Path = Path("report")
    overwrite: bool = False

    @property
    def subject(self) -> str:
        """What the report is about, in words."""
        return str(self.activations) if self.activations else str(self.dataset)

    def with_defaults(self) -> AnalyzeOptions:
        """The same with nothing left open: defaults of the data set and of the density.

        Raises
        ------
        ValueError
            If options exclude each other, or one is given that belongs to another density.
        """
        self._check_sources()
        dataset = None if self.activations else self.dataset or "digits"
        device = self.device or _best_device()
        defaults = {**_defaults(dataset, device), "dataset": dataset, "device": device, "runs": self.output / "runs"}
        if self.memorization:
            defaults["memorization_networks"] = 0
        if self.density != "dp":
            defaults = {name: value for name, value in defaults.items() if name not in ("chains", "thin")}
        chosen = _filled(self, defaults)
        return replace(chosen, **density_options(chosen.density, vars(chosen)))

    def _check_sources(self) -> None:
        if self.activations:
            for option in (
                *("dataset", "flip", "long_tailed", "network", "weights", "width", "epochs", "seeds"),
                *("memorization_networks", "bins", "image_size"),
            ):
                if getattr(self, option) is not None:
                    raise ValueError(
                        f"--{option.replace('_', '-')} asks for a network, but --activations has only what one gave: "
                        "leave one of the two out."
                    )
        elif self.test_activations:
            raise ValueError("--test-activations goes with --activations: pass both, or a --dataset.")
        if self.memorization and self.memorization_networks:
            raise ValueError(
                "--memorization has scores and --memorization-networks would estimate them: leave one of the two out."
            )
        if self.weights and self.epochs is not None:
            raise ValueError("--weights has a trained network and --epochs would train one: leave one of the two out.")

    def as_json(self) -> dict[str, object]:
        """The options with paths as text."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class MemorizationOptions:
    """What ``fastdens memorization --help`` lists; None stands for what :meth:`with_defaults` puts there."""

    dataset: str | None = None
    data_root: Path = Path("data")
    image_size: int | None = None
    flip: float | None = None
    long_tailed: list[str] | None = None
    network: str | None = None
    width: int | None = None
    epochs: int | None = None
    augment: bool | None = None
    batch_size: int = 64
    dtype: str = "float32"
    networks: int = 40
    share: float = 0.7
    processes: int | None = None
    runs: Path = Path("runs")
    seed: int = 0
    device: str | None = None
    output: Path = Path("memorization.npz")
    overwrite: bool = False

    def with_defaults(self) -> MemorizationOptions:
        """The same with the defaults of the data set."""
        dataset, device = self.dataset or "digits", self.device or _best_device()
        return _filled(self, {**_defaults(dataset, device), "dataset": dataset, "device": device})


_Options = TypeVar("_Options", AnalyzeOptions, MemorizationOptions)


def _filled(options: _Options, defaults: Mapping[str, Any]) -> _Options:
    """Options with defaults where they are None."""
    missing = [name for name, value in vars(options).items() if value is None and name in defaults]
    return replace(options, **{name: defaults[name] for name in missing})


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# The paper's settings, for a network and data of one's own; the draws are those of its estimates.
_PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "flip": 0.0,
        "network": "resnet18",
        "width": 64,
        "epochs": 100,
        "augment": True,
        "seeds": 1,
        "entropy_draws": 100_000,
        "divergence_draws": 10_000,
        "memorization_networks": 0,
        "memorization_share": 0.7,
        "bins": 0,
        "certified_examples": 100,
        "certificate_draws": 100_000,
        "processes": 1,
    }
)
# A demonstration that two cores finish: a narrow network, few networks for memorization, few draws.
_SMALL: Mapping[str, Any] = MappingProxyType(
    {
        "flip": 0.1,
        "augment": False,
        "entropy_draws": 2_000,
        "divergence_draws": 200,
        "bins": 4,
        "certificate_draws": 1_000,
        "processes": 2,
    }
)
_DEMONSTRATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "digits": {
            "width": 16,
            "epochs": 12,
            "seeds": 2,
            "memorization_networks": 16,
            "certified_examples": 40,
        },
        "glyphs100": {
            "width": 8,
            "epochs": 5,
            "seeds": 2,
            "chains": 2,
            "thin": 16,
            "memorization_networks": 6,
            "memorization_share": 0.5,
            "memorization_epochs": 3,
            "bin_epochs": 3,
            "certified_examples": 40,
        },
    }
)
# With a GPU the demonstration of a hundred classes runs at the paper's width.
_FULL_WIDTH: Mapping[str, Any] = MappingProxyType(
    {"width": 64, "epochs": 30, "memorization_epochs": 15, "bin_epochs": 15, "memorization_networks": 40}
)


def _defaults(dataset: str | None, device: str) -> dict[str, Any]:
    if dataset is None:
        # There is no network to train.
        return {name: value for name, value in _PAPER.items() if name.endswith("_draws")}
    demonstration = _DEMONSTRATIONS.get(dataset)
    if demonstration is None:
        return dict(_PAPER)
    full = _FULL_WIDTH if dataset == "glyphs100" and torch.device(device).type == "cuda" else {}
    return {**_PAPER, **_SMALL, **demonstration, **full}
