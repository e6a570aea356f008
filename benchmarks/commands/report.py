"""``report``: tables and figures of a suite, from its result rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import REFERENCE, Publish, ReportsDir, SuiteName, echo_report, output_dirs, suite_name
from dbn_core.errors import SpecError


def report(
    suite: SuiteName = "digits",
    rows: Annotated[
        Path | None,
        typer.Option(help="Folder of result rows.  [default: results/runs/SUITE, else results/reference/SUITE]"),
    ] = None,
    reports: ReportsDir = None,
    publish: Publish = False,
) -> None:
    """Render tables and figures from result rows.

    It needs neither networks nor data.
    """
    from benchmarks.report import render

    name = suite_name(suite)
    own, reports = output_dirs(name, rows, reports, publish)
    candidates = [own] if rows or publish else [own, REFERENCE / name]
    folder = next((path for path in candidates if (path / "meta.json").is_file()), None)
    if folder is None:
        searched = " or ".join(f"'{path}'" for path in candidates)
        raise SpecError(f"There are no result rows in {searched}: run `dbn-bench run {suite}` first.")
    render(folder, reports / name)
    echo_report(reports / name / "report.html", folder)
