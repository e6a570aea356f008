"""From stored predictions to result rows: scores, intervals, deep-ensemble equivalents, comparisons.  No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results.costs import cost_columns, latency_columns
from benchmarks.results.equivalents import equivalent, fitted
from benchmarks.results.external.cells import External, kind_of, load_external
from benchmarks.results.pairing import CellResult, Contrast, Key, Pairing, by_method, identity, method_name
from benchmarks.results.pools import pool_effects
from benchmarks.results.records import recorded
from benchmarks.statistics import LEVEL, Interval, holm
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import ArtefactError
from dbn_core.metrics.calibration import confidence_and_hit, reliability
from dbn_core.metrics.scores import Array
from dbn_core.metrics.selective import places, selective_risks
from dbn_core.tasks.base import Task
from dbn_core.tasks.class_scores import ClassScores, caveats


@dataclass
class ResultTables:
    """The tables of a run, as they are written to the results folder, and how their intervals are computed."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    reliability: pd.DataFrame
    records: pd.DataFrame
    statistics: list[str]
    exhibits: dict[str, Array]  # of the first repetition, by label, size and name
    shifts: pd.DataFrame | None = None  # of a suite with [shift], see :mod:`benchmarks.results.shifts`
    risk_coverage: pd.DataFrame | None = None  # of suites that classify


_COVERAGES = np.arange(1, 51) / 50  # of the risk-coverage curve
_COMPARISONS = [
    *("method", "label", "size", "reference", "metric"),
    *("difference", "low", "high", "p_value", "p_holm"),
]


def all_cells(plan: Plan, store: Store) -> list[Cell]:
    """The cells of the plan, then those of predictions made elsewhere (:mod:`benchmarks.results.external.cells`)."""
    return [*plan.cells, *load_external(plan, store)]


def load_cells(plan: Plan, store: Store) -> tuple[list[CellResult], dict[str, str]]:
    """Scores of every cell whose predictions are stored, and the reasons why others are missing, by key."""
    results, problems = score_stored(plan.suite.task, all_cells(plan, store), store)
    _add_agreement(plan.suite.task, results)
    return results, problems


