"""Decide claims on the result rows of a suite: effects, the checks of a claim, and its verdict.  Imports no torch.

A claim is a function of the rows of one suite and one method, its *subject*.  It returns the checks that must hold:

    def second_bridge_helps(rows, method):
        return rows.gap("nll", f"{method}@5", f"{method}@3").below(0)

Methods are written ``label@size``, with the labels of the suite's tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks.results.pairing import Contrast, method_name
from benchmarks.statistics import independent

if TYPE_CHECKING:
    from benchmarks.report.load import Results

Word = Literal["holds", "does not hold", "undecided", "no data"]


class Metric(NamedTuple):
    """How a metric is displayed: its name, the digits and scale of its values, and their unit."""

    name: str
    digits: int
    scale: float = 1
    unit: str = ""


METRICS = {
    "acc": Metric("accuracy", 2, 100, " points"),
    "nll": Metric("NLL", 4),
    "cnll": Metric("cNLL", 4),
    "ece": Metric("ECE", 2, 100, " points"),
    "cece": Metric("cECE", 2, 100, " points"),
    "dee_raw": Metric("DEE (raw)", 2),
    "dee_cal": Metric("DEE (calibrated)", 2),
    "macs_rel": Metric("relative FLOPs", 3, unit="×"),
    "dsm": Metric("denoising loss", 4),
    "energy": Metric("energy distance", 4),
    "fd": Metric("classifier-FD", 2),
    "w1_test": Metric("W1 to test rows", 3),
    "noise_mse": Metric("noise MSE", 3),
}
# Raw and temperature-scaled versions of a score; each is displayed with the other.
_TWINS = {"nll": "cnll", "ece": "cece", "dee_raw": "dee_cal", "cnll": "nll", "cece": "ece", "dee_cal": "dee_raw"}


@dataclass(frozen=True)
class Effect:
    """A value, or the difference of two methods, with its 95 % interval from ``n`` repetitions.

    ``lacking`` names the rows that are missing; the numbers are NaN then.  ``basis`` names the method of the interval.
    """

    metric: str
    name: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    p_value: float = math.nan
    basis: str = ""
    lacking: str = ""
    difference: bool = False
    twin: str = ""

    def number(self, value: float) -> str:
        """A value in the metric's unit; a censored deep-ensemble equivalent as `< 1` or `> M`."""
        how = METRICS[self.metric]
        if math.isinf(value):
            return "< 1" if value < 0 else "> M"
        return f"{value * how.scale:{'+' if self.difference else ''}.{how.digits}f}".replace("-", "−")

    def __str__(self) -> str:
        unit = METRICS[self.metric].unit
        if math.isnan(self.low) or self.low == self.high:
            return self.number(self.value) + unit
        return f"{self.number(self.value)} [{self.number(self.low)}, {self.number(self.high)}]{unit}"

    def above(self, bound: float) -> Check:
        """Demand a value above the bound."""
        return self._demand(f"above {self._edge(bound)}", self.low > bound, self.high <= bound)

    def below(self, bound: float, p: float = math.inf) -> Check:
        """Demand a value below the bound, and a p-value below ``p`` (of a difference of zero)."""
        significant = math.isinf(p) or self.p_value < p
        text = f"below {self._edge(bound)}" + ("" if math.isinf(p) else f" with p < {p:g}")
        return self._demand(text, self.high < bound and significant, self.low >= bound)

    def within(self, margin: float) -> Check:
        """Demand a value nearer to zero than the margin: an equivalence test at the level of the interval."""
        outside = self.low >= margin or self.high <= -margin
        return self._demand(
            f"within ±{self._edge(margin).lstrip('+')}", -margin < self.low and self.high < margin, outside
        )

    def _edge(self, bound: float) -> str:
        return "0" if self.difference and bound == 0 else self.number(bound) + METRICS[self.metric].unit

    def _demand(self, demanded: str, holds: bool, fails: bool) -> Check:
        # Comparisons with NaN, as the ends of a missing interval, are false.
        word: Word = "no data" if self.lacking else "holds" if holds else "does not hold" if fails else "undecided"
        return Check(self, demanded, word)


