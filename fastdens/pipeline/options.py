"""Options of an analysis, each stated once: its name, type, default, range and meaning.

The defaults are the paper's settings, except that chains have better starts and split-merge moves. The command makes
its arguments from these classes; what it takes instead for the data sets that come with fastdens is in
:mod:`fastdens.pipeline.presets`.
"""

import math
import operator
from collections.abc import Iterable
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fastdens.kernels.options import check_choice

DensityName = Literal["dp", "gmm"]

# R-hat needs as many kept draws.
_FEWEST_DRAWS = 4


class OptionError(ValueError):
    """Options that are out of range or exclude each other.

    Attributes
    ----------
    options : tuple of str
        Names of the options that the message speaks of.
    """

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


class RangeError(OptionError):
    """An option that is out of range, whatever the others are."""


def option(default: Any, *, density: DensityName | None = None, **bounds: float) -> Any:
    """A field of options.

    Parameters
    ----------
    default : object
    density : str, optional
        The density that the option belongs to, if it belongs to one.
    **bounds : float
        Its range: ``at_least``, ``at_most``, ``more_than``, ``less_than``.
    """
    return field(default=default, metadata={"bounds": bounds, "density": density})


def burn_in(sweeps: int) -> int:
    """Sweeps of a chain before the first that may be kept: four fifths, the paper's 320 of 400."""
    return 4 * sweeps // 5


@dataclass(frozen=True)
class Options:
    """Base class of options, which checks their ranges.

    Raises
    ------
    RangeError
        If an option is out of range.
    ValueError
        If an option has a choice of values, and this is none of them.
    """

    def __post_init__(self) -> None:
        for own in fields(self):
            value = getattr(self, own.name)
            if get_origin(own.type) is Literal:
                check_choice(own.name, value, get_args(own.type))
            for number in value if isinstance(value, tuple) else (value,):
                _check_range(own, number)


_FITS = {"at_least": operator.ge, "at_most": operator.le, "more_than": operator.gt, "less_than": operator.lt}


def _check_range(own: Field[Any], value: object) -> None:
    if not isinstance(value, int | float):
        return
    for bound, limit in own.metadata.get("bounds", {}).items():
        if not _FITS[bound](value, limit):
            raise RangeError(f"{own.name} is {value}, but it must be {bound.replace('_', ' ')} {limit:g}.", own.name)


@dataclass(frozen=True)
class DensityOptions(Options):
    """How the classes of a layer are fitted and compared."""

    dimensions: tuple[int, ...] | None = option(None, at_least=1)
    """Dimensions to project each layer to, or one number for all; by default 16 for the first half of the layers and 64
    for the others, less where a class has under 8 examples for each."""

    density: DensityName = "dp"
    """Dirichlet-process mixtures by collapsed Gibbs sampling (dp), or Gaussian mixtures by EM (gmm)."""

    chains: int = option(4, at_least=1, density="dp")
    """Chains of each class, for dp."""

    sweeps: int = option(400, at_least=1, density="dp")
    """Sweeps of a chain, for dp; draws are kept from the last fifth."""

    thin: int = option(4, at_least=1, density="dp")
    """Sweeps from one kept draw to the next, for dp."""

    init: Literal["overdispersed", "kmeans", "random"] = option("overdispersed", density="dp")
    """Clusters that chains start from, for dp: k-means with another number in each chain (overdispersed) or with 6 in
    all (kmeans), or 6 at random (random), the paper's."""

    split_merge: float | None = option(None, at_least=0, less_than=math.inf, density="dp")
    """Split-merge moves a sweep, on average, for dp; by default 16 over the dimensions of the layer, but at most 4."""

    search: float = option(0.7, at_least=0, at_most=1, density="dp")
    """Share of the burn-in in which a chain looks for a good state from several starts; 0 leaves it out."""

    stop: Literal["sweeps", "converged"] = option("sweeps", density="dp")
    """When chains end, for dp: after their sweeps, or (converged) once those of the class agree, in rounds of twice as
    many sweeps each."""

    max_sweeps: int | None = option(None, at_least=1, density="dp")
    """Most sweeps of a chain that stops when converged, for dp; by default ten times the sweeps."""

    components: int | None = option(None, at_least=1, density="gmm")
    """Gaussians of each class, for gmm; by default the number up to 6 with the least BIC over all classes."""

    neighbours: int = option(10, at_least=1)
    """Nearest neighbours whose mean distance is taken."""

    entropy_draws: int = option(100_000, at_least=2)
    """Monte Carlo draws for the relative entropy of each class."""

    divergence_draws: int = option(10_000, at_least=2)
    """Monte Carlo draws from each class for the divergences between classes."""


@dataclass(frozen=True)
class MemorizationOptions(Options):
    """Networks that estimate memorization scores, where the data come with images and without scores."""

    memorization_networks: int = option(0, at_least=0)
    """Networks to train on random subsets of the images, to estimate memorization scores."""

    memorization_epochs: int | None = option(None, at_least=1)
    """Epochs of these networks; by default as many as for the analyzed one."""

    memorization_share: float = option(0.7, at_least=0, less_than=1)
    """Share of the images that each of them sees."""


