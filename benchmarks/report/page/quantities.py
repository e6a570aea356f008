"""What the figure of the explorable report may show: quantities for its axes, families, and the rows behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmarks.report.load import Results
from benchmarks.report.tables.formatting import PERCENT, SCORE_NAMES

_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
_IS_DEE = "indexof({axis}, 'dee_') == 0"

COST_NAMES = {
    "macs_rel": "FLOPs (one network = 1)",
    "flops": "FLOPs per example",
    "params_rel": "Parameters (one network = 1)",
    "params": "Parameters",
    "latency_b1_ratio": "Latency at batch 1 (one network = 1)",
    "latency_b1_p50_ms": "Latency at batch 1, median (ms)",
    "latency_batch_ratio": "Latency at a large batch (one network = 1)",
    "latency_onnxruntime_b1_ratio": "Latency at batch 1 in onnxruntime (one network = 1)",
    "latency_onnxruntime_batch_ratio": "Latency at a large batch in onnxruntime (one network = 1)",
    "throughput_examples_per_s": "Throughput (examples a second)",
    "train_member_equivalents": "Training, at most (one member = 1)",
    "train_seconds_with_members": "Training with the members that it needs (s)",
    "train_seconds": "Its own training (s)",
    "student_passes": "Example-passes through what it trains",
    "teacher_passes": "Example-passes through its teachers",
    "size": "Ensemble members covered",
}


def quantities(results: Results) -> dict[str, str]:
    """Return what may stand on an axis: a column without `_mean`, and its title; only what the rows have.

    Any triple of columns `<score>_mean`, `_low` and `_high` is a score, any `dee_<kind>` with `_low` and `_high` an
    equivalent.
    """
    summary = results.summary
    names = [str(name) for name in summary]
    scores = [name[:-5] for name in names if name.endswith("_mean") and _has_interval(name[:-5], names)]
    dees = [name for name in names if name.startswith("dee_") and _has_interval(name, names)]
    titles = {name: f"DEE ({_kind(name)}), members ↑" for name in dees}
    titles |= {name: SCORE_NAMES.get(name, name.replace("_", " ")) for name in scores}
    titles |= {name: title for name, title in COST_NAMES.items() if name in summary}
    if task := results.task:  # whose scores and equivalents have titles, and whose sizes may count something else
        titles |= {name: score_title(name, score) for name, score in task["scores"].items() if name in scores}
        titles = {name: "Equivalent members ↑" for name in task["curves"] if name in summary} | titles
        titles |= {"size": task["axis"][1].capitalize()} if task["axis"][0] == "size" else {}
    columns = {name: f"{name}_mean" if name in scores else name for name in titles}
    return {name: title for name, title in titles.items() if _numbers(summary[columns[name]]).notna().any()}


def score_title(name: str, score: Mapping[str, Any]) -> str:
    """Return the heading of a task's score: its title, with % and the arrow of the better direction."""
    return str(score["title"]) + (" %" if score["percent"] else "") + _ARROWS[score["better"]]


def equivalents(results: Results) -> str:
    """A test, with {axis} for an axis, of whether it shows an equivalent, as the figure's expressions are written."""
    return f"indexof({json.dumps(results.task['curves'])}, {{axis}}) >= 0" if results.task else _IS_DEE


def factor(results: Results, name: str) -> int:
    """What a quantity is multiplied by to be shown: 100 where that is in per cent."""
    if results.task:
        return 100 if results.task["scores"].get(name, {}).get("percent") else 1
    return 100 if name.split("_")[0] in PERCENT else 1


def _has_interval(name: str, names: list[str]) -> bool:
    return f"{name}_low" in names and f"{name}_high" in names


def _kind(name: str) -> str:
    return {"raw": "raw", "cal": "calibrated"}.get(name[4:], name[4:].replace("_", " "))


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")


def data(results: Results) -> list[dict[str, Any]]:
    """Return the rows behind the figure as JSON takes them: as in `summary.csv`, infinite values as text."""
    summary = results.summary
    columns: dict[str, list[Any]] = {
        **{name: summary[name].tolist() for name in ("label", "family", "n", "control", "latency_noisy")},
        "reference": (summary["family"] == results.reference_family).tolist(),
        **({"name": summary["name"].tolist()} if "name" in summary else {}),
        "size": summary["size"].tolist(),
    }
    for name in quantities(results):
        mean = f"{name}_mean" if f"{name}_mean" in summary else name
        for key, column in ((name, mean), (f"{name}_low", f"{name}_low"), (f"{name}_high", f"{name}_high")):
            if column in summary:
                columns[key] = [_json(value) for value in _numbers(summary[column]).tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def families(results: Results) -> dict[str, str]:
    """Return the families and what they are called: what their labels begin with, or a whole label in case of doubt."""
    first = results.summary.drop_duplicates("family")
    if results.task:  # a method's labels may have nothing in common
        counts = results.summary.groupby("family")["label"].nunique()
        pairs = zip(first["family"], first["label"], strict=True)
        return {family: label if counts[family] == 1 else family for family, label in pairs}
    names = {family: label.split(" (")[0] for family, label in zip(first["family"], first["label"], strict=True)}
    taken = list(names.values())
    whole = dict(zip(first["family"], first["label"], strict=True))
    return {family: name if taken.index(name) == i else whole[family] for i, (family, name) in enumerate(names.items())}
