"""Wall-clock in each runtime: which is a method's best, and where FLOPs flatter it.  For rows that have the times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.report.load import Results
from benchmarks.report.tables.formatting import MISSING, Block, Cell, Table, ratio_text

# A method whose time relative to one network exceeds its FLOPs by more than this factor is named.
_FLATTERED = 1.1


@dataclass(frozen=True)
class Best:
    """The runtime in which a prediction takes least time, and that time relative to one network's in it."""

    runtime: str
    ms: float
    ratio: float


def best_runtime(row: pd.Series, place: str) -> Best | None:
    """Of a row of the summary at ``b1`` (batch 1) or at the suite's ``batch``; None where nothing was timed."""
    timed = [
        Best(runtime, row[f"{prefix}_{place}_p50_ms"], row[f"{prefix}_{place}_ratio"])
        for runtime, prefix in RUNTIME_PREFIXES.items()
        if math.isfinite(row.get(f"{prefix}_{place}_p50_ms", math.nan))
    ]
    return min(timed, key=lambda best: best.ms, default=None)


def flattered(results: Results) -> list[str]:
    """A sentence for each method, but no ensemble or control, that takes longer than its FLOPs say."""
    sentences: list[str] = []
    if not results.runtimes:
        return sentences
    for _, row in results.others[~results.others["control"]].iterrows():
        for place, batch in _places(results).items():
            best = best_runtime(row, place)
            if best and best.ratio > _FLATTERED * row["macs_rel"]:
                about = "about " if row["latency_noisy"] else ""
                sentences.append(
                    f"At batch {batch} {row['label']} (size {row['size']}) takes {about}{best.ratio:.2f} times a "
                    f"single network's time in its best runtime ({best.runtime}), though {row['macs_rel']:.2f} times "
                    "its FLOPs."
                )
    return sentences


def runtimes_table(results: Results) -> Table | None:
    """Median times in each runtime, and the best one's relative to one network; None for rows without such times."""
    frame = results.summary
    if not results.runtimes:
        return None
    columns: dict[str, list[str]] = {
        "Method": frame["label"].tolist(),
        "Size": [str(size) for size in frame["size"]],
        "FLOPs rel.": [ratio_text(x) for x in frame["macs_rel"]],
    }
    for place, batch in _places(results).items():
        for runtime in results.runtimes:
            times = frame[f"{RUNTIME_PREFIXES[runtime]}_{place}_p50_ms"]
            columns[f"{runtime}, batch {batch} (ms)"] = [f"{x:.3g}" if math.isfinite(x) else MISSING for x in times]
        best = [best_runtime(row, place) for _, row in frame.iterrows()]
        columns[f"Best runtime, batch {batch}"] = [found.runtime if found else MISSING for found in best]
        columns[f"Rel., batch {batch}"] = [
            ratio_text(found.ratio, noisy) if found else MISSING
            for found, noisy in zip(best, frame["latency_noisy"], strict=True)
        ]
    rows = [[Cell(text) for text in row] for row in zip(*columns.values(), strict=True)]
    return Table(list(columns), [Block("", rows)])


def _places(results: Results) -> Mapping[str, str]:
    return {"b1": "1", "batch": str((results.meta.get("latency") or {}).get("batch_size", "large"))}
