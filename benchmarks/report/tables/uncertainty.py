"""Selective prediction, smooth calibration, disagreement of members and conformal sets: the table of its section."""

from __future__ import annotations

from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import ReportTable, TableCell
from benchmarks.report.tables.main import equivalents, in_blocks, score_columns


def uncertainty_table(results: Results) -> ReportTable | None:
    """Return the scores that are not in the main table, each before its equivalent; None if the rows have none."""
    curves, columns = results.curves_of("uncertainty"), dict[str, list[TableCell]]()
    for name in results.scores_of("uncertainty"):
        columns |= score_columns(results, [name])
        columns |= equivalents(results, [curve for curve, score in curves.items() if score == name])
    return in_blocks(results, columns) if columns else None