def score_stored(task: Task, cells: Sequence[Cell], store: Store) -> tuple[list[CellResult], dict[str, str]]:
    """As :func:`load_cells`, without the scores that need another cell."""
    results, problems = [], {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for cell in cells:
        try:
            if cell.predictions not in arrays:
                arrays[cell.predictions] = store.arrays(kind_of(cell), cell.predictions)
            results.append(CellResult(cell, task.score(arrays[cell.predictions], cell.terms)))
        except ArtefactError as error:
            again = f"{cell.title}: its predictions are lost: add them again with `dbn-bench score`."
            problems[cell.predictions] = again if cell.method.name == External.name else str(error)
    return results, problems


def _add_agreement(task: Task, results: list[CellResult]) -> None:
    """Add the scores that compare predictions with the largest deep ensemble of their repetition."""
    full: dict[int, CellResult] = {}
    for result in results:
        if result.cell.is_reference:
            best = full.get(result.cell.repetition)
            if best is None or result.cell.size > best.cell.size:
                full[result.cell.repetition] = result
    for result in results:
        if result.cell.repetition in full:
            result.scores.examples |= task.against(result.scores, full[result.cell.repetition].scores)


def analyse(
    plan: Plan,
    results: list[CellResult],
    store: Store,
    latency: Mapping[str, Any],
    contrasts: Iterable[Contrast] = (),
    ranked: bool = True,
) -> ResultTables:
    """All tables of a report, from scored cells.

    Means use all repetitions of a method.  Two methods are compared on the repetitions that both have, and a method
    with the deep ensembles of its DEE on those that all of them have.

    Args:
        contrasts: pairs to compare in addition to each method with one network and with the ensemble of its size.
        ranked: whether the best method is marked, and those that do not differ from it.
    """
    task, groups = plan.suite.task, by_method(results)
    pairing = Pairing(groups, pool_effects(plan, store))
    summary = [_summary_row(plan, key, group, store, latency, pairing) for key, group in groups.items()]
    add_equivalents(task, summary, groups, pairing)
    _mark_best(task, summary, groups, pairing, ranked)
    return ResultTables(
        pd.DataFrame(_tidy(plan, results)),
        pd.DataFrame(summary),
        _corrected(task, _compare(task, groups, pairing) + _contrasted(task, groups, pairing, contrasts)),
        pd.DataFrame(_reliability_rows(groups)),
        recorded(plan, [result.cell for result in results], store),
        pairing.statement(plan.suite.pool.sharing, task.name == "classification") + _caveats(groups),
        _exhibits(results),
        risk_coverage=_risk_coverage_rows(groups),
    )


def _tidy(plan: Plan, results: list[CellResult]) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        for name in plan.suite.task.scores:
            if name in result:
                value = float(result.values(name).mean())
                where = {"repetition": result.cell.repetition, "split": "test", "metric": name, "value": value}
                rows.append({"suite": plan.suite.name, **identity(result.cell), **where})
    return rows


def _summary_row(
    plan: Plan, key: Key, group: list[CellResult], store: Store, latency: Mapping[str, Any], pairing: Pairing
) -> dict[str, Any]:
    cell = group[0].cell
    row: dict[str, Any] = {**identity(cell), "n": len(group)}
    for score in plan.suite.task.scores:
        interval = pairing.mean(score, key)
        row |= {f"{score}_mean": interval.value, f"{score}_low": interval.low, f"{score}_high": interval.high}
    return row | cost_columns(plan, group, store) | latency_columns(latency.get(f"{key[0]}@{key[1]}", {}))


def add_equivalents(
    task: Task, summary: list[dict[str, Any]], groups: Mapping[Key, list[CellResult]], pairing: Pairing
) -> None:
    """Add the equivalent number of reference members, such as the deep-ensemble equivalent, and its interval.

    Args:
        summary: rows with ``method`` and ``size``, which get columns for each of the task's curves.
    """
    ensembles = dict(sorted(reference_keys(groups).items()))
    sizes = list(ensembles)
    for column, score in task.curves.items():
        for row in summary:
            key, nothing = (row["method"], row["size"]), Interval(np.nan, np.nan, np.nan)
            found = {column: nothing, f"{column}_fit": nothing}
            repetitions = pairing.shared(score, [key, *ensembles.values()])
            if repetitions and 1 in ensembles and len(ensembles) > 1:
                gaps = pairing.gaps(score, key, list(ensembles.values()), repetitions)
                found = {column: equivalent(gaps, sizes), f"{column}_fit": fitted(gaps, sizes)}
                if key in ensembles.values():  # the reference itself
                    found[column] = Interval(*[float(row["size"])] * 3)
            for name, dee in found.items():
                row |= {name: dee.value, f"{name}_low": dee.low, f"{name}_high": dee.high}


def reference_keys(groups: Mapping[Key, list[CellResult]]) -> dict[int, Key]:
    """The deep ensembles by size."""
    return {key[1]: key for key, group in groups.items() if group[0].cell.is_reference}


def _compare(task: Task, groups: Mapping[Key, list[CellResult]], pairing: Pairing) -> list[dict[str, Any]]:
    """Each method against one network and against the deep ensemble of its own size."""
    references = reference_keys(groups)
    rows = []
    for key, group in groups.items():
        cell = group[0].cell
        if not cell.method.competes:
            continue
        for size in sorted({1, cell.size} & set(references)):
            rows += _comparison_rows(task, cell, f"{task.reference_label}-{size}", key, references[size], pairing)
    return rows


def _contrasted(
    task: Task, groups: Mapping[Key, list[CellResult]], pairing: Pairing, contrasts: Iterable[Contrast]
) -> list[dict[str, Any]]:
    """Rows of the further pairs, by label: a method against another, or against another size of it."""
    keys = {(group[0].cell.label, key[1]): key for key, group in groups.items()}
    rows = []
    for of, to in contrasts:
        known = of in keys and to in keys
        if known and not (groups[keys[to]][0].cell.is_reference and to[1] in (1, of[1])):  # compared above
            cell = groups[keys[of]][0].cell
            name = method_name(*to)
            rows += _comparison_rows(task, cell, name, keys[of], keys[to], pairing)
    return rows


def _comparison_rows(
    task: Task, cell: Cell, reference: str, mine: Key, theirs: Key, pairing: Pairing
) -> list[dict[str, Any]]:
    which = {k: v for k, v in identity(cell).items() if k != "family"}
    rows = []
    for score in task.tested_scores:
        if gap := pairing.difference(score, mine, theirs):
            values = {"difference": gap.value, "low": gap.low, "high": gap.high, "p_value": gap.p_value}
            rows.append({**which, "reference": reference, "metric": score, **values})
    return rows


def _corrected(task: Task, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The comparisons with Holm-corrected p-values, in families of one score and one kind of reference."""
    frame = pd.DataFrame(rows, columns=_COMPARISONS)
    label = task.reference_label
    own = f"{label}-" + frame["size"].astype(str)
    kind = np.where(
        frame["reference"] == f"{label}-1", "one network", np.where(frame["reference"] == own, "ensemble", "")
    )
    frame["p_holm"] = frame.groupby([frame["metric"], kind])["p_value"].transform(lambda p: holm(p.to_numpy()))
    return frame


def _mark_best(
    task: Task, summary: list[dict[str, Any]], groups: Mapping[Key, list[CellResult]], pairing: Pairing, ranked: bool
) -> None:
    """Mark ``best`` and ``tied`` (not significantly different from the best) among all methods but the reference.

    Where nothing is ranked, marks are empty.
    """
    for score, known in task.scores.items():
        if known.better is None:
            continue
        sign = -1.0 if known.better == "higher" else 1.0
        for row in summary:
            row[f"{score}_mark"] = ""
        rivals = [
            row
            for row in summary
            if groups[row["method"], row["size"]][0].cell.method.competes and np.isfinite(row[f"{score}_mean"])
        ]
        if not (rivals and ranked):
            continue
        best = min(rivals, key=lambda row: sign * row[f"{score}_mean"])
        best[f"{score}_mark"] = "best"
        others = [row for row in rivals if row is not best]
        pairs = [((row["method"], row["size"]), (best["method"], best["size"])) for row in others]
        found = [pairing.difference(score, *pair) for pair in pairs]
        p_values = holm(np.array([np.nan if gap is None else gap.p_value for gap in found]))
        for row, p in zip(others, p_values, strict=True):
            if p > 1 - LEVEL:
                row[f"{score}_mark"] = "tied"


def _caveats(groups: Mapping[Key, list[CellResult]]) -> list[str]:
    """Caveats on scores, in sentences that name the method."""
    return [
        f"{method_name(group[0].cell.label, size)}: {line}"
        for (_, size), group in groups.items()
        for line in caveats([result.scores for result in group if isinstance(result.scores, ClassScores)])
    ]


def _exhibits(results: list[CellResult]) -> dict[str, Array]:
    """What figures show of each method's first repetition."""
    first = [result for result in results if result.cell.repetition == 0]
    return {
        f"{result.cell.label}@{result.cell.size}/{name}": array
        for result in first
        for name, array in result.scores.samples.items()
    }


def _reliability_rows(groups: Mapping[tuple[str, int], list[CellResult]]) -> list[dict[str, Any]]:
    """Reliability bins pooled over repetitions, raw and calibrated."""
    rows = []
    for group in groups.values():
        classes = [result.scores for result in group if isinstance(result.scores, ClassScores)]
        if not classes:
            continue
        labels = np.concatenate([scores.labels for scores in classes])
        scaled = [found for scores in classes if (found := scores.calibrated) is not None]
        pooled = {False: [scores.log_probs for scores in classes]} | (
            {True: scaled} if len(scaled) == len(group) else {}
        )
        for calibrated, log_probs in pooled.items():
            bins = reliability(np.concatenate(log_probs), labels)
            for index in range(len(bins.count)):
                values = {
                    "calibrated": calibrated,
                    "bin": index,
                    "lower": bins.lower[index],
                    "upper": bins.upper[index],
                    "count": int(bins.count[index]),
                    "confidence": bins.confidence[index],
                    "accuracy": bins.accuracy[index],
                }
                rows.append({**identity(group[0].cell), **values})
    return rows


def _risk_coverage_rows(groups: Mapping[Key, list[CellResult]]) -> pd.DataFrame | None:
    """Share of errors among the most confident examples, mean over repetitions, at 50 coverages."""
    rows = []
    for group in groups.values():
        classes = [result.scores for result in group if isinstance(result.scores, ClassScores)]
        curves = [selective_risks(*confidence_and_hit(scores.log_probs, scores.labels)) for scores in classes]
        for coverage in _COVERAGES if curves else ():
            risk = np.mean([curve[places(len(curve), coverage) - 1] for curve in curves])
            rows.append({**identity(group[0].cell), "coverage": coverage, "risk": risk})
    return pd.DataFrame(rows) if rows else None
