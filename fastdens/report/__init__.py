"""Reports: the metrics, figures and text of each section of an analysis, and the files that hold them."""

from fastdens.report.metrics import Metric, Metrics
from fastdens.report.sections import metrics_of
from fastdens.report.write import check_output, write_report

__all__ = ["Metric", "Metrics", "check_output", "metrics_of", "write_report"]
