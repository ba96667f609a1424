"""The titles under which the help lists arguments, in the order of the page; each argument is named like its field."""

from __future__ import annotations

from cyclopts import Group, Parameter


def _group(title: str) -> Parameter:
    return Parameter(name="*", group=Group.create_ordered(title))


ACTIVATIONS = _group("Activations, in place of images and a network")
IMAGES, NETWORK = _group("Images"), _group("Network")
DENSITIES, DEFINITIONS = _group("Densities"), _group("Definitions")
MEMORIZATION, ROBUSTNESS = _group("Memorization"), _group("Robustness")
MACHINE, FILES, DRY_RUN, OUTPUT = _group("Machine"), _group("Files"), _group("Dry run"), _group("Output")
