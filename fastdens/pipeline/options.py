"""Options of an analysis, each stated once: its name, type, default, range and meaning.

The defaults are the paper's settings, except that chains have better starts and split-merge moves, and that quantities
are defined exactly. The command makes its arguments from these classes; what it takes instead to compute what the
published code does is in :mod:`fastdens.pipeline.protocols`, and what it takes for the data sets that come with
fastdens in :mod:`fastdens.pipeline.presets`.
"""

import math
import operator
from collections.abc import Iterable
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin

from fastdens.kernels.options import check_choice
from fastdens.pipeline.protocols import PROTOCOLS, ProtocolName

DensityName = Literal["dp", "gmm"]

# R-hat needs as many kept draws.
_FEWEST_DRAWS = 4


class OptionError(ValueError):
    """Options that are out of range or exclude each other.

    Parameters
    ----------
    message : str
        What is wrong with which options.
    *options : str
        Their names.

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
            choices = _choices(own.type)
            if choices and not isinstance(value, int | float):
                check_choice(own.name, value, choices)
            for number in value if isinstance(value, tuple) else (value,):
                _check_range(own, number)


def _choices(hint: Any) -> tuple[str, ...]:
    """The words that an option may be, besides numbers where its type has them too; none for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(word for part in get_args(hint) if get_origin(part) is Literal for word in get_args(part))


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
    for the others, limited by limit_dimensions."""

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
class ScoreThresholds(Options):
    """Which examples count as memorized, and how many a subset of them has.

    Raises
    ------
    OptionError
        If ``kl_low`` is not less than ``kl_high``.
    """

    label_examples: int = option(1000, at_least=1)
    """Examples of all classes in a global subset: those of the highest scores, of the lowest, and others at random."""

    kl_high: float = option(0.7)
    """Score from which an example is among the most memorized, by threshold."""

    kl_low: float = option(0.015)
    """Score up to which it is among the least memorized, by threshold."""

    kl_examples: int = option(100, at_least=1)
    """Examples that a class must have among these: so many at random are taken of each such class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kl_low < self.kl_high:
            raise OptionError(
                f"kl_low is {self.kl_low:g} and kl_high {self.kl_high:g}, but the least memorized examples have lower "
                "scores: exchange the two.",
                *("kl_low", "kl_high"),
            )


# Thresholds have an effect where an option has this value.
_CHOSEN_BY = {
    "label_examples": ("label_subsets", "global"),
    "kl_high": ("kl_subsets", "threshold"),
    "kl_low": ("kl_subsets", "threshold"),
    "kl_examples": ("kl_subsets", "threshold"),
}


@dataclass(frozen=True)
class DefinitionOptions(ScoreThresholds):
    """How quantities are defined, where the published code and exact arithmetic differ.

    Raises
    ------
    OptionError
        If an option has no effect.
    """

    training_density: Literal["left_out", "in_sample"] = option("left_out", density="dp")
    """Density of a training example, for dp: of it left out of its own cluster in each draw, or (in_sample, published)
    of it as one of those that were fitted."""

    average: Literal["density", "log_density"] = option("density", density="dp")
    """What is averaged over kept draws, for dp: the density, whose log is then taken, or (published) its log."""

    weighting: Literal["exact", "published"] = option("exact", density="dp")
    """Weight of a cluster of n examples, for dp: n, and alpha for the prior; or (published) alpha + n, without it."""

    relative_entropy: Literal["density", "draws"] = option("density", density="dp")
    """Relative entropy of a class, for dp: of the density averaged over draws, or (published) the mean over draws."""

    pair_divergence: Literal["density", "draws"] = option("density", density="dp")
    """Divergence between classes, for dp, likewise."""

    kl_subsets: Literal["quarter", "threshold"] = "quarter"
    """Examples on which densities are fitted to compare classes by memorization: a quarter of each class by rank, or
    (threshold, published) kl_examples of each class that has so many of a score from kl_high, or up to kl_low."""

    label_subsets: Literal["class", "global"] = "class"
    """Examples held out to see where labels arise, by memorization: an eighth of each class, or (global, published)
    label_examples of all classes; then F1 is that of each draw."""

    bin_ranks: Literal["class", "global"] = "class"
    """Density bins: of the examples sorted within each class, or (global, published) all together."""

    sigma_units: Literal["pixels", "standardized"] = "pixels"
    """Unit of sigma and of certified radii: pixels from 0 to 1, or (published) standard deviations of each channel."""

    limit_dimensions: bool = True
    """Fewer dimensions by default where a class has under 8 examples for each; the published code has 16 and 64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for own in fields(ScoreThresholds):
            chooser, choice = _CHOSEN_BY[own.name]
            value = getattr(self, own.name)
            if value != own.default and getattr(self, chooser) != choice:
                raise OptionError(
                    f"{own.name} is {value}, but it has no effect unless {chooser} is {choice}: choose that, or leave "
                    f"{own.name} out.",
                    *(own.name, chooser),
                )


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
    """Standard deviation of the noise of randomized smoothing, in sigma_units."""

    epsilon: float = option(0.5, more_than=0, less_than=math.inf)
    """L2 radius of the attack, pixels being from 0 to 1."""

    certified_examples: int | Literal["all"] = option(100, at_least=1)
    """Examples of each bin to certify and attack, or all."""

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
class AnalysisOptions(DensityOptions, DefinitionOptions, MemorizationOptions, RobustnessOptions, MachineOptions):
    """All options of :func:`fastdens.pipeline.analyze`.

    They tell how densities are fitted (``dimensions``, ``density``, ``chains``, ...), how quantities are defined
    (``training_density``, ``average``, ...), what is asked about memorization (``memorization_networks``, ...) and
    robustness (``bins``, ``sigma``, ...), and where it is computed (``seed``, ``device``, ``processes``).

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

    @classmethod
    def of_protocol(cls, protocol: ProtocolName, **options: Any) -> Self:
        """The options of a protocol, except those that are given.

        Parameters
        ----------
        protocol : {"exact", "published"}
            What the options are by default, or what the published code computes. Neither asks for networks to be
            trained: pass ``bins`` for that.
        **options : object
            Other options, which win over those of the protocol.

        Returns
        -------
        AnalysisOptions
            Of the protocol and of ``options``.

        Raises
        ------
        OptionError, ValueError
            As for the options themselves.

        Examples
        --------
        >>> from fastdens.pipeline import AnalysisOptions
        >>> AnalysisOptions.of_protocol("published", chains=2).weighting
        'published'
        """
        check_choice("protocol", protocol, tuple(PROTOCOLS))
        chosen = PROTOCOLS[protocol]
        density = options.get("density", cls.density)
        values = {**chosen.amounts, **chosen.definitions}
        return cls(**{name: value for name, value in values.items() if belongs_to(name, density)} | options)

    @property
    def published_definitions(self) -> bool:
        """Whether every quantity is defined as in the published code."""
        definitions = PROTOCOLS["published"].definitions.items()
        return all(getattr(self, name) == value for name, value in definitions if belongs_to(name, self.density))

    def as_json(self) -> dict[str, Any]:
        """The options by name.

        Returns
        -------
        dict of str to object
            None for those that belong to the other density.
        """
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
    of_densities = (*fields(DensityOptions), *fields(DefinitionOptions))
    return next((own.metadata.get("density") for own in of_densities if own.name == name), None)


def belongs_to(name: str, density: str) -> bool:
    """Whether an option is one of this density, or of every density."""
    return _owner(name) in (None, density)


def resolve_device(device: str) -> str:
    """The device that ``"auto"`` stands for; any other is returned unchanged."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
