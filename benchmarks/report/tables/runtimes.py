"""Time of a prediction in each runtime, and methods that are slower than their FLOPs suggest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import MISSING, ReportTable, TableBlock, TableCell, ratio_text

# A method is named if its relative time exceeds its relative FLOPs by more than this factor.
_SLOWER = 1.1


@dataclass(frozen=True)
class BestRuntime:
    """The fastest runtime of a row, its median time, and that time relative to one network's in the same runtime."""

    runtime: str
    ms: float
    ratio: float


def best_runtime(row: pd.Series, place: str) -> BestRuntime | None:
    """Of a row of the summary at ``b1`` (batch 1) or at the suite's ``batch``; None if nothing was timed."""
    timed = [
        BestRuntime(runtime, row[f"{prefix}_{place}_p50_ms"], row[f"{prefix}_{place}_ratio"])
        for runtime, prefix in RUNTIME_PREFIXES.items()
        if math.isfinite(row.get(f"{prefix}_{place}_p50_ms", math.nan))
    ]
    return min(timed, key=lambda best: best.ms, default=None)


def slower_than_flops(results: Results) -> list[str]:
    """A sentence for each method that takes longer than its FLOPs suggest; ensembles and controls are left out."""
    sentences: list[str] = []
    if not results.runtimes:
        return sentences
    for _, row in results.others[~results.others["control"]].iterrows():
        for place, batch in _places(results).items():
            best = best_runtime(row, place)
            if best and best.ratio > _SLOWER * row["macs_rel"]:
                about = "about " if row["latency_noisy"] else ""
                sentences.append(
                    f"At batch {batch}, {row['label']} (size {row['size']}) in its fastest runtime ({best.runtime}) "
                    f"takes {about}{best.ratio:.2f} times as long as one network, for {row['macs_rel']:.2f} times the "
                    "FLOPs."
                )
    return sentences


def runtimes_table(results: Results) -> ReportTable | None:
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
    rows = [[TableCell(text) for text in row] for row in zip(*columns.values(), strict=True)]
    return ReportTable(list(columns), [TableBlock("", rows)])


def _places(results: Results) -> Mapping[str, str]:
    return {"b1": "1", "batch": str((results.meta.get("latency") or {}).get("batch_size", "large"))}
