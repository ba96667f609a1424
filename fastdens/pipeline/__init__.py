"""The analysis as a library: data in, results out.

Here the activations of a network at two layers are drawn at random. Memorization scores and test examples may join
them:

>>> import numpy as np
>>> from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, analyze
>>> labels = np.arange(160) % 4
>>> layer3, layer4 = (np.random.default_rng(seed).normal(size=(160, 4)) + labels[:, None] for seed in (0, 1))
>>> data = AnalysisData.from_activations({"layer3": layer3, "layer4": layer4}, labels=labels)
>>> options = AnalysisOptions(density="gmm", components=1, entropy_draws=1000, divergence_draws=1000)
>>> analysis = analyze(data, options, progress=False)
>>> analysis.layer("layer4").modes.n_groups
1
>>> analysis.save("my_analysis")
>>> analysis = Analysis.load("my_analysis")
>>> from matplotlib.figure import Figure
>>> from fastdens.analysis.figures import plot_class_log_density
>>> layer, axes = analysis.layer("layer4"), Figure(layout="constrained").subplots()
>>> axes = plot_class_log_density(axes, layer.classes, layer.modes, analysis.examples.class_names)

:func:`fastdens.report.write_report` makes a page of it. ``data`` can also come from a folder of ``.npy`` files
(``AnalysisData.from_activations("folder")``), from what ``fd.activations.extract`` returned, or from a network and
images (``AnalysisData.from_network(model, images, y)``).
"""

from fastdens.pipeline.comparison import Comparison, compare
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.examples import ExamplePictures, Examples
from fastdens.pipeline.options import AnalysisOptions, OptionError
from fastdens.pipeline.results import (
    Analysis,
    Chains,
    Estimates,
    LayerAnalysis,
    MemorizationAnalysis,
    NoiseImages,
    Provenance,
    RobustnessAnalysis,
    Scores,
    SubsetComparison,
)
from fastdens.pipeline.run import analyze

__all__ = [
    "Analysis",
    "AnalysisData",
    "AnalysisOptions",
    "Chains",
    "Comparison",
    "Estimates",
    "ExamplePictures",
    "Examples",
    "LayerAnalysis",
    "MemorizationAnalysis",
    "NoiseImages",
    "OptionError",
    "Provenance",
    "RobustnessAnalysis",
    "Scores",
    "SubsetComparison",
    "analyze",
    "compare",
]
