"""The report of a suite: tables, figures and pages, rendered from a folder of result files alone.

Change things here when a report shows something new.  Imports ``published`` alone, so that rows of any origin and age
can be rendered without a suite, a store or torch.
"""

from benchmarks.report.load import Results, load_results
from benchmarks.report.render import render

__all__ = ["Results", "load_results", "render"]
