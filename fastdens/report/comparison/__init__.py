"""The page that sets two analyses side by side: its numbers, its figures and its files."""

from fastdens.report.comparison.metrics import comparison_metrics
from fastdens.report.comparison.write import check_comparison_output, render_comparison, write_comparison

__all__ = ["check_comparison_output", "comparison_metrics", "render_comparison", "write_comparison"]
