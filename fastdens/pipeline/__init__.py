"""The analysis as a library: data in, results out.

Activations of a network at two layers, the labels of the examples, and memorization scores if there are any:

>>> from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, analyze
>>> data = AnalysisData.from_activations(
...     {"layer3": train3, "layer4": train4}, {"layer3": test3, "layer4": test4}, scores, labels=y, test_labels=y_test
... )
>>> analysis = analyze(data, AnalysisOptions(sweeps=200, chains=2))
>>> analysis.layer("layer4").modes.n_groups, analysis.layer("layer4").held_out.accuracy
>>> analysis.save("my_analysis")
>>> analysis = Analysis.load("my_analysis")
>>> from fastdens.analysis.figures import plot_class_log_density
>>> plot_class_log_density(axes, analysis.layer("layer4").classes, analysis.layer("layer4").modes)
>>> from fastdens.report import write_report
>>> write_report(analysis, "my_report")

``data`` can also come from a folder of ``.npy`` files (``AnalysisData.from_activations("folder")``), from what
``fd.activations.extract`` returned, or from a network and images (``AnalysisData.from_network(model, images, y)``).
"""

from fastdens.pipeline.comparison import Comparison, compare
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.options import AnalysisOptions, OptionError
from fastdens.pipeline.results import (
    Analysis,
    Chains,
    Estimates,
    ExamplePictures,
    Examples,
    LayerAnalysis,
    MemorizationAnalysis,
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
    "OptionError",
    "Provenance",
    "RobustnessAnalysis",
    "Scores",
    "SubsetComparison",
    "analyze",
    "compare",
]
