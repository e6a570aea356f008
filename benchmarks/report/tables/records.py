"""Numbers that methods recorded in training: a table for each method, and what its numbers mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import MISSING, ReportTable, TableBlock, TableCell, decimals, with_interval


@dataclass(frozen=True)
class Recorded:
    """The numbers of one method: a row for each training, a column for each number."""

    method: str
    table: ReportTable
    meanings: list[str]


def recorded_tables(results: Results) -> list[Recorded]:
    """The tables of all methods that recorded something."""
    if results.records is None or results.records.empty:
        return []
    meanings = results.meta.get("recorded") or {}
    return [
        Recorded(str(family), _table(frame, results.summary), _lines(frame, meanings.get(family, {})))
        for family, frame in results.records.groupby("family", sort=False)
    ]


def _table(frame: pd.DataFrame, summary: pd.DataFrame) -> ReportTable:
    names = list(dict.fromkeys(frame["name"]))
    planned = summary.set_index(["label", "size"])["n"]
    # A training that several methods share has one row.
    users: dict[tuple[str, ...], dict[tuple[str, int], pd.DataFrame]] = {}
    for _, group in frame.groupby(["label", "size", "part"], sort=False):
        trainings = tuple(dict.fromkeys(group["training"]))
        users.setdefault(trainings, {})[str(group["label"].iloc[0]), int(group["size"].iloc[0])] = group
    rows = []
    for whose in users.values():
        (first, group), labels = next(iter(whose.items())), list(dict.fromkeys(label for label, _ in whose))
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        sizes = ", ".join(map(str, sorted({size for _, size in whose})))
        repetitions = max(int(planned.get(first, 0)), group["repetition"].nunique())
        cells = [_cell(group.loc[group["name"] == name, "value"], repetitions) for name in names]
        rows.append([TableCell(labels[0] + more), TableCell(sizes), TableCell(str(group["part"].iloc[0])), *cells])
    return ReportTable(["Method", "Size", "Training", *names], [TableBlock("", rows)])


def _cell(values: pd.Series, repetitions: int) -> TableCell:
    """The mean of the repetitions that recorded the number, how many where that is not all, and its interval."""
    from benchmarks.statistics import Means  # here, since reports without records need no SciPy

    known = values.dropna().to_numpy()
    if not len(known):
        return TableCell(MISSING if values.empty else "not finite")
    mean = Means(known[None, :, None]).interval()
    half = (mean.high - mean.low) / 2
    digits = decimals([half], 0, 99)
    if not half > 0 or digits > 6:  # without an interval, or too small for decimals
        text = f"{mean.value:.4g}" + (f" ± {half:.2g}" if math.isfinite(half) else "")
    else:
        text = with_interval(mean.value, mean.low, mean.high, digits)
    return TableCell(text + (f" ({len(known)} of {repetitions})" if len(known) < repetitions else ""))


def _lines(frame: pd.DataFrame, meanings: dict[str, str]) -> list[str]:
    """A line for each meaning, with the numbers that have it."""
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(frame["name"]):
        if name in meanings:
            names.setdefault(meanings[name], []).append(name)
    return [f"{', '.join(those)}: {meaning}." for meaning, those in names.items()]
