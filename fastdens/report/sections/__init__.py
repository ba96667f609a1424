"""Sections of the report, in the order of the page; each file has one section's metrics and figures.

The text of a section is in the template of the same name, in ``fastdens/report/templates``.
"""

from fastdens.pipeline.results import Analysis
from fastdens.report.metrics import Metrics
from fastdens.report.section import Section
from fastdens.report.sections import (
    classes,
    components,
    divergences,
    examples,
    findings,
    flipped_labels,
    label,
    long_tail,
    memorization,
    modes,
    robustness,
    setting,
)

SECTIONS = (
    findings.SECTION,
    setting.SECTION,
    modes.SECTION,
    components.SECTION,
    divergences.SECTION,
    label.SECTION,
    flipped_labels.SECTION,
    long_tail.SECTION,
    memorization.SECTION,
    robustness.SECTION,
    examples.SECTION,
    classes.SECTION,
)


def sections_of(analysis: Analysis) -> tuple[Section, ...]:
    """The sections that an analysis has."""
    return tuple(section for section in SECTIONS if section.applies(analysis))


def metrics_of(analysis: Analysis) -> Metrics:
    """All metrics of an analysis.

    Raises
    ------
    ValueError
        If two layers or two classes have the same name.
    """
    return Metrics(metric for section in sections_of(analysis) for metric in section.metrics(analysis))
