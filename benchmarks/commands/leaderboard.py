"""``leaderboard``: all suites of classification and all entries on one page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.common import REPORTS, echo
from benchmarks.commands.display import print_table
from dbn_core.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from benchmarks.report.leaderboard import BoardRow

PAGE = REPORTS / "README.md"
COLUMNS = ["method", "size", "n", "DEE calibrated", "DEE raw", "ACC %", "NLL", "FLOPs", "training", "status"]
STATED = ["method", "size", "data and network", "DEE calibrated", "DEE raw", "ACC %", "NLL", "FLOPs", "sources"]
Status = StrEnum("Status", ["reproduced", "scored", "reference", "control", "stated"])


def leaderboard(
    suite: Annotated[str | None, typer.Argument(help="Of this suite alone.")] = None,
    words: Annotated[
        list[str] | None,
        typer.Option("--find", help="Only rows that hold this word: of a method, a paper or a file; may be repeated."),
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(help="Only rows of this status; `stated`: the papers' figures, apart; may be repeated."),
    ] = None,
    max_flops: Annotated[
        float | None, typer.Option(help="Only rows of at most so many times the FLOPs of one network.", metavar="N")
    ] = None,
    publish: Annotated[bool, typer.Option("--publish", help=f"Write the committed page {PAGE}.")] = False,
    rescore: Annotated[
        bool,
        typer.Option("--rescore", help="First score every entry again from its predictions, and write its scores."),
    ] = False,
) -> None:
    """Rank committed rows and entries by calibrated deep-ensemble equivalent.

    It needs neither networks nor data.  With a filter it searches all rows, not only the best of each suite.
    """
    from benchmarks.entries import FOLDER, load_entries
    from benchmarks.report.leaderboard import load_boards, render_leaderboard
    from benchmarks.report.stated import load_stated
    from dbn_core.files import atomic_write

    if rescore:
        _rescore()
    filtered = bool(words or status or max_flops is not None)
    if publish and (suite or filtered):
        raise SpecError("--publish writes the whole page: drop the suite and the filters.")
    if publish:
        atomic_write(PAGE, render_leaderboard().encode())
        echo(f"Page: {PAGE}")
        return
    boards = {board.suite: board for board in load_boards()}
    if suite is not None and suite not in boards:
        raise SpecError(f"There is no leaderboard of '{suite}'{did_you_mean(suite, boards)}.")
    found = False
    for board in [boards[suite]] if suite else boards.values():
        rows = _chosen(board.rows, words or (), status or (), max_flops) if filtered else board.shown
        if rows:
            echo(f"{board.suite}: {board.title}")
            print_table(COLUMNS, [(row.label, *_plain(row.cells[1:-1])) for row in rows])
            found = True
    if "stated" in (status or ()) and suite is None and max_flops is None:
        stated = [_plain(cells) for cells in load_stated() if _holds(" ".join(cells), words or ())]
        if stated:
            echo("Stated by papers, on their own networks and budgets: not comparable with the rows of suites")
            print_table(STATED, stated)
            found = True
    if not found:
        echo("No row matches.")
    apart = [entry.status for entry in load_entries().values() if suite in (None, entry.suite) and not filtered]
    if counts := [f"{apart.count(kind)} {kind}" for kind in ("stated", "disputed") if kind in apart]:
        echo(f"Not ranked: {' and '.join(counts)}, in {FOLDER} and, with reasons and sources, on {PAGE}.")


def _chosen(
    rows: Sequence[BoardRow], words: Sequence[str], status: Sequence[str], max_flops: float | None
) -> list[BoardRow]:
    return [
        row
        for row in rows
        if (not status or row.status in status)
        and (max_flops is None or row.flops <= max_flops)
        and _holds(f"{row.label} {row.sources}", words)
    ]


def _holds(text: str, words: Sequence[str]) -> bool:
    return all(word.lower() in text.lower() for word in words)


def _plain(cells: Sequence[str]) -> list[str]:
    """Cells without Markdown: no backslashes, and links as their addresses' names."""
    return [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell).replace("\\", "").replace("`", "") for cell in cells]


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
