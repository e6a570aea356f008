"""Published figures next to the suite's own: which rows belong together, as a table, as data and as footnotes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from benchmarks.published import MARKS, PublishedFigure
from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import (
    MISSING,
    ReportTable,
    TableBlock,
    TableCell,
    dee_cells,
    ratio_text,
    score_cells,
)
from benchmarks.report.tables.main import DEE_NAMES, class_digits

# Columns of the table, and the column of the summary that holds ours if its name differs.
METRICS = ("acc", "nll", "brier", "ece", "cnll", "cbrier", "cece", "dee_raw", "dee_cal", "flops_rel", "params_rel")
_RATIOS = {"flops_rel": "macs_rel", "params_rel": "params_rel"}
_RATIO_NAMES = {"flops_rel": "FLOPs rel.", "params_rel": "Params rel."}
_FAMILIES = {
    "de": "Deep ensembles (DE)",
    "ed": "Ensemble distillation (ED)",
    "end2": "Ensemble distribution distillation (END²)",
    "bn": "Bridge Networks (BN)",
    "dbn": "Diffusion Bridge Networks (DBN)",
}
_SHORT = {"de": "DE", "ed": "ED", "end2": "END²", "bn": "BN", "dbn": "DBN"}
DEE_KINDS = (
    "The DEE of Kim et al. (2024, DBN) is on raw NLL and that of Yun et al. (2023, BN) on calibrated NLL: the two "
    "are not comparable."
)


@dataclass(frozen=True)
class PublishedLine:
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
        return _SHORT.get(self.method, self.method) + (f" ({self.variant})" if self.variant else "")

    @property
    def text(self) -> str:
        """Its name in the table."""
        bridges = f"{self.bridges} bridge{'s'[: self.bridges != 1]}" if self.bridges else ""
        return ", ".join(part for part in (f"{self.paper}: {self.network}", bridges, self.variant) if part)

    def matches(self, row: pd.Series) -> bool:
        """Whether a row of the summary has the same method family, size and, for DBN, number of bridges."""
        if (row["family"], row["size"]) != (self.method, self.size):
            return False
        if self.method != "dbn" or self.bridges is None:
            return True
        # L bridges of g members each cover L (g - 1) + 1 members; a spec leaves out the default, 3.
        found = re.search(r"\bmembers_per_bridge=(\d+)", row["method"])
        return self.bridges * ((int(found[1]) if found else 3) - 1) + 1 == self.size


def published_lines(results: Results) -> list[PublishedLine]:
    """Return the published lines of every method family that the suite measures, by family and size.

    If a paper's artefacts give a value twice, the first in the file counts.
    """
    found: dict[tuple[Any, ...], PublishedLine] = {}
    families = list(dict.fromkeys(results.summary["family"]))
    for figure in results.published.figures if results.published else ():
        if figure.method not in families or figure.size is None or figure.size_kind != "members":
            continue
        key = (figure.paper_name, figure.network, figure.method, figure.variant, figure.bridges, figure.size)
        found.setdefault(key, PublishedLine(*key)).figures.setdefault(figure.metric, figure)
    return sorted(found.values(), key=lambda line: (families.index(line.method), line.size))


def matched(results: Results) -> list[tuple[pd.DataFrame, list[PublishedLine]]]:
    """Return our rows and the published lines that match one of them, one pair a method family and size."""
    groups: dict[tuple[str, int], list[PublishedLine]] = {}
    for line in published_lines(results):
        groups.setdefault((line.method, line.size), []).append(line)
    pairs = []
    for lines in groups.values():
        ours = results.summary[[any(line.matches(row) for line in lines) for _, row in results.summary.iterrows()]]
        theirs = [line for line in lines if any(line.matches(row) for _, row in ours.iterrows())]
        if theirs:
            pairs.append((ours, theirs))
    return pairs


def published_table(results: Results) -> ReportTable | None:
    """Return our rows, each followed by the published ones of its family and size; None if there are none."""
    pairs = matched(results)
    known = {name for _, lines in pairs for line in lines for name, f in line.figures.items() if f.value is not None}
    metrics = [metric for metric in METRICS if metric in known]
    if not metrics:
        return None
    ours = {metric: _our_cells(results, metric) for metric in metrics}
    blocks: dict[str, TableBlock] = {}
    for rows, lines in pairs:
        family = lines[0].method
        block = blocks.setdefault(family, TableBlock(_FAMILIES.get(family, family)))
        for index, row in rows.iterrows():
            values = (ours[metric][index] for metric in metrics)
            block.rows.append([TableCell(row["label"]), TableCell(str(row["size"])), *values])
        for line in lines:
            texts = (line.text, str(line.size), *(figure_text(line.figures.get(metric)) for metric in metrics))
            block.rows.append([TableCell(text, "published") for text in texts])
    names = {name: score.heading for name, score in results.task.scores.items()} | DEE_NAMES | _RATIO_NAMES
    return ReportTable(["Method", "Size", *(names[metric] for metric in metrics)], list(blocks.values()))


def figure_text(figure: PublishedFigure | None) -> str:
    """Return a published value with its digits, spread and mark: `92.98 ± 0.16 (NB)`, `≈ 0.240 (DER)`, `– (?†)`.

    A dagger says that the value has a note.
    """
    if figure is None:
        return MISSING
    shift = 2 if figure.unit == "fraction" else 0
    if figure.value is None:
        text = MISSING
    elif figure.below_one:
        text = "< 1"
    else:
        text = f"{figure.value.scaleb(shift):f}" + ("×" if figure.unit == "ratio" else "")
        text = text if figure.primary else f"≈ {text}"
        text += f" ± {figure.spread.scaleb(shift):f}" if figure.spread is not None else ""
    return f"{text} ({figure.provenance}{'†' if figure.note else ''})"


def published_notes(results: Results) -> list[str]:
    """Return what a reader of the table must know: marks, conventions, and the notes of single values."""
    plotted = [(line, figure) for _, lines in matched(results) for line in lines for figure in line.figures.values()]
    used = {figure.provenance for _, figure in plotted}
    marks = "; ".join(f"{mark}, {text}" for mark, text in MARKS.items() if mark in used)
    spreads = _grouped((figure.spread_kind, line) for line, figure in plotted if figure.spread is not None)
    unknown = "the kind of spread is not stated"
    notes = [
        f"The mark after a published value says where it comes from: {marks}. ≈ marks values that the authors did not "
        "release, † a value with a note below.",
        "The two ± differ: ours is half of the 95 % interval over repetitions, theirs the spread that they give.",
        *(f"± of {names}: {unknown if kind == 'not stated' else kind}." for kind, names in spreads.items()),
        f"{DEE_KINDS} Each is measured against its own paper's deep ensembles, ours against this suite's.",
    ]
    if any(figure.metric == "flops_rel" for _, figure in plotted):
        notes.append(
            "Relative FLOPs: ours count the multiply-adds of convolutions and linear layers, theirs come from the "
            "authors' own counter, which seems to count element-wise operations as well. The two differ by less than "
            "0.01 a bridge: for one DBN on the CIFAR-10 network, the paper has 1.166 and our count is 1.158."
        )
    details = _grouped((figure.note, line) for line, figure in plotted if figure.note)
    return [*notes, *(f"{names}: {note}." for note, names in details.items())]


def published_frame(results: Results) -> pd.DataFrame:
    """Return the published figures of the table as data: one row a value, with its spread, source and mark."""
    rows = [
        figure.model_dump(exclude={"size_kind", "data"}) | {"label": line.kind}
        for _, lines in matched(results)
        for line in lines
        for figure in line.figures.values()
    ]
    frame = pd.DataFrame(rows).rename(columns={"method": "family"})
    return frame.astype({"bridges": "Int64", "value": float, "spread": float})


def comparable(line: PublishedLine, curve: str) -> tuple[float, float, bool] | None:
    """Return relative FLOPs, the DEE of that curve, and whether both are the authors' own.

    None for deep ensembles (the diagonal) and if one of the two is unknown.
    """
    cost, worth = line.figures.get("flops_rel"), line.figures.get(curve)
    if line.method == "de" or cost is None or worth is None or cost.value is None or worth.value is None:
        return None
    return float(cost.value), float(worth.value), cost.primary and worth.primary


def _our_cells(results: Results, metric: str) -> dict[Any, TableCell]:
    """Our cells by index of the summary."""
    frame = results.summary
    if metric in _RATIOS:
        cells = [TableCell(ratio_text(value)) for value in frame[_RATIOS[metric]]]
    elif metric in DEE_NAMES:
        cells = dee_cells(frame, metric, results.max_size)
    else:
        score = results.task.scores[metric]
        cells = [TableCell(cell.text) for cell in score_cells(frame, metric, score, class_digits(results, metric))]
    return dict(zip(frame.index, cells, strict=True))


def _grouped(pairs: Iterable[tuple[str, PublishedLine]]) -> dict[str, str]:
    """Name the lines that share a text: `Kim et al. (2024), ED (size 3, 5); Kim et al. (2024), END² (size 3)`."""
    groups: dict[str, dict[str, dict[str, None]]] = {}
    for text, line in pairs:
        groups.setdefault(text, {}).setdefault(f"{line.paper}, {line.kind}", {})[str(line.size)] = None
    return {
        text: "; ".join(f"{name} (size {', '.join(sizes)})" for name, sizes in found.items())
        for text, found in groups.items()
    }
