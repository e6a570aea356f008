"""Published figures beside the suite's own: which rows belong together, as a table, as data and as footnotes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from benchmarks.published import MARKS, PublishedFigure
from benchmarks.report.load import REFERENCE_FAMILY, Results
from benchmarks.report.tables.formatting import (
    MISSING,
    PERCENT,
    SCORE_NAMES,
    Block,
    Cell,
    Table,
    dee_text,
    ratio_text,
    score_cells,
)

# Columns of the table, and the column of the summary that holds ours where the name differs.
METRICS = ("acc", "nll", "brier", "ece", "cnll", "cbrier", "cece", "dee_raw", "dee_cal", "flops_rel", "params_rel")
_RATIOS = {"flops_rel": "macs_rel", "params_rel": "params_rel"}
_NAMES = SCORE_NAMES | {
    "dee_raw": "DEE (raw) ↑",
    "dee_cal": "DEE (calibrated) ↑",
    "flops_rel": "FLOPs rel.",
    "params_rel": "Params rel.",
}
_FAMILIES = {
    "de": "Deep ensembles (DE)",
    "ed": "Ensemble distillation (ED)",
    "end2": "Ensemble distribution distillation (END²)",
    "bn": "Bridge Networks (BN)",
    "dbn": "Diffusion Bridge Networks (DBN)",
}
DEE_KINDS = (
    "The DEE of Kim et al. (2024, DBN) is on raw NLL and that of Yun et al. (2023, BN) on calibrated NLL: the two "
    "are not comparable."
)
SHORT = {"de": "DE", "ed": "ED", "end2": "END²", "bn": "BN", "dbn": "DBN"}


@dataclass(frozen=True)
class Line:
    """What one paper says of one method at one size: figures by metric."""

    paper: str
    network: str
    method: str
    variant: str
    bridges: int | None
    size: int
    figures: dict[str, PublishedFigure] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Method and variant, for example `BN (medium)`."""
        return SHORT.get(self.method, self.method) + (f" ({self.variant})" if self.variant else "")

    @property
    def text(self) -> str:
        """What the table calls it."""
        bridges = f"{self.bridges} bridge{'s'[: self.bridges != 1]}" if self.bridges else ""
        return ", ".join(part for part in (f"{self.paper}: {self.network}", bridges, self.variant) if part)


def lines(results: Results) -> list[Line]:
    """Return the published lines of every method family that the suite measures, by family and size.

    Where a paper's artefacts give a value twice, the first in the file counts.
    """
    found: dict[tuple[Any, ...], Line] = {}
    families = list(dict.fromkeys(results.summary["family"]))
    for figure in results.published.figures if results.published else ():
        if figure.method not in families or figure.size is None or figure.size_kind != "members":
            continue
        key = (figure.paper_name, figure.network, figure.method, figure.variant, figure.bridges, figure.size)
        found.setdefault(key, Line(*key)).figures.setdefault(figure.metric, figure)
    return sorted(found.values(), key=lambda line: (families.index(line.method), line.size))


def matches(line: Line, row: pd.Series) -> bool:
    """Whether a row of the summary has the line's method family, size and, for DBN, number of bridges."""
    if (row["family"], row["size"]) != (line.method, line.size):
        return False
    if line.method != "dbn" or line.bridges is None:
        return True
    # L bridges of groups of g members cover L (g - 1) + 1 members; a spec names only what differs from the default 3.
    members = int(found[1]) if (found := re.search(r"\bmembers_per_bridge=(\d+)", row["method"])) else 3
    return line.bridges * (members - 1) + 1 == line.size


def beside(results: Results) -> list[tuple[pd.DataFrame, list[Line]]]:
    """Return our rows and the published lines that belong beside them, one pair a method family and size."""
    summary, pairs = results.summary, []
    known = lines(results)
    for key in dict.fromkeys((line.method, line.size) for line in known):
        same = [line for line in known if (line.method, line.size) == key]
        chosen = [any(matches(line, row) for line in same) for _, row in summary.iterrows()]
        ours = summary[pd.Series(chosen, index=summary.index)]
        theirs = [line for line in same if any(matches(line, row) for _, row in ours.iterrows())]
        if theirs:
            pairs.append((ours, theirs))
    return pairs


