"""The report of a suite: tables, figures and pages, rendered from a folder of result files alone."""

from benchmarks.report.load import Results, load_results
from benchmarks.report.render import render

__all__ = ["Results", "load_results", "render"]
