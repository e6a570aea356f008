"""From stored predictions to result rows: scores, intervals, deep-ensemble equivalents, comparisons.  No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.claims.model import load_claims, method_name
from benchmarks.plan import Cell, Plan
from benchmarks.statistics import DeeCurve, Interval, PairedBootstrap, mean_interval
from benchmarks.store import Store
from dbn_core.errors import ArtefactError
from dbn_core.metrics.calibration import apply_temperature, expected_calibration_error, fit_temperature, reliability
from dbn_core.metrics.scores import (
    Array,
    brier,
    correct,
    kl_divergence,
    mixture_log_probs,
    negative_log_likelihood,
)
from dbn_core.seeds import seed_for

# Scores that are means over examples, and whether a larger value is better.
PER_EXAMPLE = {"acc": True, "nll": False, "brier": False, "cnll": False, "cbrier": False, "kl_to_ensemble": False}
PER_SPLIT = {"ece": False, "cece": False}
SCORES = [*PER_EXAMPLE, *PER_SPLIT, "temperature"]


@dataclass
class CellResult:
    """Scores of one cell on the test split; ``examples`` are [N], ``split`` are numbers."""

    cell: Cell
    log_probs: Array
    labels: Array
    calibrated: Array
    examples: dict[str, Array] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)


@dataclass
class Results:
    """The tables of a run, as they are written to the results folder."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    reliability: pd.DataFrame


def score_cell(cell: Cell, arrays: Mapping[str, Array]) -> CellResult:
    """All scores of one cell that need no other cell.  The temperature is fitted on validation."""
    validation = mixture_log_probs(arrays["validation"][: cell.terms])
    log_probs, labels = mixture_log_probs(arrays["test"][: cell.terms]), arrays["test_labels"]
    temperature = fit_temperature(validation, arrays["validation_labels"])
    calibrated = apply_temperature(log_probs, temperature)
    result = CellResult(cell, log_probs, labels, calibrated)
    result.examples = {
        "acc": correct(log_probs, labels),
        "nll": negative_log_likelihood(log_probs, labels),
        "brier": brier(log_probs, labels),
        "cnll": negative_log_likelihood(calibrated, labels),
        "cbrier": brier(calibrated, labels),
    }
    result.split = {
        "ece": expected_calibration_error(log_probs, labels),
        "cece": expected_calibration_error(calibrated, labels),
        "temperature": temperature,
    }
    return result


def load_cells(plan: Plan, store: Store) -> tuple[list[CellResult], dict[str, str]]:
    """Scores of every cell whose predictions are in the store, and the reasons why others are not."""
    results, problems = [], {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for cell in plan.cells:
        try:
            if cell.predictions not in arrays:
                arrays[cell.predictions] = store.arrays("predictions", cell.predictions)
            results.append(score_cell(cell, arrays[cell.predictions]))
        except ArtefactError as error:
            problems[cell.predictions] = str(error)
    _add_agreement(results)
    return results, problems


def _add_agreement(results: list[CellResult]) -> None:
    """KL of the largest deep ensemble of the same repetition to each prediction."""
    full: dict[int, CellResult] = {}
    for result in results:
        if result.cell.method.name == "de":
            best = full.get(result.cell.repetition)
            if best is None or result.cell.size > best.cell.size:
                full[result.cell.repetition] = result
    for result in results:
        if result.cell.repetition in full:
            result.examples["kl_to_ensemble"] = kl_divergence(full[result.cell.repetition].log_probs, result.log_probs)


def analyse(plan: Plan, results: list[CellResult], store: Store, latency: Mapping[str, Any]) -> Results:
    """Everything that is reported, from scored cells.

    A method takes part in comparisons and DEE with the repetitions that all methods share; its means use all.
    """
    groups: dict[tuple[str, int], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.spec, result.cell.size), []).append(result)
    shared = set.intersection(*({r.cell.repetition for r in group} for group in groups.values())) if groups else set()
    stacked = {
        key: {
            score: np.stack([r.examples[score] for r in group if r.cell.repetition in shared])
            for score in PER_EXAMPLE
            if shared and all(score in r.examples for r in group)
        }
        for key, group in groups.items()
    }
    rng = np.random.default_rng(seed_for(suite=plan.suite.name, seed=plan.suite.seed, purpose="bootstrap"))
    bootstrap = PairedBootstrap(len(shared), plan.data.counts["test"], plan.suite.bootstrap, rng) if shared else None
    summary = [_summary_row(plan, key, group, store, latency) for key, group in groups.items()]
    comparisons: list[dict[str, Any]] = []
    if bootstrap is not None:
        _add_dee(summary, groups, stacked, bootstrap)
        comparisons = _compare(groups, stacked, bootstrap) + _claimed(groups, stacked, bootstrap)
    _mark_best(summary, groups, stacked, bootstrap)
    return Results(
        pd.DataFrame(_tidy(plan, results)),
        pd.DataFrame(summary),
        pd.DataFrame(
            comparisons,
            columns=["method", "label", "size", "reference", "metric", "difference", "low", "high", "p_value"],
        ),
        pd.DataFrame(_reliability_rows(groups)),
    )


