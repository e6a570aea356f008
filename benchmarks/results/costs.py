"""Columns of the summary on cost: parameters, multiply-adds, training, latency.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.results.external.cells import External, stated_cost
from benchmarks.results.pairing import CellResult
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan

_COUNTS = ("params", "macs")


def cost_columns(plan: Plan, group: list[CellResult], store: Store) -> dict[str, Any]:
    """What a prediction and the training of a method cost; NaN where it is unknown.

    Each method is charged in full for everything that it used, as if it were trained alone.  Training is a mean over
    the repetitions of which it is known: a release may have the predictions of the others alone.
    """
    cell, one = group[0].cell, _unit_cost(plan, store)
    external, cells = cell.method.name == External.name, [result.cell for result in group]
    cost = stated_cost(store, [each.cost for each in cells]) if external else _mean_cost(cells, store)
    columns: dict[str, Any] = {name: cost.get(name, np.nan) for name in _COUNTS}
    columns["flops"] = 2 * columns["macs"]
    for name in ("params", "macs"):
        columns[f"{name}_rel"] = columns[name] / one.get(name, np.nan)
    columns["cost_stated"] = external or bool(cost.get("stated", False))
    if external:
        seconds, passes = cost.get("train_seconds", np.nan), cost.get("student_passes", np.nan)
        columns |= {"train_seconds": seconds, "train_seconds_with_members": seconds}
        return columns | {"student_passes": passes, "teacher_passes": np.nan, "member_passes": np.nan}
    own, pool = [], []
    for result in group:
        parts = [_with_time(store.known("part", key)) for key in result.cell.parts]
        own.append(parts + [store.known("views", key) for key in result.cell.views])
        pool.append([store.known("member", key) for key in result.cell.members])

    def total(of: list[list[dict[str, Any]]], name: str) -> float:
        sums = [sum(value.get(name, np.nan) for value in values) for values in of]
        known = [found for found in sums if not np.isnan(found)]
        return float(np.mean(known)) if known else np.nan

    columns["train_seconds"] = total(own, "train_seconds")
    columns["train_seconds_with_members"] = columns["train_seconds"] + total(pool, "train_seconds")
    columns["student_passes"] = total(own, "student_passes")
    columns["teacher_passes"] = total(own, "teacher_passes")
    columns["member_passes"] = total(pool, "student_passes")
    return columns


def _with_time(part: dict[str, Any]) -> dict[str, Any]:
    """A part that is fitted outside the training loop, as forests are, counts with the whole time it took."""
    return part if part.get("logs", True) else part | {"train_seconds": part["seconds"]}


def _mean_cost(cells: Sequence[Cell], store: Store) -> dict[str, Any]:
    """The cost of a method; its mean over repetitions where a pool mixes networks, so that repetitions differ."""
    distinct = {cell.cost: store.known("cost", cell.cost) for cell in cells}
    if len(distinct) < 2:
        return next(iter(distinct.values()), {})
    each = [distinct[cell.cost] for cell in cells]
    return each[0] | {name: float(np.mean([cost.get(name, np.nan) for cost in each])) for name in _COUNTS}


def _unit_cost(plan: Plan, store: Store) -> dict[str, Any]:
    """Cost of one member: that of a reference method of size 1."""
    return _mean_cost([cell for cell in plan.cells if cell.is_reference and cell.size == 1], store)


def latency_columns(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Times of the deployable form in each runtime; ``latency_*`` columns are those of eager torch."""
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
