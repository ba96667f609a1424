"""Modes of class fitting in a ResNet trained before your eyes, on anagrams of which some classes have a long tail.

    python examples/resnet_analysis.py [--seed 7] [--long-tailed 0] [--dataset digits] [--density dp] ...

is the command ``fastdens analyze``; without arguments it needs nothing that is not installed. ``fastdens.pipeline`` has
the same steps as a library: ``activations_of_your_own.py`` shows them.
"""

import sys

from fastdens.cli import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
