"""The leaderboard: committed rows of all suites of classification, and entries, as one page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.entries import FILE, NONE, LeaderboardEntry, load_entries
from benchmarks.report.load import read_results
from benchmarks.report.model import ENDS, Results
from benchmarks.report.page.pages import environment
from benchmarks.report.stated import CURVES, links, load_stated, number_text, paper_link, stated_notes
from benchmarks.report.tables.formatting import MISSING, dee_text, escape_md, ratio_text
from dbn_core.errors import SpecError
from dbn_core.methods.registry import METHODS, methods

BEST = 10  # rows of a suite that are shown, besides deep ensembles and entries
_ENSEMBLES = (1, 2, 4, 8)  # sizes of deep ensembles that are shown, besides the largest


@dataclass(frozen=True)
class BoardRow:
    """One method and size; NaN where a number is unknown.

    Attributes:
        dee: equivalents, each with the ends of its interval.
        acc, nll, cnll: means; accuracy as a fraction.
        flops, training: relative to a prediction and to the training of one member.
        sources: links, as Markdown.
        entry: whether somebody submitted it and states its cost.
        largest: size of the largest deep ensemble of the suite.
    """

    label: str
    size: int
    n: int
    dee: dict[str, tuple[float, float, float]]
    acc: float
    nll: float
    cnll: float
    flops: float
    training: float
    status: str
    sources: str
    entry: bool = False
    largest: int | None = None

    @property
    def place(self) -> tuple[bool, float, bool, float]:
        """Rows are sorted by it: those without a calibrated DEE come last."""
        calibrated, raw, worst = self.dee["dee_cal"][0], self.dee["dee_raw"][0], self.cnll
        known = not math.isnan(calibrated)
        best = calibrated if known else raw
        return not known, -best, math.isnan(worst), worst if known else self.nll

    @property
    def cells(self) -> list[str]:
        """Its cells as Markdown."""
        star = "\\*" if self.entry else ""
        label = f"*{escape_md(self.label)}*" if self.status in ("reference", "control") else escape_md(self.label)
        equivalents = [
            f"{self.size}" if self.status == "reference" else dee_text(*self.dee[curve], self.largest)
            for curve in CURVES
        ]
        costs = [ratio_text(self.flops), number_text(self.training, 1)]
        costs = [cost if cost == MISSING else cost + star for cost in costs]
        scores = [number_text(100 * self.acc, 1), number_text(self.nll, 3)]
        return [label, str(self.size), str(self.n), *equivalents, *scores, *costs, self.status, self.sources]


@dataclass
class Board:
    """The rows of one suite, from the best."""

    suite: str
    title: str
    facts: str
    released: bool
    older: bool
    rows: list[BoardRow]
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[BoardRow]:
        """The best rows, every entry, and deep ensembles of some sizes.

        Of the sizes of a method only the best and the cheapest count.
        """
        largest = max((row.size for row in self.rows if row.status == "reference"), default=0)
        methods: dict[str, list[BoardRow]] = {}
        for row in self.rows:
            if row.status != "reference" and not row.entry:
                methods.setdefault(row.label, []).append(row)
        ends = [id(end) for rows in methods.values() for end in (rows[0], min(rows, key=lambda row: row.flops))]
        best = [id(row) for row in self.rows if id(row) in ends][:BEST]
        ensembles = (*_ENSEMBLES, largest)
        return [
            row
            for row in self.rows
            if (row.size in ensembles if row.status == "reference" else row.entry or id(row) in best)
        ]

    @property
    def hidden(self) -> int:
        """How many rows are not shown."""
        return len(self.rows) - len(self.shown)


def load_boards(root: Path = Path("results")) -> list[Board]:
    """The boards of all suites of classification, by name, without those under shift (their rows are of others).

    Raises:
        SpecError: there are no committed rows, or an entry is of a suite without any.
        ArtefactError: a file of rows or of an entry is wrong.
    """
    return _boards(_suites(root), root)


def _boards(suites: Mapping[Path, Results], root: Path) -> list[Board]:
    entries = load_entries(root / "entries")
    boards = [
        _board(folder, results, root, [entry for entry in entries.values() if entry.suite == folder.name])
        for folder, results in suites.items()
        if results.classifies and results.shifts is None
    ]
    known = {board.suite for board in boards}
    for folder, entry in entries.items():
        if entry.suite not in known and entry.status != "stated":
            raise SpecError(f"'{folder}' is an entry of '{entry.suite}', which has no board: move it.")
    return boards


def render_leaderboard(root: Path = Path("results")) -> str:
    """The page ``reports/README.md``; the same files give the same text.

    Raises:
        SpecError, ArtefactError: as :func:`leaderboard`, and for the papers' figures.
    """
    template = environment(Path(__file__).parent).get_template("leaderboard.md.j2")
    suites = _suites(root)
    reports = [(folder.name, _title(results), f"{folder.name}/report.md") for folder, results in suites.items()]
    text = template.render(
        boards=_boards(suites, root),
        stated=load_stated(root),
        notes=stated_notes(root),
        reports=[*reports, ("claims", "Which claims of the papers hold?", "claims/claims.md")],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _suites(root: Path) -> dict[Path, Results]:
    """The committed rows of every suite, by folder."""
    folders = [path.parent for path in sorted((root / "reference").glob("*/meta.json"))]
    if not folders:
        raise SpecError(f"There are no committed rows in '{root / 'reference'}': run this in a clone.")
    return {folder: read_results(folder) for folder in folders}


def _title(results: Results) -> str:
    return str(results.meta.get("title") or results.meta.get("suite"))


def _board(folder: Path, results: Results, root: Path, entries: list[LeaderboardEntry]) -> Board:
    one = results.reference[results.reference["size"] == 1].iloc[0]
    rows = [_own(row, results, folder.name) for row in results.summary.to_dict("records")]
    ranked = [entry for entry in entries if entry.status in ("scored", "reproduced")]
    disputed = [entry for entry in entries if entry.status == "disputed"]
    rows += [_entry(entry, one.to_dict(), results.max_size) for entry in ranked]
    data = results.meta.get("dataset") or {}
    facts = [data.get("title"), results.meta.get("network"), data.get("test") and f"{data['test']:,} test images"]
    return Board(
        suite=folder.name,
        title=_title(results),
        facts="; ".join(str(fact) for fact in facts if fact),
        released=(root / "released" / folder.name).is_dir(),
        older=results.bootstrapped,
        rows=sorted(rows, key=lambda row: row.place),
        notes=[
            *(f"{entry.method}, size {entry.size}: {entry.note}" for entry in ranked if entry.note),
            *(f"Disputed: {entry.method}, size {entry.size}: {entry.reason}" for entry in disputed),
        ],
    )


def _own(row: Mapping[Any, Any], results: Results, suite: str) -> BoardRow:
    status = "reference" if row["family"] == results.task.reference else "control" if row["control"] else "reproduced"
    dee = {curve: _triple(row[f"{curve}{end}"] for end in ENDS) for curve in CURVES}
    return BoardRow(
        label=row["label"],
        size=int(row["size"]),
        n=int(row["n"]),
        dee=dee,
        acc=row["acc_mean"],
        nll=row["nll_mean"],
        cnll=row["cnll_mean"],
        flops=row["macs_rel"],
        training=row["train_member_equivalents"],
        status=status,
        sources=links([("report", f"{suite}/report.md"), *_sources(row["family"])]),
        largest=results.max_size,
    )


def _entry(entry: LeaderboardEntry, one: Mapping[Any, Any], largest: int | None) -> BoardRow:
    """The row of an entry; its cost is relative to one network of the suite."""
    nan, folder = math.nan, f"../results/entries/{entry.suite}/{entry.name}"

    def figure(name: str) -> tuple[float, float, float]:
        found = entry.scores.get(name)
        known = (found.value, found.low, found.high) if found else (None, None, None)
        return _triple(nan if value is None else value for value in known)

    return BoardRow(
        label=entry.method,
        size=entry.size,
        n=entry.repetitions or 0,
        dee={curve: figure(curve) for curve in CURVES},
        acc=figure("acc")[0],
        nll=figure("nll")[0],
        cnll=figure("cnll")[0],
        flops=(entry.cost.macs or nan) / one["macs"],
        training=(entry.cost.train_passes or nan) / one["member_passes"],
        status=entry.status,
        sources=links(
            [
                ("report", f"{entry.suite}/report.md"),
                ("entry", f"{folder}/{FILE}"),
                ("code", entry.code),
                paper_link(entry.paper),
            ]
        ),
        entry=True,
        largest=largest,
    )


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    value, low, high = values
    return value, low, high


@cache
def _sources(family: str) -> tuple[tuple[str, str], ...]:
    """The code of a built-in method and its paper: names and addresses."""
    address = METHODS.entries.get(family) if family in methods() else None
    if address is None:
        return ()
    method = METHODS[family]
    module = method.__module__.replace(".", "/")
    root = Path(__file__).resolve().parents[2]
    places = [place for place in (f"{module}.py", f"{module}/__init__.py") if (root / place).is_file()]
    return ("code", f"../{places[0]}" if places else NONE), paper_link(method.reference)
