"""Sections of the report, in the order of the page; each file has one section's numbers, figures and words."""

from fastdens.cli.sections.classes import CLASSES
from fastdens.cli.sections.components import COMPONENTS
from fastdens.cli.sections.divergences import DIVERGENCES
from fastdens.cli.sections.label import LABEL
from fastdens.cli.sections.memorization import MEMORIZATION
from fastdens.cli.sections.modes import MODES
from fastdens.cli.sections.planted import PLANTED
from fastdens.cli.sections.robustness import ROBUSTNESS
from fastdens.cli.sections.setting import SETTING

SECTIONS = (SETTING, MODES, *COMPONENTS, DIVERGENCES, LABEL, *PLANTED, MEMORIZATION, ROBUSTNESS, CLASSES)
