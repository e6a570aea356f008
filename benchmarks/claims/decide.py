"""Decide a claim on the result rows of one suite, by 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from benchmarks.claims import words
from benchmarks.claims.model import Claim, Difference, Equivalence, Selection, Test, Threshold
from benchmarks.results.pairing import method_name
from benchmarks.statistics import independent

if TYPE_CHECKING:
    from benchmarks.report.load import Results

Word = Literal["holds", "does not", "undecided"]

BOOTSTRAP = "bootstrap over repetitions and test examples"
PAIRED_BOOTSTRAP = "paired bootstrap over repetitions and test examples"
PAIRED_T = "paired t over repetitions"
CROSSED = "t over repetitions and test examples, of method and ensemble curve together"
PAIRED_CROSSED = "paired t over repetitions and test examples"
EXACT = "counted, without error"

# Raw and temperature-scaled versions of one score: each is shown beside the other.
_TWINS = {"nll": "cnll", "ece": "cece", "dee_raw": "dee_cal"}
TWINS = _TWINS | {scaled: raw for raw, scaled in _TWINS.items()}


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, from `n` repetitions; `basis` says how the interval was made.

    `p_value` is that of a difference's test against zero, from the same data.
    """

    value: float
    low: float
    high: float
    n: int
    basis: str
    p_value: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """What one test of a claim says: the verdict and why; no estimate where rows are missing."""

    test: Test
    verdict: Word
    reason: str
    estimate: Estimate | None = None
    twin: str = ""

    @property
    def effect(self) -> str:
        """The estimate in words; nothing where there is none."""
        if self.estimate is None:
            return ""
        low, high = self.estimate.low, self.estimate.high
        return words.effect(self.estimate.value, low, high, self.test.metric, words.is_signed(self.test))

    @property
    def line(self) -> str:
        """Effect and claim in one line, or what is missing."""
        if self.estimate is None:
            return self.reason
        return f"{words.METRICS[self.test.metric].name} {self.effect}, claimed {words.bound(self.test)}"


@dataclass(frozen=True)
class Verdict:
    """What a suite says about a claim for one of its subjects."""

    claim: str
    suite: str
    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Word:
        """All tests must hold; one that does not is enough to refuse, but only where no rows are missing."""
        if not self.measured:
            return "undecided"
        found = {outcome.verdict for outcome in self.outcomes}
        return "does not" if "does not" in found else "undecided" if "undecided" in found else "holds"

    @property
    def deciding(self) -> Outcome:
        """The first test that has the verdict of the whole, or lacks its rows."""
        return self._behind[0]

    @property
    def sentence(self) -> str:
        """Why, or what is missing."""
        return " ".join(dict.fromkeys(outcome.reason for outcome in self._behind))

    @property
    def _behind(self) -> list[Outcome]:
        return [o for o in self.outcomes if (o.verdict == self.verdict if self.measured else o.estimate is None)]

    @property
    def measured(self) -> bool:
        """Whether the suite has the rows of all tests."""
        return all(outcome.estimate for outcome in self.outcomes)


class _MissingRowsError(Exception):
    """Rows that a test needs and the suite does not have."""


def decide(claim: Claim, results: Results) -> list[Verdict]:
    """Return the verdict of one suite for each subject of a claim.

    A test holds where the interval lies wholly on the claimed side of its bound, does not where it lies wholly on the
    other side, and is undecided otherwise, also where rows or intervals are missing.
    """
    suite = str(results.meta.get("suite") or "unnamed")
    return [
        Verdict(claim.id, suite, subject, tuple(_outcome(test, subject, results, suite) for test in claim.tests))
        for subject in claim.subjects
    ]


def _outcome(test: Test, subject: str, results: Results, suite: str) -> Outcome:
    try:
        estimate = _estimate(test, test.metric, subject, results)
    except _MissingRowsError as missing:
        return Outcome(test, "undecided", f"{missing} in suite {suite}.")
    word = _word(test, estimate)
    shown = words.effect(estimate.value, estimate.low, estimate.high, test.metric, words.is_signed(test))
    what = f"The {words.quantity(test, subject)} is {shown}"
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        reason = f"{what}: one repetition gives no interval."
    elif estimate.basis == EXACT:
        reason = f"{what}{',' if word == 'holds' else ', not'} {words.bound(test)}."
    else:
        reason = f"{what}: the interval {words.finding(test, word, estimate.low, estimate.high)}."
    return Outcome(test, word, reason, estimate, _twin(test, subject, results))


