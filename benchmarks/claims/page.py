"""Write the verdicts on result rows as a page of Markdown and a CSV file."""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims.decide import Claim, Rows, Verdict, decide
from benchmarks.claims.papers import CLAIMS, PAPERS
from benchmarks.published import MARKS
from benchmarks.report.load import Results, read_meta, read_results
from benchmarks.report.page.pages import environment
from dbn_core.errors import SpecError
from dbn_core.files import atomic_write

REFERENCE = Path("results/reference")
SIGNS = {"holds": "✅", "does not hold": "❌", "undecided": "❔", "no data": "➖"}
_COLUMNS = (
    *("paper", "claim", "suite", "subject", "verdict", "quantity", "demanded", "effect", "low", "high"),
    *("repetitions", "test_examples", "interval", "caveat"),
)


def reference_folders(root: Path = REFERENCE) -> list[Path]:
    """The folders of committed result rows that claims are decided on, by name.

    Without suites under shift, whose clean images and trainings are those of another suite, and rows of earlier
    statistics.
    """
    return [
        path.parent
        for path in sorted(root.glob("*/meta.json"))
        if "statistics" in read_meta(path) and not path.with_name("shifts.csv").exists()
    ]


def load_suites(folders: Sequence[Path]) -> dict[Path, Results]:
    """Read the result rows of every suite.

    Raises:
        SpecError: there is no folder, two of them have rows of the same suite, or rows have earlier statistics.
        ArtefactError: a folder lacks a file or a column.
    """
    if not folders:
        raise SpecError(f"There are no result rows in '{REFERENCE}': name a folder with --rows.")
    suites = {folder: read_results(folder) for folder in folders}
    for folder, results in suites.items():
        if results.bootstrapped:
            raise SpecError(f"The rows in '{folder}' have intervals of an earlier version: run their suite again.")
    for name, count in Counter(map(suite_name, suites.values())).items():
        if count > 1:
            raise SpecError(f"Two folders hold rows of the suite '{name}': name each suite once.")
    return suites


def suite_name(results: Results) -> str:
    """Name of the suite of the rows."""
    return str(results.meta.get("suite") or "unnamed")


def render_claims(folders: Sequence[Path], out_dir: Path, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Write ``claims.md`` and ``claims.csv`` into ``out_dir``; return the verdicts for which there are rows.

    The same claims and rows give the same bytes.

    Raises:
        SpecError: the choice of folders is wrong.
        ArtefactError: a folder of result rows is incomplete.
    """
    suites = load_suites(folders)
    found = verdicts(claims, list(suites.values()))
    command = ["dbn-bench", "claims"]
    if list(folders) != reference_folders():
        command += [word for folder in folders for word in ("--rows", folder.as_posix())]
    template = environment(Path(__file__).parent).get_template("page.md.j2")
    text = template.render(**_context(claims, suites, found), command=shlex.join(command))
    atomic_write(out_dir / "claims.md", (re.sub(r"\n{3,}", "\n\n", text).strip() + "\n").encode())
    atomic_write(out_dir / "claims.csv", verdicts_csv(found, list(suites.values())).encode())
    return found


def verdicts(claims: Sequence[Claim], suites: Sequence[Results]) -> list[Verdict]:
    """Decide every claim on every suite with rows for it, by claim, suite and subject."""
    rows = [Rows(suite) for suite in suites]
    return [verdict for claim in claims for suite in rows for verdict in decide(claim, suite) if verdict.known]


def verdicts_csv(found: Sequence[Verdict], suites: Sequence[Results]) -> str:
    """The verdicts as CSV, with the effect and interval of the deciding check."""
    examples = {suite_name(suite): (suite.meta.get("dataset") or {}).get("test", "") for suite in suites}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for verdict in found:
        check, claim = verdict.deciding, verdict.claim
        effect = check.effect
        ends = ["" if math.isnan(end) else f"{end:.6g}" for end in (effect.value, effect.low, effect.high)]
        writer.writerow(
            [
                *(PAPERS[claim.paper].name, claim.key, verdict.suite, verdict.subject, verdict.word),
                *(effect.name, check.demanded, *ends, effect.n or "", examples[verdict.suite]),
                *(effect.basis or f"no rows of {effect.lacking}", verdict.caveat),
            ]
        )
    return file.getvalue()


def _context(claims: Sequence[Claim], suites: dict[Path, Results], found: Sequence[Verdict]) -> dict[str, Any]:
    names = [suite_name(results) for results in suites.values()]
    papers = []
    for key, paper in PAPERS.items():
        mine = [claim for claim in claims if claim.paper == key]
        if not mine:
            continue
        own = [verdict for verdict in found if verdict.claim.paper == key]
        shown = [name for name in names if any(verdict.suite == name for verdict in own)]
        rows = [(c, [[v for v in own if v.claim is c and v.suite == name] for name in shown]) for c in mine]
        counts = Counter(verdict.word for verdict in own)
        papers.append({"paper": paper, "claims": rows, "suites": shown, "counts": counts, "verdicts": own})
    return {
        "papers": papers,
        "suites": [_suite(folder, results) for folder, results in suites.items()],
        "signs": SIGNS,
        "marks": {mark: MARKS[mark] for mark in MARKS if any(f"[{mark}]" in claim.published for claim in claims)},
    }


def _suite(folder: Path, results: Results) -> dict[str, Any]:
    meta, summary = results.meta, results.summary
    return {
        "name": suite_name(results),
        "title": meta.get("title") or suite_name(results),
        "network": meta.get("network") or "",
        "repetitions": max((int(n) for n in summary["n"].dropna()), default=0),
        "examples": (meta.get("dataset") or {}).get("test"),
        "rows": folder.as_posix(),
        "command": meta.get("command", ""),
    }
