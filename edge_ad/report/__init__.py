"""The report of a run: one HTML file that a customer can be shown."""

from edge_ad.report.page import write_report
from edge_ad.report.report import Report

__all__ = ["Report", "write_report"]
