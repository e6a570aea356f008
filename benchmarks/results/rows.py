"""From stored predictions to result rows: scores, intervals, deep-ensemble equivalents, comparisons.  No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.results.external.cells import External, load_external
from benchmarks.results.pairing import CellResult, Contrast, Key, Pairing, by_method, identity, method_name
from benchmarks.results.pools import pool_effects
from benchmarks.results.records import recorded
from benchmarks.statistics import LEVEL, Interval, equivalent, fitted, holm
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import ArtefactError
from dbn_core.metrics.calibration import reliability
from dbn_core.metrics.scores import Array
from dbn_core.tasks.base import Task
from dbn_core.tasks.classification import ClassScores, caveats


@dataclass
class Results:
    """The tables of a run, as they are written to the results folder, and how their intervals were made."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    reliability: pd.DataFrame
    records: pd.DataFrame
    statistics: list[str]
    exhibits: dict[str, Array]  # of the first repetition, by label, size and name
    shifts: pd.DataFrame | None = None  # of a suite with [shift], see :mod:`benchmarks.results.shifts`


_COMPARISONS = [
    *("method", "label", "size", "reference", "metric"),
    *("difference", "low", "high", "p_value", "p_holm"),
]


def score_cell(task: Task, cell: Cell, arrays: Mapping[str, Array]) -> CellResult:
    """All scores of one cell that need no other cell."""
    return CellResult(cell, task.score(arrays, cell.terms))


def all_cells(plan: Plan, store: Store) -> list[Cell]:
    """The cells of the plan, then those that were added from outside (:mod:`benchmarks.results.external.cells`)."""
    return [*plan.cells, *load_external(plan, store)]


def load_cells(plan: Plan, store: Store) -> tuple[list[CellResult], dict[str, str]]:
    """Scores of every cell whose predictions are in the store, and by key the reasons why others are not."""
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
                arrays[cell.predictions] = store.arrays("predictions", cell.predictions)
            results.append(score_cell(task, cell, arrays[cell.predictions]))
        except ArtefactError as error:
            again = f"{cell.title}: its predictions are lost: add them again with `dbn-bench score`."
            problems[cell.predictions] = again if cell.method.name == External.name else str(error)
    return results, problems


