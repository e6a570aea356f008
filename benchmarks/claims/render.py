"""Write the page of verdicts, computed from the result rows of every suite: HTML, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.claims import words
from benchmarks.claims.decide import EXACT, Outcome, Verdict, decide
from benchmarks.claims.model import Claim, Claims, Paper, load_claims, split_subject
from benchmarks.claims.overview import KINDS, overview
from benchmarks.published import MARKS
from benchmarks.report.load import Results, load_results
from benchmarks.report.pages import environment
from dbn_core.errors import ArtefactError, SpecError

REFERENCE = Path("results/reference")
SCALED_SINGLE = "Single (temperature-scaled)"
SIGNS = {"holds": "✓", "does not": "✗", "undecided": "?"}
SHOWN = {"holds": "holds", "does not": "does not hold", "undecided": "undecided"}
_COLUMNS = (
    *("paper", "claim", "suite", "subject", "verdict", "quantity", "claimed", "effect", "low", "high"),
    *("repetitions", "test_examples", "interval", "sentence"),
)


@dataclass(frozen=True)
class SuiteRows:
    """The result rows of one suite, and the folder that they were read from."""

    folder: Path
    results: Results

    @property
    def name(self) -> str:
        """Name of the suite."""
        return str(self.results.meta.get("suite") or self.folder.name)

    @property
    def test_examples(self) -> int | None:
        """Size of the test split."""
        return (self.results.meta.get("dataset") or {}).get("test")


def reference_folders(root: Path = REFERENCE) -> list[Path]:
    """Return the folders of committed result rows that have a method which some claim is about, by name.

    Without suites under shift: on clean images they have the trainings of another suite, which would count twice.
    """
    subjects = {split_subject(subject)[0] for claim in load_claims().claims for subject in claim.subjects}
    folders = sorted(path.parent for path in root.glob("*/meta.json"))
    own = [folder for folder in folders if not (folder / "shifts.csv").exists()]
    return [folder for folder in own if subjects & _labels(folder)]


def _labels(folder: Path) -> set[str]:
    """Labels alone: whether the rows are whole shows when they are read."""
    try:
        with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
            return {row.get("label") or "" for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error) as error:
        raise ArtefactError(f"{folder / 'summary.csv'} cannot be read: {error}.") from error


def load_suites(folders: Sequence[Path]) -> list[SuiteRows]:
    """Read the result rows of every suite.

    Raises:
        SpecError: there is no folder, or two of them hold rows of one suite.
        ArtefactError: a folder lacks a file or a column.
    """
    if not folders:
        raise SpecError(f"There are no result rows in '{REFERENCE}': name a folder with --rows.")
    suites = [SuiteRows(folder, load_results(folder)) for folder in folders]
    for name, count in Counter(suite.name for suite in suites).items():
        if count > 1:
            raise SpecError(f"Two folders hold rows of the suite '{name}': name each suite once.")
    return suites


def verdicts(claims: Claims, suites: Sequence[SuiteRows]) -> list[Verdict]:
    """Decide every claim on every suite: by claim, then suite, then subject."""
    return [verdict for claim in claims.claims for suite in suites for verdict in decide(claim, suite.results)]


def render_claims(folders: Sequence[Path], out_dir: Path, claims_file: Path | None = None) -> list[Verdict]:
    """Write `index.html`, `claims.md` and `claims.csv` into `out_dir`; return the verdicts.

    The same claims and rows give the same bytes.

    Raises:
        SpecError: the claims or the choice of folders are wrong.
        ArtefactError: a folder of result rows is incomplete.
    """
    claims, suites = load_claims(claims_file), load_suites(folders)
    found = verdicts(claims, suites)
    out_dir.mkdir(parents=True, exist_ok=True)
    context = _context(claims, suites, found)
    for template, name in (("page.html.j2", "index.html"), ("page.md.j2", "claims.md")):
        text = _environment().get_template(template).render(**context)
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    (out_dir / "claims.csv").write_text(to_csv(claims, suites, found), encoding="utf-8", newline="\n")
    return found


def to_csv(claims: Claims, suites: Sequence[SuiteRows], found: Iterable[Verdict]) -> str:
    """Return the verdicts as CSV; effect and interval are those of the test that decides."""
    papers = {claim.id: claims.papers[claim.paper].name for claim in claims.claims}
    examples = {suite.name: suite.test_examples for suite in suites}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for verdict in found:
        deciding = verdict.deciding
        numbers: list[str | int] = ["", "", "", ""]
        if estimate := deciding.estimate:
            ends = (estimate.value, estimate.low, estimate.high)
            numbers = [*("" if math.isnan(end) else f"{end:.6g}" for end in ends), estimate.n]
        writer.writerow(
            [
                *(papers[verdict.claim], verdict.claim, verdict.suite, verdict.subject, verdict.verdict),
                *(words.quantity(deciding.test, verdict.subject), words.bound(deciding.test), *numbers),
                examples[verdict.suite] if deciding.estimate else "",
                deciding.estimate.basis if deciding.estimate else "",
                verdict.sentence,
            ]
        )
    return file.getvalue()


def _context(claims: Claims, suites: Sequence[SuiteRows], found: Sequence[Verdict]) -> dict[str, Any]:
    command = ["dbn-bench", "claims"]
    if [suite.folder for suite in suites] != reference_folders():
        command += [word for suite in suites for word in ("--rows", suite.folder.as_posix())]
    used = dict.fromkeys(claim.mark for claim in claims.claims if claim.mark)
    return {
        "papers": [(paper, [_shown(c, suites, found) for c in claims.of(key)]) for key, paper in claims.papers.items()],
        "suites": [_suite(suite) for suite in suites],
        "overview": overview(claims, [suite.name for suite in suites], found),
        "kinds": list(KINDS.values()),
        "counts": [_count(paper, key, claims, found) for key, paper in claims.papers.items()],
        "shown": SHOWN,
        "marks": {mark: MARKS[mark] for mark in MARKS if mark in used},
        "command": shlex.join(command),
    }


def _count(paper: Paper, key: str, claims: Claims, found: Sequence[Verdict]) -> dict[str, Any]:
    ids = {claim.id for claim in claims.of(key)}
    words_ = Counter(verdict.verdict for verdict in found if verdict.claim in ids and verdict.measured)
    return {"name": paper.name, "claims": len(ids), "words": words_}


def _shown(claim: Claim, suites: Sequence[SuiteRows], found: Sequence[Verdict]) -> dict[str, Any]:
    """One claim with its test in words, and a table of what each suite says."""
    mine = [verdict for verdict in found if verdict.claim == claim.id]
    # What is exactly tested is said once for all subjects: "the method" stands for each of them.
    subject = claim.subjects[0] if len(claim.subjects) == 1 else "the method"
    tests = [f"{words.quantity(test, subject)}: {words.bound(test)}" for test in claim.tests]
    missing: list[dict[str, Any]] = [
        {"suite": suite.name, "reasons": list(dict.fromkeys(v.sentence for v in lacking))}
        for suite in suites
        if (lacking := [v for v in mine if v.suite == suite.name and not v.measured])
    ]
    if claim.suite and claim.suite not in [suite.name for suite in suites]:
        missing.insert(0, {"suite": claim.suite, "reasons": ["No data: there are no rows of this suite yet."]})
    examples = {suite.name: suite.test_examples for suite in suites}
    rows: list[dict[str, Any]] = [
        {"verdict": verdict, "lines": [_line(outcome, verdict.subject) for outcome in verdict.outcomes]}
        for verdict in mine
        if verdict.measured
    ]
    twins = any(line["outcome"].twin for row in rows for line in row["lines"])
    return {"claim": claim, "tests": tests, "rows": rows, "missing": missing, "examples": examples, "twins": twins}


def _line(outcome: Outcome, subject: str) -> dict[str, Any]:
    estimate, test = outcome.estimate, outcome.test
    return {
        "n": "–" if estimate is None or estimate.basis == EXACT else str(estimate.n),
        "sign": SIGNS[outcome.verdict],
        "quantity": words.METRICS[test.metric].name,
        "bound": words.bound(test),
        "effect": outcome.effect,
        "outcome": outcome,
        "test": words.quantity(test, subject),
    }


def _suite(suite: SuiteRows) -> dict[str, Any]:
    meta, summary = suite.results.meta, suite.results.summary
    single = summary[(summary["label"] == SCALED_SINGLE) & (summary["size"] == 1)]
    scaled = ""
    if len(single) and not math.isnan(single["dee_raw"].iloc[0]):
        value, low, high = (float(single[name].iloc[0]) for name in ("dee_raw", "dee_raw_low", "dee_raw_high"))
        scaled = words.effect(value, low, high, "dee_raw", False)
    return {
        "name": suite.name,
        "title": meta.get("title") or suite.name,
        "network": meta.get("network") or "",
        "repetitions": max((int(n) for n in summary["n"].dropna()), default=0),
        "examples": suite.test_examples,
        "rows": suite.folder.as_posix(),
        "command": meta.get("command", ""),
        "scaled": scaled,
    }


def _environment() -> jinja2.Environment:
    made = environment(Path(__file__).parent)
    made.globals["report_style"] = _report_style
    return made


def _report_style() -> str:
    """The style sheet of the suites' reports, so that all pages look alike and it is written once."""
    page = (Path(__file__).parent.parent / "report" / "page.html.j2").read_text(encoding="utf-8")
    found = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    if not found:
        raise ArtefactError("benchmarks/report/page.html.j2 holds no style sheet: restore the file.")
    return found[1].strip()
