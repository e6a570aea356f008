"""The paired test of two results: files of predictions, or stored results of a suite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.results.outside.predictions import arrays_of, load_predictions
from benchmarks.results.pairing import CellResult, Key, Pairing, by_method
from benchmarks.results.rows import all_cells, score_cells
from benchmarks.results.scoring import PER_EXAMPLE, score_arrays
from benchmarks.statistics import Interval, PairedBootstrap
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import DataError, SpecError, did_you_mean
from dbn_core.metrics.scores import Array
from dbn_core.seeds import seed_for

DRAWS = 1000
_COMPARED = ("acc", "nll", "brier", "cnll", "cbrier")
_WORDS = {
    **{"acc": "accuracy", "nll": "NLL", "brier": "Brier score"},
    **{"cnll": "calibrated NLL", "cbrier": "calibrated Brier score"},
}


@dataclass(frozen=True)
class Row:
    """One score of both, and A minus B with its 95 % interval and two-sided p-value."""

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def better(self) -> str:
        """``A`` or ``B`` where the interval leaves out zero, else nothing."""
        if self.low <= 0 <= self.high:
            return ""
        return "A" if (self.difference > 0) == PER_EXAMPLE[self.metric] else "B"


@dataclass
class Comparison:
    """The paired comparison of two results on the same examples and repetitions."""

    a: str
    b: str
    examples: int
    repetitions: int
    draws: int
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """What is significant, in a sentence."""
        parts = []
        for winner in ("A", "B"):
            won = [_WORDS[row.metric] for row in self.rows if row.better == winner]
            if won:
                parts.append(f"{winner} ({self.a if winner == 'A' else self.b}) is significantly better in {_and(won)}")
        if open_ := [_WORDS[row.metric] for row in self.rows if not row.better]:
            parts.append(f"the difference in {_and(open_)} is not significant")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]} (95 %)."

    def add(self, metric: str, a: Array, b: Array, test: tuple[Interval, float]) -> None:
        """Add a row from per-example scores [R, N]."""
        gap, p_value = test
        self.rows.append(Row(metric, float(a.mean()), float(b.mean()), gap.value, gap.low, gap.high, p_value))


def compare_files(a: Path, b: Path, labels: Path | None, key: str | None, values: str) -> Comparison:
    """Compare two files of predictions on the same labelled examples.

    Raises:
        DataError: a file cannot be used, or the two are not of the same examples.
    """
    loaded = [load_predictions(path, labels, key=key, values=values) for path in (a, b)]
    tests = [test for test, _ in loaded]
    if not np.array_equal(tests[0].labels, tests[1].labels):
        raise DataError(f"'{a}' and '{b}' have different labels: predict the same examples in the same order.")
    scores = [score_arrays(arrays_of(*pair)).examples for pair in loaded]
    examples = len(tests[0].labels)
    bootstrap = PairedBootstrap(1, examples, DRAWS, np.random.default_rng(seed_for(purpose="compare")))
    found = Comparison(str(a), str(b), examples, 1, DRAWS, notes=[note for test in tests for note in test.notes])
    for metric in _COMPARED:
        if all(metric in each for each in scores):
            mine, theirs = (each[metric][None] for each in scores)
            found.add(metric, mine, theirs, bootstrap.difference(mine, theirs))
    return found


def compare_stored(plan: Plan, store: Store, a: str, b: str) -> Comparison:
    """Compare two stored results of a suite, on the repetitions that both have, with the draws of its report.

    Args:
        a, b: ``LABEL@SIZE`` or ``SPEC@SIZE``.

    Raises:
        SpecError: no such result in the suite, or none of it in the store.
    """
    keys = [_find(plan, store, name) for name in (a, b)]
    cells = [cell for cell in all_cells(plan, store) if (cell.spec, cell.size) in keys]
    results, _ = score_cells(cells, store)
    groups = by_method(results)
    for name, key in zip((a, b), keys, strict=True):
        if key not in groups:
            raise SpecError(f"The store '{store.root}' has no predictions of '{name}': run the suite first.")
    pairing = Pairing(plan, groups)
    repetitions = pairing.shared("nll", keys)
    if not repetitions:
        raise SpecError(f"'{a}' and '{b}' have no repetition in common: add or run the ones that are missing.")
    name_a, name_b = (_name(groups[key]) for key in keys)
    found = Comparison(name_a, name_b, plan.data.counts["test"], len(repetitions), plan.suite.bootstrap)
    for metric in _COMPARED:
        shared, test = pairing.shared(metric, keys), pairing.difference(metric, *keys)
        if test is not None and shared == repetitions:
            mine, theirs = (pairing.scores(key, metric, shared) for key in keys)
            found.add(metric, mine, theirs, test)
    return found


def _find(plan: Plan, store: Store, name: str) -> Key:
    known: dict[str, Cell] = {}
    for cell in reversed(all_cells(plan, store)):  # the suite's own labels win over those that were added
        known |= {f"{cell.spec}@{cell.size}": cell, f"{cell.label}@{cell.size}": cell}
    if name not in known:
        labels = list(dict.fromkeys(f"{cell.label}@{cell.size}" for cell in all_cells(plan, store)))
        raise SpecError(f"The suite '{plan.suite.name}' has no result '{name}'{did_you_mean(name, labels)}.")
    return known[name].spec, known[name].size


def _name(group: list[CellResult]) -> str:
    return f"{group[0].cell.label}, size {group[0].cell.size}"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