def _identity(cell: Cell) -> dict[str, Any]:
    return {"method": cell.spec, "label": cell.label, "family": cell.method.name, "size": cell.size}


def _tidy(plan: Plan, results: list[CellResult]) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        values = {name: float(scores.mean()) for name, scores in result.examples.items()} | result.split
        for name in SCORES:
            if name in values:
                where = {"repetition": result.cell.repetition, "split": "test", "metric": name, "value": values[name]}
                rows.append({"suite": plan.suite.name, **_identity(result.cell), **where})
    return rows


def _summary_row(
    plan: Plan, key: tuple[str, int], group: list[CellResult], store: Store, latency: Mapping[str, Any]
) -> dict[str, Any]:
    cell = group[0].cell
    row: dict[str, Any] = {**_identity(cell), "n": len(group)}
    for score in SCORES:
        values = [float(r.examples[score].mean()) if score in r.examples else r.split.get(score, np.nan) for r in group]
        interval = mean_interval(np.array(values))
        row |= {f"{score}_mean": interval.value, f"{score}_low": interval.low, f"{score}_high": interval.high}
    return row | _cost_columns(plan, group, store) | _latency_columns(latency.get(f"{key[0]}@{key[1]}", {}))


def _cost_columns(plan: Plan, group: list[CellResult], store: Store) -> dict[str, Any]:
    cell = group[0].cell
    cost, one = _value(store, "cost", cell.cost), _unit_cost(plan, store)
    columns: dict[str, Any] = {name: cost.get(name, np.nan) for name in ("params", "macs", "flops")}
    for name in ("params", "macs"):
        columns[f"{name}_rel"] = columns[name] / one.get(name, np.nan)
    own, pool = [], []
    for result in group:
        parts = [_value(store, "part", key) for key in result.cell.parts]
        # Charged in full to every method that used them: that is what the method costs by itself.
        own.append(parts + [_value(store, "views", key) for key in result.cell.views])
        pool.append([_value(store, "member", key) for key in result.cell.members])

    def total(of: list[list[dict[str, Any]]], name: str) -> float:
        return float(np.mean([sum(value.get(name, np.nan) for value in values) for values in of]))

    columns["train_seconds"] = total(own, "train_seconds")
    columns["train_seconds_with_members"] = columns["train_seconds"] + total(pool, "train_seconds")
    columns["student_passes"] = total(own, "student_passes")
    columns["teacher_passes"] = total(own, "teacher_passes")
    columns["member_passes"] = total(pool, "student_passes")
    return columns


def _value(store: Store, kind: str, key: str) -> dict[str, Any]:
    """What the store knows of an artefact; nothing when it holds the predictions alone."""
    return store.value(kind, key)["value"] if store.has(kind, key) else {}


def _unit_cost(plan: Plan, store: Store) -> dict[str, Any]:
    """Cost of one member: the cell of a yardstick method at size 1."""
    for cell in plan.cells:
        if cell.method.yardstick and cell.size == 1:
            return _value(store, "cost", cell.cost)
    return {}


def _latency_columns(measured: Mapping[str, Any]) -> dict[str, Any]:
    one, batch = measured.get("one", {}), measured.get("batch", {})
    return {
        "latency_b1_p50_ms": one.get("p50_ms", np.nan),
        "latency_b1_p95_ms": one.get("p95_ms", np.nan),
        "latency_b1_ratio": one.get("ratio", np.nan),
        "latency_batch_ratio": batch.get("ratio", np.nan),
        "throughput_examples_per_s": batch.get("examples_per_s", np.nan),
        "latency_noisy": bool(one.get("noisy", False) or batch.get("noisy", False)),
    }


def _add_dee(
    summary: list[dict[str, Any]],
    groups: Mapping[tuple[str, int], list[CellResult]],
    stacked: Mapping[tuple[str, int], Mapping[str, Array]],
    bootstrap: PairedBootstrap,
) -> None:
    for column, score in (("dee_raw", "nll"), ("dee_cal", "cnll")):
        scores = {size: stacked[key][score] for key, size in _de_keys(groups)}
        curve = DeeCurve(scores, bootstrap) if 1 in scores and len(scores) > 1 else None
        for row in summary:
            dee = Interval(np.nan, np.nan, np.nan)
            if curve is not None:
                dee = curve.equivalent(stacked[row["method"], row["size"]][score])
            row |= {column: dee.value, f"{column}_low": dee.low, f"{column}_high": dee.high}