@dataclass(frozen=True)
class Check:
    """A condition on an effect, and whether the rows satisfy it."""

    effect: Effect
    demanded: str
    word: Word


def split(method: str) -> tuple[str, int]:
    """Label and size of ``label@size``."""
    label, _, size = method.rpartition("@")
    return label, int(size)


class Rows:
    """The result rows of one suite, as claims read them."""

    def __init__(self, results: Results) -> None:
        self.suite = str(results.meta.get("suite") or "unnamed")
        self._methods = {(row["label"], row["size"]): row for row in results.summary.to_dict("records")}
        self._tests: dict[tuple[str, int, str, str], dict[Hashable, Any]] = {}
        for row in results.comparisons.to_dict("records"):
            self._tests.setdefault((row["label"], row["size"], row["reference"], row["metric"]), row)
        self._values: dict[tuple[str, int, str], dict[int, float]] = {}  # by repetition
        columns = ("label", "size", "metric", "repetition", "value")
        for label, size, metric, repetition, value in zip(*(results.rows[name] for name in columns), strict=True):
            self._values.setdefault((label, size, metric), {}).setdefault(repetition, value)

    def value(self, metric: str, method: str) -> Effect:
        """A method's relative FLOPs, or its deep-ensemble equivalent."""
        found = self._value(metric, method)
        other = self._value(_TWINS[metric], method) if metric in _TWINS else None
        return _with_twin(found, other)

    def gap(self, metric: str, method: str, other: str) -> Effect:
        """A method's value minus another's, paired over the examples and repetitions that both have."""
        found = self._gap(metric, method, other)
        twin = self._gap(_TWINS[metric], method, other) if metric in _TWINS else None
        return _with_twin(found, twin)

    def _value(self, metric: str, method: str) -> Effect:
        name = f"{METRICS[metric].name} of {method_name(*split(method))}"
        row = self._methods.get(split(method))
        if row is None or math.isnan(row[metric]):
            return Effect(metric, name, lacking=method if row is None else name)
        value, n = float(row[metric]), int(row["n"])
        if metric == "macs_rel":
            return Effect(metric, name, value, value, value, n, basis="counted, without error")
        low, high = float(row[f"{metric}_low"]), float(row[f"{metric}_high"])
        return Effect(metric, name, value, low, high, n, basis="t, of method and ensemble curve together")

    def _gap(self, metric: str, method: str, other: str) -> Effect:
        mine, theirs = split(method), split(other)
        name = f"{METRICS[metric].name} of {method_name(*mine)} minus {method_name(*theirs)}"
        if metric == "macs_rel":
            both = [self._value(metric, one) for one in (method, other)]
            if lacking := [one.lacking for one in both if one.lacking]:
                return Effect(metric, name, lacking=" and ".join(lacking), difference=True)
            value, n = both[0].value - both[1].value, min(one.n for one in both)
            return Effect(metric, name, value, value, value, n, basis=both[0].basis, difference=True)
        ours, others = (self._values.get((*one, metric), {}) for one in (mine, theirs))
        gaps = [ours[r] - others[r] for r in sorted(ours.keys() & others.keys())]
        gaps = [gap for gap in gaps if not math.isnan(gap)]
        if not gaps:
            absent = [one for one in (method, other) if split(one) not in self._methods]
            return Effect(metric, name, lacking=" and ".join(absent) or name, difference=True)
        for of, to, sign in ((mine, theirs, 1), (theirs, mine, -1)):
            row = self._tests.get((*of, method_name(*to), metric))
            if row and not any(math.isnan(row[key]) for key in ("difference", "low", "high")):
                value, low, high = (sign * float(row[key]) for key in ("difference", "low", "high"))
                p = float(row["p_holm"])
                low, high = min(low, high), max(low, high)
                return Effect(metric, name, value, low, high, len(gaps), p, "paired t of the suite", difference=True)
        t = independent(np.asarray(gaps))
        basis = "paired t over repetitions"
        return Effect(metric, name, t.value, t.low, t.high, len(gaps), t.p_value, basis, difference=True)


