"""``report`` and ``claims``: pages from result rows, without networks or data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import (
    REFERENCE,
    Publish,
    ReportsDir,
    SuiteName,
    console,
    echo_report,
    output_dirs,
    table,
)
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
    """Render tables and figures again from result rows, without networks or data."""
    from benchmarks.report import render

    name = Path(suite).stem
    own, reports = output_dirs(name, rows, reports, publish)
    candidates = [own] if rows or publish else [own, REFERENCE / name]
    folder = next((path for path in candidates if (path / "meta.json").is_file()), None)
    if folder is None:
        searched = " or ".join(f"'{path}'" for path in candidates)
        raise SpecError(f"There are no result rows in {searched}: run `dbn-bench run {suite}` first.")
    render(folder, reports / name)
    echo_report(reports / name / "report.html", folder)


def claims(
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a suite's result rows; may be repeated.  [default: all of results/reference]"),
    ] = None,
    reports: ReportsDir = None,
    publish: Publish = False,
) -> None:
    """Decide the papers' claims on result rows, and write a page of them."""
    from benchmarks.claims.page import reference_folders, render_claims

    _, reports = output_dirs("", None, reports, publish)
    found = render_claims(rows or reference_folders(), reports / "claims")
    columns = ["claim", "suite", "method", "verdict", "effect of the test that decides"]
    lines: list[tuple[str, ...]] = [(v.claim.key, v.suite, v.subject, v.word, str(v.deciding.effect)) for v in found]
    table("Claims", columns, lines)
    console.print(f"Page: {reports / 'claims' / 'claims.md'}", markup=False, highlight=False, soft_wrap=True)