def published_table(results: Results) -> Table | None:
    """Return our rows, each followed by the published ones of its family and size; nothing when there are none."""
    pairs = beside(results)
    metrics = _metrics(line for _, theirs in pairs for line in theirs)
    if not metrics:
        return None
    ours = {metric: _our_cells(results, metric) for metric in metrics}
    blocks: dict[str, Block] = {}
    for rows, theirs in pairs:
        family = theirs[0].method
        block = blocks.setdefault(family, Block(_FAMILIES.get(family, family)))
        for index, row in rows.iterrows():
            values = (ours[metric][index] for metric in metrics)
            block.rows.append([Cell(row["label"]), Cell(str(row["size"])), *values])
        for line in theirs:
            values = (Cell(figure_text(line.figures.get(metric)), "published") for metric in metrics)
            block.rows.append([Cell(line.text, "published"), Cell(str(line.size), "published"), *values])
    return Table(["Method", "Size", *(_NAMES[metric] for metric in metrics)], list(blocks.values()))


def figure_text(figure: PublishedFigure | None) -> str:
    """Return a published value with its digits, spread and mark: `92.98 ± 0.16 (NB)`, `≈ 0.240 (DER)`, `– (?†)`.

    A dagger says that the value has a note.
    """
    if figure is None:
        return MISSING
    if figure.value is None:
        text = MISSING
    elif figure.below_one:
        text = "< 1"
    else:
        shift = 2 if figure.metric in PERCENT else 0
        text = f"{figure.value.scaleb(shift):f}" + ("×" if figure.metric in _RATIOS else "")
        text = text if figure.primary else f"≈ {text}"
        text += f" ± {figure.spread.scaleb(shift):f}" if figure.spread is not None else ""
    return f"{text} ({figure.provenance}{'†' if figure.note else ''})"


def published_notes(results: Results) -> list[str]:
    """Return what must be known to read the table: marks, conventions, and the notes of single values."""
    shown = [figure for _, theirs in beside(results) for line in theirs for figure in line.figures.values()]
    if not shown:
        return []
    used = {figure.provenance for figure in shown}
    marks = "; ".join(f"{mark}, {text}" for mark, text in MARKS.items() if mark in used)
    spreads = _grouped((figure.spread_kind, figure) for figure in shown if figure.spread is not None)
    notes = [
        f"Behind each published value stands where it comes from: {marks}. "
        "≈ marks what no artefact of the authors states, † a value with a note below.",
        "The two ± are not the same quantity: ours is half of the 95 % interval over repetitions, theirs the spread "
        "that they give.",
        *(f"± of {names}: {_kind(kind)}." for kind, names in spreads.items()),
        f"{DEE_KINDS} Each is measured against its own paper's deep ensembles, ours against this suite's.",
    ]
    if any(figure.metric == "flops_rel" for figure in shown):
        notes.append(
            "Relative FLOPs: ours count the multiply-adds of convolutions and linear layers alone, theirs come from "
            "the authors' own counter, which seems to count element-wise work as well. Where we could check, the two "
            "differ by less than 0.01 a bridge: one DBN on the CIFAR-10 network is 1.166 in the paper and 1.158 in our "
            "count."
        )
    details = _grouped((figure.note, figure) for figure in shown if figure.note)
    return [*notes, *(f"{names}: {note}." for note, names in details.items())]