def _add_agreement(task: Task, results: list[CellResult]) -> None:
    """The scores that compare a prediction with that of the largest deep ensemble of its repetition."""
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
) -> Results:
    """Everything that is reported, from scored cells.

    Two methods are compared on the repetitions that both have, and so is a method with the deep ensembles that give its
    DEE; its means use all of its repetitions.

    Args:
        contrasts: further pairs to compare, beside each method with one network and with the ensemble of its size.
    """
    task, groups = plan.suite.task, by_method(results)
    pairing = Pairing(groups, pool_effects(plan, store))
    summary = [_summary_row(plan, key, group, store, latency, pairing) for key, group in groups.items()]
    add_equivalents(task, summary, groups, pairing)
    _mark_best(task, summary, groups, pairing)
    return Results(
        pd.DataFrame(_tidy(plan, results)),
        pd.DataFrame(summary),
        _corrected(task, _compare(task, groups, pairing) + _contrasted(task, groups, pairing, contrasts)),
        pd.DataFrame(_reliability_rows(groups)),
        recorded(plan, [result.cell for result in results], store),
        pairing.statement(plan.suite.pool.sharing, task.name == "classification") + _caveats(groups),
        _exhibits(results),
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
    return row | _cost_columns(plan, group, store) | _latency_columns(latency.get(f"{key[0]}@{key[1]}", {}))


def _cost_columns(plan: Plan, group: list[CellResult], store: Store) -> dict[str, Any]:
    cell = group[0].cell
    cost, one = store.known("cost", cell.cost), _unit_cost(plan, store)
    columns: dict[str, Any] = {name: cost.get(name, np.nan) for name in ("params", "macs", "flops")}
    for name in ("params", "macs"):
        columns[f"{name}_rel"] = columns[name] / one.get(name, np.nan)
    columns["cost_stated"] = cell.method.name == External.name or bool(cost.get("stated", False))
    if cell.method.name == External.name:  # stated with the rest, or unknown
        seconds, passes = cost.get("train_seconds", np.nan), cost.get("student_passes", np.nan)
        columns |= {"train_seconds": seconds, "train_seconds_with_members": seconds}
        return columns | {"student_passes": passes, "teacher_passes": np.nan, "member_passes": np.nan}
    own, pool = [], []
    for result in group:
        parts = [_with_time(store.known("part", key)) for key in result.cell.parts]
        # Charged in full to every method that used them: that is what the method costs by itself.
        own.append(parts + [store.known("views", key) for key in result.cell.views])
        pool.append([store.known("member", key) for key in result.cell.members])

    def total(of: list[list[dict[str, Any]]], name: str) -> float:
        return float(np.mean([sum(value.get(name, np.nan) for value in values) for values in of]))

    columns["train_seconds"] = total(own, "train_seconds")
    columns["train_seconds_with_members"] = columns["train_seconds"] + total(pool, "train_seconds")
    columns["student_passes"] = total(own, "student_passes")
    columns["teacher_passes"] = total(own, "teacher_passes")
    columns["member_passes"] = total(pool, "student_passes")
    return columns


def _with_time(part: dict[str, Any]) -> dict[str, Any]:
    """What is fitted outside the training loop, as forests are, is charged the whole time of its making."""
    return part if part.get("logs", True) else part | {"train_seconds": part["seconds"]}


def _unit_cost(plan: Plan, store: Store) -> dict[str, Any]:
    """Cost of one member: the cell of a yardstick method at size 1."""
    for cell in plan.cells:
        if cell.method.yardstick and cell.size == 1:
            return store.known("cost", cell.cost)
    return {}


def _latency_columns(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Times of the deployable form in each runtime; the columns without a runtime's name are those of eager torch."""
    columns: dict[str, Any] = {}
    for runtime, prefix in RUNTIME_PREFIXES.items():
        times = measured.get(runtime, {})
        for batch, place in (("one", "b1"), ("batch", "batch")):
            for value in ("p50_ms", "p95_ms", "ratio"):
                columns[f"{prefix}_{place}_{value}"] = times.get(batch, {}).get(value, np.nan)
    batch = measured.get("eager", {}).get("batch", {})
    columns["throughput_examples_per_s"] = batch.get("examples_per_s", np.nan)
    columns["latency_noisy"] = any(t["noisy"] for times in measured.values() for t in times.values())
    return columns


def add_equivalents(
    task: Task, summary: list[dict[str, Any]], groups: Mapping[Key, list[CellResult]], pairing: Pairing
) -> None:
    """How many members of the reference a method is worth: the deep-ensemble equivalent of classification.

    Args:
        summary: rows with ``method`` and ``size``, which get a column for each of the task's curves, and its interval.
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
                if key in ensembles.values():  # the yardstick itself
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
        if cell.method.yardstick:
            continue
        for size in sorted({1, cell.size} & set(references)):
            rows += _comparison_rows(task, cell, f"{task.reference_label}-{size}", key, references[size], pairing)
    return rows


def _contrasted(
    task: Task, groups: Mapping[Key, list[CellResult]], pairing: Pairing, contrasts: Iterable[Contrast]
) -> list[dict[str, Any]]:
    """The further pairs that were asked for, by label: a method against another, or its other size."""
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
    for score in task.compared:
        if gap := pairing.difference(score, mine, theirs):
            values = {"difference": gap.value, "low": gap.low, "high": gap.high, "p_value": gap.p_value}
            rows.append({**which, "reference": reference, "metric": score, **values})
    return rows


def _corrected(task: Task, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The comparisons with p-values corrected by Holm, in families of one score and one kind of reference."""
    frame = pd.DataFrame(rows, columns=_COMPARISONS)
    label = task.reference_label
    own = f"{label}-" + frame["size"].astype(str)
    kind = np.where(
        frame["reference"] == f"{label}-1", "one network", np.where(frame["reference"] == own, "ensemble", "")
    )
    frame["p_holm"] = frame.groupby([frame["metric"], kind])["p_value"].transform(lambda p: holm(p.to_numpy()))
    return frame


def _mark_best(
    task: Task, summary: list[dict[str, Any]], groups: Mapping[Key, list[CellResult]], pairing: Pairing
) -> None:
    """``best`` and ``tied`` (not significantly different from the best) among the methods that are no yardstick."""
    for score, known in task.scores.items():
        if known.better is None:
            continue
        sign = -1.0 if known.better == "higher" else 1.0
        for row in summary:
            row[f"{score}_mark"] = ""
        rivals = [
            row
            for row in summary
            if not groups[row["method"], row["size"]][0].cell.method.yardstick and np.isfinite(row[f"{score}_mean"])
        ]
        if not rivals:
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
    """What to mind of the scores of some methods, in sentences that name them."""
    return [
        f"{method_name(group[0].cell.label, size)}: {line}"
        for (_, size), group in groups.items()
        for line in caveats([result.scores for result in group if isinstance(result.scores, ClassScores)])
    ]


def _exhibits(results: list[CellResult]) -> dict[str, Array]:
    """What the first repetition shows of each method."""
    first = [result for result in results if result.cell.repetition == 0]
    return {
        f"{result.cell.label}@{result.cell.size}/{name}": array
        for result in first
        for name, array in result.scores.exhibits.items()
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
