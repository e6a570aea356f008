"""``claims``: the papers' claims, decided on result rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import Publish, ReportsDir, echo, output_dirs, table


def claims(
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a suite's result rows; may be repeated.  [default: all of results/reference]"),
    ] = None,
    reports: ReportsDir = None,
    publish: Publish = False,
) -> None:
    """Decide the papers' claims on result rows; write a page."""
    from benchmarks.claims.page import reference_folders, render_claims

    _, reports = output_dirs("", None, reports, publish)
    found = render_claims(rows or reference_folders(), reports / "claims")
    columns = ["claim", "suite", "method", "verdict", "effect of the test that decides"]
    lines: list[tuple[str, ...]] = [(v.claim.key, v.suite, v.subject, v.word, str(v.deciding.effect)) for v in found]
    table("Claims", columns, lines)
    echo(f"Page: {reports / 'claims' / 'claims.md'}")
