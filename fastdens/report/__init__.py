"""Reports: the metrics, figures and text of each section of an analysis, and the files that hold them."""

from fastdens.report.comparison import check_comparison_output, comparison_metrics, write_comparison
from fastdens.report.metrics import Metric, Metrics
from fastdens.report.sections import metrics_of
from fastdens.report.write import check_output, write_report

__all__ = [
    "Metric",
    "Metrics",
    "check_comparison_output",
    "check_output",
    "comparison_metrics",
    "metrics_of",
    "write_comparison",
    "write_report",
]
