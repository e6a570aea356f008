"""``leaderboard``: all suites of classification and all entries on one page."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.commands.common import REPORTS, echo
from benchmarks.commands.display import print_table
from dbn_core.errors import SpecError, did_you_mean

PAGE = REPORTS / "README.md"


def leaderboard(
    suite: Annotated[str | None, typer.Argument(help="Of this suite alone.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help=f"Write the committed page {PAGE}.")] = False,
    rescore: Annotated[
        bool,
        typer.Option("--rescore", help="First score every entry again from its predictions, and write its scores."),
    ] = False,
) -> None:
    """Rank committed rows and entries by calibrated deep-ensemble equivalent.

    It needs neither networks nor data.
    """
    from benchmarks.report.leaderboard import load_boards, render_leaderboard
    from dbn_core.files import atomic_write

    if rescore:
        _rescore()
    if publish:
        atomic_write(PAGE, render_leaderboard().encode())
        echo(f"Page: {PAGE}")
        return
    boards = {board.suite: board for board in load_boards()}
    if suite is not None and suite not in boards:
        raise SpecError(f"There is no leaderboard of '{suite}'{did_you_mean(suite, boards)}.")
    for board in [boards[suite]] if suite else boards.values():
        columns = ["method", "size", "n", "DEE calibrated", "DEE raw", "ACC %", "NLL", "FLOPs", "training", "status"]
        rows = [(row.label, *(cell.replace("\\", "") for cell in row.cells[1:-1])) for row in board.shown]
        echo(f"{board.suite}: {board.title}")
        print_table(columns, rows)


def _rescore() -> None:
    """Write the scores of every entry with predictions anew."""
    from benchmarks.commands.common import STORE, load_plan
    from benchmarks.entries import FILE, load_entries
    from benchmarks.results.entries import rescore
    from dbn_core.files import atomic_write

    for folder, entry in load_entries().items():
        if entry.predictions:
            found = rescore(folder, entry, *load_plan(entry.suite, STORE, None, None, None))
            atomic_write(folder / FILE, found.to_json())
            echo(f"{folder}: {'scored' if found.scores != entry.scores else 'as before'}")