@dataclass(frozen=True)
class RobustnessOptions(Options):
    """Certificates and attacks by density, where the data come with images."""

    bins: int = option(0, at_least=0)
    """Density bins; for each, a network is trained without its examples."""

    bin_epochs: int | None = option(None, at_least=1)
    """Epochs of these networks; by default as many as for the analyzed one."""

    sigma: float = option(0.5, more_than=0, less_than=math.inf)
    """Standard deviation of the noise of randomized smoothing, pixels being from 0 to 1."""

    epsilon: float = option(0.5, more_than=0, less_than=math.inf)
    """L2 radius of the attack, pixels being from 0 to 1."""

    certified_examples: int = option(100, at_least=1)
    """Examples of each bin to certify and attack."""

    certificate_draws: int = option(100_000, at_least=1)
    """Draws of noise for each certificate."""


@dataclass(frozen=True)
class MachineOptions(Options):
    """Device, processes and seed."""

    seed: int = option(0, at_least=0)
    """Seed of all random numbers."""

    device: str = "auto"
    """Device of torch, such as cuda; auto is cuda where there is a GPU, else cpu."""

    processes: int = option(1, at_least=1)
    """Processes to train networks in; others may work on the same folder of runs."""


@dataclass(frozen=True)
class AnalysisOptions(DensityOptions, MemorizationOptions, RobustnessOptions, MachineOptions):
    """All options of :func:`fastdens.pipeline.analyze`.

    The options are the attributes of :class:`DensityOptions` (``dimensions``, ``density``, ``chains``, ...),
    :class:`MemorizationOptions` (``memorization_networks``, ...), :class:`RobustnessOptions` (``bins``, ``sigma``, ...)
    and :class:`MachineOptions` (``seed``, ``device``, ``processes``).

    Raises
    ------
    OptionError
        If an option is out of range, belongs to the other density, has no effect, or leaves too few draws for R-hat.
    ValueError
        If an option has a choice of values, and this is none of them.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_density_options(
            self.density, [own.name for own in fields(self) if getattr(self, own.name) != own.default]
        )
        n_draws = (self.sweeps - burn_in(self.sweeps)) // self.thin
        if self.density == "dp" and n_draws < _FEWEST_DRAWS:
            raise OptionError(
                f"sweeps is {self.sweeps}, but R-hat needs {_FEWEST_DRAWS} draws of the last fifth, one every "
                f"{self.thin} sweeps: raise it to {5 * _FEWEST_DRAWS * self.thin}, or lower thin.",
                *("sweeps", "thin"),
            )
        if self.max_sweeps is not None and self.stop == "sweeps":
            raise OptionError(
                f"max_sweeps is {self.max_sweeps}, but chains make {self.sweeps} sweeps if stop is sweeps: choose stop "
                "converged, or leave max_sweeps out.",
                *("max_sweeps", "stop"),
            )

    def as_json(self) -> dict[str, Any]:
        """The options by name, None for those that belong to the other density."""
        return {name: value if belongs_to(name, self.density) else None for name, value in asdict(self).items()}


def check_density_options(density: str, given: Iterable[str]) -> None:
    """Refuse options that belong to another density.

    Parameters
    ----------
    density : str
    given : iterable of str
        Names of the options that the caller has set.

    Raises
    ------
    OptionError
        If one belongs to another density; the message names both.
    """
    for name in given:
        if not belongs_to(name, density):
            raise OptionError(
                f"{name} is for density {_owner(name)}, but the density is {density}: leave it out.",
                *(name, "density"),
            )


def _owner(name: str) -> str | None:
    """The density that an option belongs to, None if it belongs to all."""
    return next((own.metadata.get("density") for own in fields(DensityOptions) if own.name == name), None)


def belongs_to(name: str, density: str) -> bool:
    """Whether an option is one of this density, or of every density."""
    return _owner(name) in (None, density)


@dataclass(frozen=True)
class ImageOptions(Options):
    """Images to train on, and labels to flip."""

    dataset: str = "anagrams"
    """anagrams, digits, glyphs100, a data set of torchvision (CIFAR100, ...), or a folder of images: train/ and test/
    or val/ with one folder per class, one folder per class, or that of Mini-ImageNet."""

    data_root: Path = Path("data")
    """Folder with the files of a torchvision data set."""

    image_size: int | None = option(None, at_least=1)
    """Height and width to resize images to; by default 16 for anagrams and digits, 32 for glyphs100, and as they
    are for others."""

    flip: float = option(0.0, at_least=0, less_than=1)
    """Share of the training labels to flip at random, so that some memorized examples are known."""

    long_tailed: tuple[str, ...] | None = None
    """Classes of anagrams or glyphs100 whose images come from a long tail, or their share, such as 0.1, or 0 for none;
    by default two fifths of anagrams and a fifth of glyphs100."""


@dataclass(frozen=True)
class NetworkOptions(Options):
    """A network and how it is trained; the fields are those of :class:`fastdens.training.runs.Recipe`."""

    network: str = "resnet18"
    """resnet18 to resnet101 with the stem for small images; torchvision/NAME; timm/NAME; or FILE.py:FUNCTION that takes
    the number of classes."""

    width: int = option(64, at_least=1)
    """Channels of the first stage."""

    epochs: int = option(100, at_least=1)
    """Passes over the training images."""

    augment: bool = True
    """Rotate, scale and shift each training image a little, differently each epoch. (The demonstrations do not: their
    networks could not memorize in so few epochs.)"""

    batch_size: int = option(64, at_least=1)
    """Images in a training step."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the training; bfloat16 is mixed precision, which is faster."""


def resolve_device(device: str) -> str:
    """The device that ``"auto"`` stands for; any other is returned unchanged."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