def _de_keys(groups: Mapping[tuple[str, int], list[CellResult]]) -> list[tuple[tuple[str, int], int]]:
    return [(key, key[1]) for key, group in groups.items() if group[0].cell.method.name == "de"]


def _compare(
    groups: Mapping[tuple[str, int], list[CellResult]],
    stacked: Mapping[tuple[str, int], Mapping[str, Array]],
    bootstrap: PairedBootstrap,
) -> list[dict[str, Any]]:
    """Each method against one network and against the deep ensemble of its own size."""
    references = {size: key for key, size in _de_keys(groups)}
    rows = []
    for key, group in groups.items():
        cell = group[0].cell
        if cell.method.yardstick:
            continue
        for size in sorted({1, cell.size} & set(references)):
            rows += _comparison_rows(cell, f"DE-{size}", stacked[key], stacked[references[size]], bootstrap)
    return rows


def _claimed(
    groups: Mapping[tuple[str, int], list[CellResult]],
    stacked: Mapping[tuple[str, int], Mapping[str, Array]],
    bootstrap: PairedBootstrap,
) -> list[dict[str, Any]]:
    """The further pairs that the papers' claims ask for, by label: a method against another, or its other size."""
    keys = {(group[0].cell.label, key[1]): key for key, group in groups.items()}
    rows = []
    for of, to in load_claims().contrasts():
        known = of in keys and to in keys
        if known and not (groups[keys[to]][0].cell.method.name == "de" and to[1] in (1, of[1])):  # compared above
            cell = groups[keys[of]][0].cell
            rows += _comparison_rows(cell, method_name(*to), stacked[keys[of]], stacked[keys[to]], bootstrap)
    return rows


def _comparison_rows(
    cell: Cell, reference: str, mine: Mapping[str, Array], theirs: Mapping[str, Array], bootstrap: PairedBootstrap
) -> list[dict[str, Any]]:
    identity = {k: v for k, v in _identity(cell).items() if k != "family"}
    rows = []
    for score in ("nll", "cnll", "acc"):
        gap, p = bootstrap.difference(mine[score], theirs[score])
        values = {"difference": gap.value, "low": gap.low, "high": gap.high, "p_value": p}
        rows.append({**identity, "reference": reference, "metric": score, **values})
    return rows


def _mark_best(
    summary: list[dict[str, Any]],
    groups: Mapping[tuple[str, int], list[CellResult]],
    stacked: Mapping[tuple[str, int], Mapping[str, Array]],
    bootstrap: PairedBootstrap | None,
) -> None:
    """``best`` and ``tied`` (not significantly different from the best) among the methods that are no yardstick."""
    for score, higher in (PER_EXAMPLE | PER_SPLIT).items():
        sign = -1.0 if higher else 1.0
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
        for row in rivals:
            if row is not best and _tied(row, best, score, groups, stacked, bootstrap):
                row[f"{score}_mark"] = "tied"


def _tied(
    row: dict[str, Any],
    best: dict[str, Any],
    score: str,
    groups: Mapping[tuple[str, int], list[CellResult]],
    stacked: Mapping[tuple[str, int], Mapping[str, Array]],
    bootstrap: PairedBootstrap | None,
) -> bool:
    mine, theirs = (row["method"], row["size"]), (best["method"], best["size"])
    if score in PER_EXAMPLE:
        if bootstrap is None:
            return False
        gap, _ = bootstrap.difference(stacked[mine][score], stacked[theirs][score])
    else:  # calibration errors are no means over examples: a paired t interval over repetitions
        by_repetition = {r.cell.repetition: r.split[score] for r in groups[theirs]}
        pairs = [
            r.split[score] - by_repetition[r.cell.repetition]
            for r in groups[mine]
            if r.cell.repetition in by_repetition
        ]
        if len(pairs) < 2:
            return False
        gap = mean_interval(np.array(pairs))
    return gap.low <= 0 <= gap.high


def _reliability_rows(groups: Mapping[tuple[str, int], list[CellResult]]) -> list[dict[str, Any]]:
    """Reliability bins pooled over repetitions, raw and calibrated."""
    rows = []
    for group in groups.values():
        labels = np.concatenate([r.labels for r in group])
        for calibrated in (False, True):
            log_probs = np.concatenate([r.calibrated if calibrated else r.log_probs for r in group])
            bins = reliability(log_probs, labels)
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
                rows.append({**_identity(group[0].cell), **values})
    return rows
