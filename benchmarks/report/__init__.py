"""The report of a suite: tables, figures and pages, rendered from a folder of result files alone.

Change things here when a report or the leaderboard shows something new.  Imports ``published``, ``entries`` and no
suite, store or torch, so that result rows can be rendered anywhere.
"""

from benchmarks.report.load import read_results
from benchmarks.report.model import Results
from benchmarks.report.render import render

__all__ = ["Results", "read_results", "render"]
