"""Sections of the report, in the order of the page; each file has one section's metrics and figures.

The text of a section is in the template of the same name, in ``fastdens/report/templates``.
"""

from fastdens.pipeline.results import Analysis
from fastdens.report.metrics import Metrics
from fastdens.report.section import Section
from fastdens.report.sections import (
    classes,
    components,
    definitions,
    divergences,
    examples,
    findings,
    flipped_labels,
    label,
    long_tail,
    memorization,
    modes,
    noise_images,
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
    definitions.SECTION,
    long_tail.SECTION,
    noise_images.SECTION,
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

    Parameters
    ----------
    analysis : Analysis
        As :func:`fastdens.pipeline.analyze` returned it.

    Returns
    -------
    Metrics
        Every number of its report.

    Raises
    ------
    ValueError
        If two layers or two classes have the same name.
    """
    return Metrics(metric for section in sections_of(analysis) for metric in section.metrics(analysis))
