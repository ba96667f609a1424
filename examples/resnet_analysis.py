"""Modes of class fitting in a ResNet trained before your eyes, on scikit-learn's digits.

    python examples/resnet_analysis.py [--width 16] [--epochs 20] [--flip 0.1] [--density dp] ...

is the command ``fastdens analyze``; without arguments it asks for nothing that is not installed. The steps are those of
``fastdens/cli/analyze.py``: train, ``fd.activations.extract``, ``fd.reduction.UncentredSVD``,
``fd.RaggedBatch.from_labels``, ``fd.DirichletProcessMixtures`` (or, with ``--density gmm``, ``fd.GaussianMixtures``),
and the functions of ``fastdens.analysis``.
"""

import sys

from fastdens.cli import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
