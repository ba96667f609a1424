"""The table of classes at each layer; its numbers are metrics of the sections before it."""

from __future__ import annotations

from fastdens.report.section import Section

SECTION = Section("classes", "Classes")
