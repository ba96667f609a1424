"""Results of an analysis: frozen dataclasses of plain arrays, nested."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import (
    ClassLogDensity,
    Correlations,
    GenerativeClassification,
    ModeIntervals,
    Modes,
    PredictorComparison,
)
from fastdens.pipeline.earlier_formats import UPGRADES
from fastdens.pipeline.examples import ExamplePictures, Examples
from fastdens.pipeline.options import AnalysisOptions
from fastdens.pipeline.saving import load_tree, save_tree


@dataclass(frozen=True)
class Estimates:
    """Estimated values and their standard errors.

    Attributes
    ----------
    value, standard_error : ndarray
        float64, of one shape.
    """

    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]


@dataclass(frozen=True)
class Provenance:
    """Where the activations come from.

    Fields that do not apply are None: the report names what is known.

    Attributes
    ----------
    name : str
        Title of the report: the data set, the folder, or the name that the caller chose.
    activations : str or None
        The folder that they were read from; None for arrays in memory and for a network.
    network : str or None
        Name of the network that made them, None if that is not known.
    weights : str or None
        The file of its weights, if it was not trained here.
    width, epochs : int or None
        Channels of its first stage and passes over the images, if it was trained here.
    pooling, tokens : str or None
        How one vector of an example was made of what a layer puts out: "average" or "max", over "all" tokens, the
        "class" token or those of the "patches".
    settings : mapping of str to object
        The other options that the data were made with: text, numbers, None, or tuples of them.
    """

    name: str
    activations: str | None = None
    network: str | None = None
    weights: str | None = None
    width: int | None = None
    epochs: int | None = None
    pooling: str | None = None
    tokens: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chains:
    """Kept draws of the chains of each class, and whether the chains agree.

    Attributes
    ----------
    n_components : ndarray
        int32 [M, C, S], clusters that hold points.
    log_joint : ndarray
        float64 [M, C, S], in nats.
    sweeps : ndarray
        int64 [M, S], the sweeps that were kept.
    n_sweeps : ndarray
        int64 [M], sweeps that each chain made.
    rhat, effective_sample_size : ndarray
        float64 [M], rank-normalised R-hat and the smaller of the bulk and the tail effective sample size, of the
        log-joint.
    agree : ndarray
        bool [M], whether R-hat is at most ``max_rhat`` and the effective sample size is at least
        ``min_effective_sample_size``.
    max_rhat, min_effective_sample_size : float
        The limits.
    split_merge : ndarray
        int64 [M, C, 4]: splits that were proposed, splits that were accepted, and merges likewise.
    """

    n_components: NDArray[np.int32]
    log_joint: NDArray[np.float64]
    sweeps: NDArray[np.int64]
    n_sweeps: NDArray[np.int64]
    rhat: NDArray[np.float64]
    effective_sample_size: NDArray[np.float64]
    agree: NDArray[np.bool_]
    max_rhat: float
    min_effective_sample_size: float
    split_merge: NDArray[np.int64]

    @property
    def n_agreeing(self) -> int:
        """Number of classes whose chains agree."""
        return int(self.agree.sum())


@dataclass(frozen=True)
class NoiseImages:
    """How dense images of noise are beside test images, by the largest log-density that a class gives them, in nats.

    Attributes
    ----------
    log_density : ndarray
        float64 [n], of the images of noise.
    test_log_density : ndarray
        float64 [T], of the test images.
    auc : float
        Area under the ROC curve for finding the images of noise by a low density.
    auc_standard_error : float
    """

    log_density: NDArray[np.float64]
    test_log_density: NDArray[np.float64]
    auc: float
    auc_standard_error: float


@dataclass(frozen=True)
class LayerAnalysis:
    """Results at one layer.

    It has M classes and N training examples.

    Attributes
    ----------
    name : str
        Name of the layer.
    n_features : int
        Features of its (pooled) activations.
    n_dimensions : int
        Dimensions D after the projection.
    explained : float
        Share of the squares that the projection keeps.
    log_density : ndarray
        float64 [N], of each training example under the class of its given label, in nats.
    classes : ClassLogDensity
    modes : Modes
    intervals : ModeIntervals
    n_components : ndarray
        float64 [M], components of each class (a mean where there are draws).
    chains : Chains or None
        None where the density was not sampled.
    neighbour_distance : ndarray
        float64 [N], mean distance to the nearest neighbours in the class.
    distance : Estimates
        [M], mean Euclidean distance between pairs of a class.
    relative_entropy : Estimates
        [M], KL(class density || Gaussian of independent features with the same means and variances), in nats.
    divergence : Estimates
        [M, M], KL(row || column), in nats.
    held_out : GenerativeClassification or None
        Test examples classified by density; None without test examples.
    flipped_auc, long_tailed_auc : float
        Area under the ROC curve for finding flipped examples, and long-tailed classes, by low density; NaN where there
        are none.
    n_left_out : int
        Dimensions that the projection left out, since they do not vary within some class.
    constant_classes : tuple of str
        Names of those classes.
    noise : NoiseImages or None
        None where no images of noise were shown to the network.
    in_sample, left_out : ndarray or None
        float64 [N], log-density of each training example by the density that was fitted to it too, and left out of its
        own cluster in each draw; ``log_density`` is one of the two. None where the density was not sampled.
    """

    name: str
    n_features: int
    n_dimensions: int
    explained: float
    log_density: NDArray[np.float64]
    classes: ClassLogDensity
    modes: Modes
    intervals: ModeIntervals
    n_components: NDArray[np.float64]
    chains: Chains | None
    neighbour_distance: NDArray[np.float64]
    distance: Estimates
    relative_entropy: Estimates
    divergence: Estimates
    held_out: GenerativeClassification | None
    flipped_auc: float
    long_tailed_auc: float
    n_left_out: int = 0
    constant_classes: tuple[str, ...] = ()
    noise: NoiseImages | None = None
    in_sample: NDArray[np.float64] | None = None
    left_out: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Scores:
    """Memorization scores of the training examples.

    The score of an example is the amount by which training on it raises the probability that a network predicts its
    label (Feldman & Zhang 2020).

    Attributes
    ----------
    values : ndarray
        float64 [N]; NaN where a score is not known.
    standard_error : ndarray or None
        float64 [N], None if they were read from a file without it.
    n_networks : int
        Networks that they were estimated from here; 0 if they were given.
    source : str or None
        The file that they were read from.
    """

    values: NDArray[np.float64]
    standard_error: NDArray[np.float64] | None = None
    n_networks: int = 0
    source: str | None = None


@dataclass(frozen=True)
class SubsetComparison:
    """The most memorized, least memorized and random examples ("most", "least", "random").

    Attributes
    ----------
    held_out : int
        Examples in a subset that was classified: of each class, or of all if ``label_subsets`` is "global".
    fitted : int
        Examples of each class in a subset that was fitted.
    classification : mapping of str to tuple of GenerativeClassification
        By subset, one a layer: its examples classified by densities fitted without any of the subsets; empty where the
        data do not have enough examples.
    divergence : mapping of str to tuple of Estimates
        By subset, one a layer: KL(row || column), [m, m], between densities fitted on the subset alone, of the m
        classes that have enough examples in it; without subsets in which fewer than two do.
    n_classes : mapping of str to int
        By subset, m.
    label_scores : mapping of str to float
        The lowest score in the global subset "most", and the highest in "least"; empty if there are none.
    f1_of_draws : mapping of str to tuple of ndarray
        By global subset, one a layer: weighted F1 by the densities of each kept draw alone, [draws]; empty if there are
        no such subsets or no draws.
    """

    held_out: int
    fitted: int
    classification: Mapping[str, tuple[GenerativeClassification, ...]]
    divergence: Mapping[str, tuple[Estimates, ...]]
    n_classes: Mapping[str, int] = field(default_factory=dict)
    label_scores: Mapping[str, float] = field(default_factory=dict)
    f1_of_draws: Mapping[str, tuple[NDArray[np.float64], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class MemorizationAnalysis:
    """Relation between memorization and density.

    Examples without a score take no part.

    Attributes
    ----------
    scores : Scores
    correlations : Correlations
        Of the score with the log-density, at each layer.
    predictors : mapping of str to PredictorComparison
        By layer: log-density, relative entropy and neighbour distance.
    subsets : SubsetComparison
    flipped_auc : float
        Area under the ROC curve for finding flipped labels by a high score; NaN where none are known.
    """

    scores: Scores
    correlations: Correlations
    predictors: Mapping[str, PredictorComparison]
    subsets: SubsetComparison
    flipped_auc: float


@dataclass(frozen=True)
class RobustnessAnalysis:
    """Certificates and attacks of some examples of each density bin, by a network trained without that bin.

    Certificates are by randomized smoothing, attacks by projected gradient descent.

    Attributes
    ----------
    layer : str
        The layer whose log-density defines the bins.
    bins : ndarray
        int64 [N], the bin of every training example, 0 the least dense.
    examples : ndarray
        int64 [E], the training examples tried.
    bin, group : ndarray
        int64 [E], their bin and the group of their class.
    radius : ndarray
        float64 [E], certified L2 radius, 0 where the smoothed network abstains or errs.
    robust, clean : ndarray
        bool [E], whether the attack failed, and whether the network was right before it.
    accuracy : ndarray
        float64 [n_bins], accuracy of each network on the test images.
    """

    layer: str
    bins: NDArray[np.int64]
    examples: NDArray[np.int64]
    bin: NDArray[np.int64]
    group: NDArray[np.int64]
    radius: NDArray[np.float64]
    robust: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    accuracy: NDArray[np.float64]

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.accuracy)


@dataclass(frozen=True)
class Analysis:
    """Results of an analysis.

    It is plain data: :meth:`save` and :meth:`load` it, or pass it to :func:`fastdens.report.write_report`.

    Attributes
    ----------
    options : AnalysisOptions
        The options, every default filled in.
    provenance : Provenance
    examples : Examples
    layers : tuple of LayerAnalysis
        From the first to the last.
    layer_agreement : ndarray
        float64 [L, L], adjusted Rand index of the groups that two layers split the classes into; NaN where both have
        one group, as of :func:`fastdens.analysis.split_agreement`.
    seed_agreement : ndarray or None
        float64 [L, S, S], the same of two networks trained from different seeds; the first is the one analyzed. None
        where there is one network.
    memorization : MemorizationAnalysis or None
        None where there are no scores.
    robustness : RobustnessAnalysis or None
        None where it was not asked for.
    pictures : ExamplePictures or None
        Of the examples that stand out at the last layer; None
        where there are no images.
    """

    options: AnalysisOptions
    provenance: Provenance
    examples: Examples
    layers: tuple[LayerAnalysis, ...]
    layer_agreement: NDArray[np.float64]
    seed_agreement: NDArray[np.float64] | None = None
    memorization: MemorizationAnalysis | None = None
    robustness: RobustnessAnalysis | None = None
    pictures: ExamplePictures | None = None

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, from the first to the last."""
        return tuple(layer.name for layer in self.layers)

    def layer(self, name: str) -> LayerAnalysis:
        """Results at the layer of that name.

        Parameters
        ----------
        name : str
            As the network has it.

        Returns
        -------
        LayerAnalysis
            One of ``layers``.

        Raises
        ------
        KeyError
            If there is no such layer.
        """
        return next(layer for layer in self.layers if layer.name == name)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the analysis to a folder, as JSON and safetensors.

        Parameters
        ----------
        folder : path-like
            Appears when everything is written.
        overwrite : bool
            Replace a folder of this name.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        save_tree(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Analysis:
        """Read an analysis that :meth:`save` wrote; every number comes back bit for bit.

        Of an analysis that an earlier version wrote, R-hat and effective sample sizes are computed anew from the draws.

        Parameters
        ----------
        folder : path-like
            Where :meth:`save` wrote it.

        Returns
        -------
        Analysis
            The same results.

        Raises
        ------
        FileNotFoundError
            If the folder has no analysis.
        ValueError
            If its files are damaged, are not of an analysis, or were written by a newer version.
        ImportError
            If safetensors is missing.
        """
        return load_tree(cls, Path(folder), UPGRADES)
