"""The paired test of two results: files of predictions, or stored results of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.results.equivalents import equivalent
from benchmarks.results.external.cells import External, check_arrays
from benchmarks.results.external.predictions import predictions_of_file
from benchmarks.results.pairing import CellResult, Pairing, by_method
from benchmarks.results.pools import pool_effects
from benchmarks.results.rows import all_cells, reference_keys, score_stored
from benchmarks.statistics import LEVEL, Interval, Means, Tested, holm, paired
from benchmarks.store.artefacts import Store
from benchmarks.suite.names import cells_of_result
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import DataError, SpecError
from dbn_core.metrics.scores import Array
from dbn_core.tasks.base import Task
from dbn_core.tasks.class_scores import score_arrays
from dbn_core.tasks.classification import Classification


@dataclass(frozen=True)
class ScoreDifference:
    """A score of A and of B, and A minus B with its 95 % interval and two-sided p-value, raw and corrected by Holm."""

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float


@dataclass
class Comparison:
    """The paired comparison of two results on the same examples and repetitions, by the tested scores of the task.

    Attributes:
        whole: scores of whole splits, one number a repetition: only repetitions are paired.
    """

    a: str
    b: str
    examples: int
    repetitions: int
    task: Task
    rows: list[ScoreDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """A sentence on what is significant."""
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            groups.setdefault(self._finding(row), []).append(row.metric)
        text = "; ".join(before + self._listed(metrics) + after for (before, after), metrics in groups.items())
        return f"{text[0].upper()}{text[1:]} (5 %, Holm)."

    def _finding(self, row: ScoreDifference) -> tuple[str, str]:
        """The words before and after the name of the score."""
        if not np.isfinite(row.difference):
            return "the difference in ", " is not finite and has no test"
        if np.isnan(row.p_holm):
            return "with one repetition the difference in ", " has no test"
        if row.p_holm > 1 - LEVEL:
            return "the difference in ", " is not significant"
        a_is_better = (row.difference > 0) == (self.task.scores[row.metric].better == "higher")
        return (f"A ({self.a})" if a_is_better else f"B ({self.b})") + " is significantly better in ", ""

    def _listed(self, metrics: list[str]) -> str:
        words = [self.task.scores[metric].name for metric in metrics]
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

    @property
    def method(self) -> str:
        """How intervals and p-values are computed, and what they refer to."""
        by_example = len(self.whole) < len(self.rows)
        over = [f"{self.repetitions} repetitions"] if self.repetitions > 1 else []
        over += [f"{self.examples} {'test ' if over else ''}examples"] if by_example else []
        alone = f"; {self._listed(self.whole)}: over repetitions alone" if by_example and self.whole else ""
        if self.repetitions > 1:
            families = {self.task.scores[row.metric].table for row in self.rows}
            apart = ", those of uncertainty apart" if len(families) > 1 else ""
            corrected = f"p corrected by Holm for the number of scores{apart}."
            return f"Paired Student's t over {' and '.join(over)}{alone}; {corrected}"
        tested = f"Paired Student's t over {over[0]}. " if over else ""
        if tested and "acc" in (row.metric for row in self.rows):
            tested += "Accuracy: the exact sign test too; the larger p-value and the wider interval count. "
        return (
            f"{tested}One repetition: it speaks of these two sets of predictions on other examples, not of other "
            "trainings."
        )

    def fill(self, tests: Mapping[str, tuple[Array, Array, Tested]]) -> None:
        """Add a row for each score, from its values [R, N] for A and B and the test.

        The scores of one table of the report are a family, so that those of uncertainty do not weaken the main ones.
        """
        self.whole += [metric for metric, (a, *_) in tests.items() if a.shape[1] == 1]
        for family in dict.fromkeys(self.task.scores[metric].table for metric in tests):
            some = {metric: test for metric, test in tests.items() if self.task.scores[metric].table == family}
            corrected = holm(np.array([test.p_value for *_, test in some.values()]))
            for (metric, (a, b, gap)), p in zip(some.items(), corrected, strict=True):
                ends = (gap.value, gap.low, gap.high, gap.p_value)
                self.rows.append(ScoreDifference(metric, float(a.mean()), float(b.mean()), *ends, float(p)))


def compare_files(a: Path, b: Path, labels: Path | None, key: str | None, values: str) -> Comparison:
    """Compare two files of predictions on the same labelled examples.

    Raises:
        DataError: a file cannot be used, or the two are not of the same examples.
    """
    loaded = [predictions_of_file(path, labels, key=key, values=values) for path in (a, b)]
    labels_a, labels_b = (predictions.arrays["test_labels"] for predictions in loaded)
    if not np.array_equal(labels_a, labels_b):
        raise DataError(f"'{a}' and '{b}' have different labels: predict the same examples in the same order.")
    notes = [note for predictions in loaded for note in predictions.notes]
    found = Comparison(str(a), str(b), len(labels_a), 1, Classification(), notes=notes)
    mine, theirs = (score_arrays(predictions.arrays).examples for predictions in loaded)
    both = [metric for metric in found.task.tested_scores if metric in mine and metric in theirs]
    found.fill({m: (mine[m][None], theirs[m][None], paired(mine[m] - theirs[m])) for m in both})
    return found


def compare_stored(plan: Plan, store: Store, a: str, b: str, more: Sequence[CellResult] = ()) -> Comparison:
    """Compare two stored results of a suite, on the repetitions that both have, as its report does.

    With one repetition the examples alone vary, as for two files.

    Args:
        a, b: ``METHOD@SIZE``, as :mod:`benchmarks.suite.names` resolves it.
        more: results that are no part of the suite, such as entries of the leaderboard.

    Raises:
        SpecError: no such result in the suite, or none of it in the store.
    """
    for name in (a, b):
        if Path(name).suffix in (".npz", ".npy", ".csv", ".parquet"):
            raise SpecError(
                f"'{name}' is a file, and --suite compares stored results: add it with `dbn-bench score {name} --suite "
                f"{plan.suite.name} --label LABEL --size M`, then compare LABEL@M."
            )
    own = all_cells(plan, store)
    cells = [*own, *(result.cell for result in more)]
    firsts = [cells_of_result(cells, name, plan.suite.name)[0] for name in (a, b)]
    keys = [(cell.spec, cell.size) for cell in firsts]
    task = plan.suite.task
    results, _ = score_stored(task, [cell for cell in own if (cell.spec, cell.size) in keys], store)
    groups = by_method([*results, *(result for result in more if (result.cell.spec, result.cell.size) in keys)])
    for name, key in zip((a, b), keys, strict=True):
        if key not in groups:
            raise SpecError(f"The store '{store.root.resolve()}' has no predictions of '{name}': {plan.remedy()}")
    pairing = Pairing(groups, pool_effects(plan, store))
    having = {metric: pairing.shared(metric, keys) for metric in task.tested_scores}
    repetitions = max(having.values(), key=len, default=())
    if not repetitions:
        raise SpecError(f"'{a}' and '{b}' have no repetition in common: add or run the ones that are missing.")
    name_a, name_b = (f"{cell.label}, size {cell.size}" for cell in firsts)
    found = Comparison(name_a, name_b, plan.data.counts["test"], len(repetitions), task)
    tests = {}
    for metric in [metric for metric, own in having.items() if own == repetitions]:
        if test := pairing.difference(metric, *keys):
            mine, theirs = (pairing.scores(key, metric, repetitions) for key in keys)
            tests[metric] = (mine, theirs, paired((mine - theirs)[0]) if len(repetitions) == 1 else test)
    found.fill(tests)
    return found


def score_against_ensembles(
    plan: Plan, store: Store, repetitions: Mapping[int, Mapping[str, Array]], source: str
) -> dict[str, Interval]:
    """Accuracy, NLL raw and calibrated, and deep-ensemble equivalents of predictions that are not in the suite.

    They are paired with the suite's deep ensembles by repetition and example.  The intervals are those of the suite's
    own rows; with one repetition they are over test examples alone, and say nothing of other trainings.

    Args:
        repetitions: of each, from 0, arrays as :func:`dbn_core.tasks.class_scores.score_arrays` takes them.
        source: the name of the predictions in error messages.

    Returns:
        By score, and by the column of each equivalent.

    Raises:
        SpecError: the store lacks deep ensembles of these repetitions, including a single network.
        DataError: the predictions are not of the suite's examples.
    """
    for number, arrays in repetitions.items():
        check_arrays(plan, store, number, arrays, source)
    task, one = plan.suite.task, len(repetitions) == 1
    cells = [cell for cell in plan.cells if cell.is_reference and cell.repetition in repetitions]
    results, _ = score_stored(task, cells, store)
    mine = [CellResult(unplanned_cell(number), task.score(arrays)) for number, arrays in repetitions.items()]
    groups = by_method([*results, *mine])
    ensembles, key = dict(sorted(reference_keys(groups).items())), (mine[0].cell.spec, 1)
    pairing = Pairing(groups, {} if one else pool_effects(plan, store))
    if 1 not in ensembles or len(ensembles) < 2 or pairing.shared("nll", list(groups)) != tuple(sorted(repetitions)):
        listed = ", ".join(str(number + 1) for number in repetitions)
        raise SpecError(
            f"The store '{store.root.resolve()}' lacks deep ensembles of repetition {listed} of '{plan.suite.name}', "
            f"including a single network: {plan.remedy(options=' --only de')}"
        )

    def over_examples(values: Sequence[Array]) -> Means:
        return Means(np.stack(values)[:, :, None])

    found: dict[str, Interval] = {}
    for score in ("acc", "nll", "cnll"):
        if score in mine[0]:
            found[score] = over_examples([mine[0].values(score)]).interval() if one else pairing.mean(score, key)
    for column, score in task.curves.items():
        if score in mine[0]:
            gaps = pairing.gaps(score, key, list(ensembles.values()), sorted(repetitions))
            if one:
                theirs = [groups[each][0].values(score) for each in ensembles.values()]
                gaps = over_examples([mine[0].values(score) - each for each in theirs])
            found[column] = equivalent(gaps, list(ensembles))
    return found


def unplanned_cell(repetition: int, members: tuple[str, ...] = ()) -> Cell:
    """Predictions as a cell of the suite, made from ``members`` as far as that is known."""
    return Cell(External(), External.name, External.name, 1, repetition, "", None, "", (), members, ())