def _word(test: Test, estimate: Estimate) -> Word:
    low, high = estimate.low, estimate.high
    if isinstance(test, Equivalence):
        holds, fails = -test.within < low and high < test.within, low >= test.within or high <= -test.within
    elif test.side == "above":
        holds, fails = low > test.bound, high <= test.bound
    else:
        holds, fails = high < test.bound, low >= test.bound
    if isinstance(test, Difference) and test.p_below is not None:
        holds = holds and estimate.p_value < test.p_below
    # Comparisons with NaN, the ends of a missing interval, are all false.
    return "holds" if holds else "does not" if fails else "undecided"


def _twin(test: Test, subject: str, results: Results) -> str:
    """The same effect on the other version of the score, raw or temperature-scaled, as context."""
    if test.metric not in TWINS:
        return ""
    metric = TWINS[test.metric]
    try:
        other = _estimate(test, metric, subject, results)
    except _MissingRowsError:
        return ""
    shown = words.effect(other.value, other.low, other.high, metric, words.is_signed(test))
    return f"{'raw' if metric in _TWINS else 'after temperature scaling'} {shown}"


def _estimate(test: Test, metric: str, subject: str, results: Results) -> Estimate:
    """The effect that a test is about, on its own metric or on the twin of it."""
    sides: list[Selection] = [test.of] if isinstance(test, Threshold) else [test.of, test.to]
    cells = [side.of(subject) for side in sides]
    found = [_summary_row(results.summary, *cell) for cell in cells]
    missing = [f"'{label}' of size {size}" for (label, size), row in zip(cells, found, strict=True) if row is None]
    if missing:
        raise _MissingRowsError(f"No rows for {' and '.join(missing)}")
    rows = [row for row in found if row is not None]
    n = min(int(row["n"]) for row in rows)
    if metric == "macs_rel":
        value = float(rows[0][metric]) - (float(rows[1][metric]) if len(rows) > 1 else 0.0)
        if math.isnan(value):
            raise _MissingRowsError(f"No counted FLOPs for {' or '.join(method_name(*cell) for cell in cells)}")
        return Estimate(value, value, value, n, EXACT)
    if isinstance(test, Threshold):
        row = rows[0]
        if math.isnan(row[metric]):
            raise _MissingRowsError(f"No {words.METRICS[metric].name} of {method_name(*cells[0])}")
        basis = BOOTSTRAP if results.bootstrapped else CROSSED
        return Estimate(float(row[metric]), float(row[f"{metric}_low"]), float(row[f"{metric}_high"]), n, basis)
    return _difference(results, cells[0], cells[1], metric)


def _summary_row(summary: pd.DataFrame, label: str, size: int) -> pd.Series | None:
    rows = summary[(summary["label"] == label) & (summary["size"] == size)]
    return None if rows.empty else rows.iloc[0]


def _difference(results: Results, of: tuple[str, int], to: tuple[str, int], metric: str) -> Estimate:
    """From the paired test of single examples where the rows have it, else by repetition."""
    mine, theirs = _by_repetition(results.rows, *of, metric), _by_repetition(results.rows, *to, metric)
    gaps = (mine - theirs).dropna()
    if gaps.empty:
        names = f"{method_name(*of)} and {method_name(*to)}"
        raise _MissingRowsError(f"No repetition with the {words.METRICS[metric].name} of both {names}")
    for (label, size), reference, sign in ((of, to, 1), (to, of, -1)):
        frame = results.comparisons
        row = frame[
            (frame["label"] == label)
            & (frame["size"] == size)
            & (frame["reference"] == method_name(*reference))
            & (frame["metric"] == metric)
        ]
        if len(row) and row[["difference", "low", "high"]].iloc[0].notna().all():
            value, low, high = (sign * float(row[key].iloc[0]) for key in ("difference", "low", "high"))
            basis = PAIRED_BOOTSTRAP if results.bootstrapped else PAIRED_CROSSED
            p_value = float(row["p_holm" if "p_holm" in row else "p_value"].iloc[0])
            return Estimate(value, min(low, high), max(low, high), len(gaps), basis, p_value)
    interval = independent(np.asarray(gaps))
    return Estimate(interval.value, interval.low, interval.high, len(gaps), PAIRED_T, interval.p_value)


def _by_repetition(rows: pd.DataFrame, label: str, size: int, metric: str) -> pd.Series:
    chosen = rows[(rows["label"] == label) & (rows["size"] == size) & (rows["metric"] == metric)]
    return chosen.drop_duplicates("repetition").set_index("repetition")["value"]
