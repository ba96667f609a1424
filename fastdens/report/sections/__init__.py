"""Sections of the report, in the order of the page; each file has one section's metrics and figures.

Its words are in the template of the same name, in the folder beside this one.
"""

from fastdens.report.sections import (
    classes,
    components,
    divergences,
    flipped_labels,
    label,
    long_tail,
    memorization,
    modes,
    robustness,
    setting,
)

SECTIONS = (
    setting.SECTION,
    modes.SECTION,
    components.SECTION,
    divergences.SECTION,
    label.SECTION,
    flipped_labels.SECTION,
    long_tail.SECTION,
    memorization.SECTION,
    robustness.SECTION,
    classes.SECTION,
)