def published_frame(results: Results) -> pd.DataFrame:
    """Return the table as data: one row a value, ours with its interval, theirs with spread, source and mark."""
    pairs = beside(results)
    metrics = _metrics(line for _, theirs in pairs for line in theirs)
    rows: list[dict[str, Any]] = []
    for ours, theirs in pairs:
        for _, row in ours.iterrows():
            name = {"family": row["family"], "size": row["size"], "paper": "this suite", "label": row["label"]}
            rows += [name | {"metric": metric} | _our_value(row, metric) for metric in metrics]
        for line in theirs:
            name = {"family": line.method, "size": line.size, "label": line.kind}
            for metric, figure in line.figures.items():
                if metric in metrics:
                    value = None if figure.value is None else float(figure.value)
                    own = figure.model_dump(exclude={"size", "size_kind", "method", "data"})
                    spread = None if figure.spread is None else float(figure.spread)
                    rows.append(own | name | {"metric": metric, "value": value, "spread": spread})
    columns = ["family", "size", "paper", "label", "network", "variant", "bridges", "metric", "value", "low", "high"]
    frame = pd.DataFrame(rows, columns=[*columns, "spread", "spread_kind", "provenance", "source", "note"])
    return frame.astype({"bridges": "Int64"})


def _metrics(known: Iterable[Line]) -> list[str]:
    """The metrics that at least one line has a value for, in the order of the columns."""
    found = {metric for line in known for metric, figure in line.figures.items() if figure.value is not None}
    return [metric for metric in METRICS if metric in found]


def _our_cells(results: Results, metric: str) -> dict[Any, Cell]:
    """Our cells by index of the summary."""
    frame = results.summary
    if metric in _RATIOS:
        cells = [Cell(ratio_text(value)) for value in frame[_RATIOS[metric]]]
    elif metric.startswith("dee_"):
        values = zip(frame[metric], frame[f"{metric}_low"], frame[f"{metric}_high"], strict=True)
        cells = [Cell(dee_text(*value, results.max_size)) for value in values]
    else:
        cells = [Cell(cell.text) for cell in score_cells(frame, metric)]
    return dict(zip(frame.index, cells, strict=True))


def _our_value(row: pd.Series, metric: str) -> dict[str, float]:
    if metric in _RATIOS:
        return {"value": row[_RATIOS[metric]]}
    value = metric if metric.startswith("dee_") else f"{metric}_mean"
    return {"value": row[value]} | {end: row[f"{metric}_{end}"] for end in ("low", "high")}


def _kind(spread_kind: str) -> str:
    return "the kind of spread is not stated" if spread_kind == "not stated" else spread_kind


def _grouped(pairs: Iterable[tuple[str, PublishedFigure]]) -> dict[str, str]:
    """Name the figures that share a text: `Kim et al. (2024), ED size 3, 5 (ACC); END² size 3 (ACC)`."""
    groups: dict[str, dict[str, dict[str, list[PublishedFigure]]]] = {}
    for text, figure in pairs:
        method = SHORT.get(figure.method, figure.method) + (f" ({figure.variant})" if figure.variant else "")
        groups.setdefault(text, {}).setdefault(figure.paper_name, {}).setdefault(method, []).append(figure)
    return {
        text: "; ".join(f"{paper}, {'; '.join(_name(*item) for item in found.items())}" for paper, found in by.items())
        for text, by in groups.items()
    }


def _name(method: str, figures: list[PublishedFigure]) -> str:
    sizes = sorted({figure.size or 0 for figure in figures})
    run = len(sizes) > 2 and sizes[-1] - sizes[0] == len(sizes) - 1
    which = f"{sizes[0]} to {sizes[-1]}" if run else ", ".join(map(str, sizes))
    metrics = [_NAMES[metric] for metric in METRICS if metric in {figure.metric for figure in figures}]
    plain = (re.sub(r" [%↑↓].*| rel\..*|[()]", "", name) for name in metrics)
    return f"{method} size {which} ({', '.join(plain)})"


def comparable(line: Line, kind: str) -> tuple[float, float, bool] | None:
    """Return relative FLOPs, DEE of that kind ("raw" or "cal") and whether both are the authors' own.

    Nothing for deep ensembles (the diagonal) and where one of the two is unknown.
    """
    cost, worth = line.figures.get("flops_rel"), line.figures.get(f"dee_{kind}")
    if line.method == REFERENCE_FAMILY or cost is None or worth is None or cost.value is None or worth.value is None:
        return None
    x, y = float(cost.value), float(worth.value)
    return (x, y, cost.primary and worth.primary) if math.isfinite(x) else None
