"""What the command analyzes: its options of activations, images, network and scores, made into data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastdens.analysis import read_memorization_scores
from fastdens.cli.options import ActivationFiles, AnalyzedNetwork, ScoreFile
from fastdens.io.index_lists import read_index_list, read_label_list
from fastdens.pipeline import AnalysisData
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.plan import outlined_data
from fastdens.progress import Stages


@dataclass(frozen=True)
class Inputs:
    """The options that say what is analyzed; ``runs`` is the folder of trained networks."""

    source: ActivationFiles
    images: ImageOptions
    network: AnalyzedNetwork
    scores: ScoreFile
    machine: MachineOptions
    runs: Path

    def open(self, *, outline: bool = False, progress: bool = True) -> AnalysisData | Experiment:
        """The data of given activations, or the images and the network that data are to be made of.

        Parameters
        ----------
        outline : bool
            Leave out the pixels of images where their number is known, to plan work on them.
        progress : bool
            Show a progress bar where images are looked through.

        Raises
        ------
        ValueError, OSError
            If a file is missing, damaged, or does not fit the others.
        """
        if self.scores.memorization is not None:
            # A file that cannot be read is told before anything is trained.
            read_memorization_scores(self.scores.memorization, allow_pickle=self.images.allow_pickle)
        if self.source.activations is None:
            return Experiment.load(
                self.images, self.network, self.runs, self.machine.seed, outline=outline, progress=progress
            )
        return AnalysisData.from_activations(
            self.source.activations,
            self.source.test_activations,
            self.scores.memorization,
            labels=None if self.images.label_list is None else read_label_list(self.images.label_list),
            examples=None if self.images.examples is None else read_index_list(self.images.examples),
            layers=self.network.layers,
            pooling=self.network.pooling,
            allow_pickle=self.images.allow_pickle,
        )

    def outline(self, opened: AnalysisData | Experiment) -> AnalysisData:
        """The data without their values, to plan work on them."""
        if isinstance(opened, AnalysisData):
            return opened
        return outlined_data(
            opened,
            seeds=self.network.seeds,
            from_file=self.network.weights is not None,
            layers=self.network.layers,
            scored=self.scores.memorization is not None,
        )

    def data(
        self, opened: AnalysisData | Experiment, stages: Stages, checkpoint: Path, *, progress: bool = True
    ) -> AnalysisData:
        """The data; networks are trained, and their activations extracted to ``checkpoint``, if they are not there."""
        if isinstance(opened, AnalysisData):
            return opened
        return AnalysisData.from_experiment(
            opened,
            seeds=self.network.seeds,
            weights=self.network.weights,
            layers=self.network.layers,
            pooling=self.network.pooling,
            tokens=self.network.tokens,
            noise_images=self.network.noise_images,
            scores=self.scores.memorization,
            allow_pickle=self.images.allow_pickle,
            machine=self.machine,
            progress=progress,
            stages=stages,
            checkpoint=checkpoint,
        )