def _with_twin(found: Effect, other: Effect | None) -> Effect:
    if other is None or other.lacking or found.lacking:
        return found
    scale = "raw" if other.metric in ("nll", "ece", "dee_raw") else "after temperature scaling"
    return replace(found, twin=f"{scale} {other}")


Decide = Callable[..., Check | Sequence[Check]]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, or of this project; :meth:`benchmarks.claims.paper.Paper.claim` makes one of a function.

    Attributes:
        key: the function's name, with hyphens.
        name: a few words, for the overview.
        sentence: what is claimed, in our words.
        subjects: the methods for which the claim is decided, one by one.
        published: the paper's figures with the mark of their source; empty if there are none.
        why: the reason for the bounds.
        caveats: limits of a suite's rows, by suite.
        see: a page of the documentation with more.
        suite: the only suite that the claim is about; empty for any.
    """

    key: str
    paper: str
    name: str
    sentence: str
    subjects: tuple[str, ...]
    decide: Decide
    why: str
    data: str = ""
    published: str = ""
    caveats: dict[str, str] | None = None
    see: str = ""
    suite: str = ""

    def checks(self, rows: Rows, subject: str) -> list[Check]:
        """The checks of the claim for a subject on these rows."""
        found = self.decide(rows, subject)
        return [found] if isinstance(found, Check) else list(found)


@dataclass(frozen=True)
class Verdict:
    """The result of a claim for one subject on one suite."""

    claim: Claim
    suite: str
    subject: str
    checks: tuple[Check, ...]

    @property
    def word(self) -> Word:
        """One failed check refutes the claim, even if rows are missing; the claim holds if all checks hold."""
        found = {check.word for check in self.checks}
        order: tuple[Word, ...] = ("does not hold", "no data", "undecided", "holds")
        return next(word for word in order if word in found)

    @property
    def known(self) -> bool:
        """Whether the suite has rows for any check; those of costs count only where a claim has no others."""
        checks = [check for check in self.checks if check.effect.metric != "macs_rel"] or self.checks
        return any(not check.effect.lacking for check in checks)

    @property
    def caveat(self) -> str:
        """Limits of the suite's rows for this claim."""
        return (self.claim.caveats or {}).get(self.suite, "")

    @property
    def deciding(self) -> Check:
        """The first check with the verdict of the claim."""
        return next(check for check in self.checks if check.word == self.word)


def decide(claim: Claim, rows: Rows) -> list[Verdict]:
    """The verdicts of one suite for the subjects of a claim; none if the claim is about another suite."""
    if claim.suite not in ("", rows.suite):
        return []
    return [Verdict(claim, rows.suite, name, tuple(claim.checks(rows, name))) for name in claim.subjects]


class _Recorder(Rows):
    """Empty rows that record for which pairs of methods a difference is asked."""

    def __init__(self) -> None:
        self.pairs: dict[Contrast, None] = {}

    def value(self, metric: str, method: str) -> Effect:
        """A lacking effect."""
        return Effect(metric, "", lacking=method)

    def gap(self, metric: str, method: str, other: str) -> Effect:
        """A lacking effect; the pair is recorded."""
        self.pairs[split(method), split(other)] = None
        return Effect(metric, "", lacking=method, difference=True)


def contrasts(claims: Sequence[Claim]) -> list[Contrast]:
    """The pairs of (label, size) whose differences claims need; a run computes their paired tests."""
    recorder = _Recorder()
    for claim in claims:
        for subject in claim.subjects:
            claim.checks(recorder, subject)
    return list(recorder.pairs)
