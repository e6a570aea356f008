"""The overview at the head of the claims page: of each paper a table, with a row for each claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.claims.decide import Verdict
from benchmarks.claims.model import Claim, Claims


@dataclass(frozen=True)
class Kind:
    """How a verdict is marked: by colour and by shape, on the page and in Markdown."""

    word: str
    css: str
    sign: str
    emoji: str


KINDS = {
    "holds": Kind("holds", "holds", "✓", "✅"),
    "does not": Kind("does not hold", "does-not", "✗", "❌"),
    "undecided": Kind("undecided", "undecided", "?", "❔"),
    "no data": Kind("no data", "no-data", "–", "➖"),
}


@dataclass(frozen=True)
class Mark:
    """The verdict of one suite on a claim for one of the methods that it is about."""

    kind: Kind
    subject: str
    suite: str

    @property
    def title(self) -> str:
        """What the mark says to a pointer and to a screen reader."""
        return f"{self.subject} on {self.suite}: {self.kind.word}"


@dataclass(frozen=True)
class Row:
    """A claim, and the marks of each suite by subject; a single one where the suite has none of them."""

    claim: Claim
    cells: list[list[Mark]]


@dataclass(frozen=True)
class Table:
    """The claims of a paper, beside the suites that have a method of any of them."""

    paper: str
    suites: list[str]
    rows: list[Row]


def overview(claims: Claims, suites: Sequence[str], found: Sequence[Verdict]) -> list[Table]:
    """Return a table for each paper.

    Methods that a suite does not have leave no mark beside those that it has, and suites that have none of a paper's no
    column: most claims are about one kind of suite.
    """
    marks: dict[tuple[str, str], list[Mark]] = {}
    for verdict in found:
        if verdict.measured:
            mark = Mark(KINDS[verdict.verdict], verdict.subject, verdict.suite)
            marks.setdefault((verdict.claim, verdict.suite), []).append(mark)

    def cell(claim: Claim, suite: str) -> list[Mark]:
        return marks.get((claim.id, suite)) or [Mark(KINDS["no data"], "none of its methods", suite)]

    tables = []
    for key, paper in claims.papers.items():
        mine = claims.of(key)
        shown = [suite for suite in suites if any((claim.id, suite) in marks for claim in mine)]
        tables.append(Table(paper.name, shown, [Row(claim, [cell(claim, suite) for suite in shown]) for claim in mine]))
    return tables
