"""The tables that every report has: scores and cost, sizes, paired differences, and how settings were chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.report.load import Tuning
from benchmarks.report.model import ENDS, EXTERNAL_FAMILY, Results, ScoreInfo
from benchmarks.report.tables.formatting import (
    MISSING,
    ReportTable,
    TableBlock,
    TableCell,
    dee_cells,
    difference_text,
    fit_text,
    p_text,
    ratio_text,
    score_cells,
    seconds_text,
    significant,
)

DEE_NAMES = {"dee_raw": "DEE (raw) ↑", "dee_cal": "DEE (calibrated) ↑", "dee_augrc": "DEE (AUGRC) ↑"}
_CHOSEN = {"validation": "validation", "test": "test (!)", "paper": "the paper"}
# Of classification: the scores of the tables, in this order; those after the costs are details.
_FIRST, _SECOND = ("acc", "nll", "cnll"), ("brier", "ece", "ece_debiased", "cece", "cece_debiased", "kl_to_ensemble")
_OMITTED = ("cbrier",)
_SIZES = ("acc", "nll", "cnll")
_COMPARED = (*_SIZES, "augrc")
_LEAST_DIGITS = 3  # of scores that are no percentages


def dee_name(curve: str) -> str:
    """Return the heading of a deep-ensemble equivalent."""
    return DEE_NAMES.get(curve, "equivalent members ↑")


def class_digits(results: Results, name: str) -> tuple[int, int] | None:
    """The least and the most decimals of a score; None leaves them to its intervals."""
    return (_LEAST_DIGITS, 4) if results.classifies and not results.task.scores[name].percent else None


def main_table(results: Results) -> ReportTable:
    """Return the table of scores and cost: the reference first, then the other methods."""
    scores = results.scores_of("main")
    first = [name for name in scores if name in _FIRST] if results.classifies else list(scores)
    rest = [name for name, score in scores.items() if score.better and name not in (*_FIRST, *_SECOND, *_OMITTED)]
    second = [*(name for name in _SECOND if name in scores), *rest] if results.classifies else []
    costs, details = _costs(results)
    columns = score_columns(results, first) | equivalents(results, results.curves_of("main")) | costs
    more = score_columns(results, second)
    more |= {name: cells for name, cells in details.items() if any(cell.text != MISSING for cell in cells)}
    return in_blocks(results, columns | more, frozenset(more))


def in_blocks(
    results: Results, columns: dict[str, list[TableCell]], details: frozenset[str] = frozenset()
) -> ReportTable:
    """Return a table of columns with a cell for each row of the summary, the reference first."""
    frame = results.summary
    labels, sizes = ([TableCell(str(value)) for value in frame[name]] for name in ("label", "size"))
    columns = {"Method": labels, "Size": sizes} | columns
    blocks = [
        TableBlock("Reference"),
        TableBlock("Other methods"),
        TableBlock("Controls"),
        TableBlock("From outside, cost as stated"),
    ]
    rows = zip(*columns.values(), strict=True)
    for row, family, control in zip(rows, frame["family"], frame["control"], strict=True):
        place = 0 if family == results.task.reference else 3 if family == EXTERNAL_FAMILY else 2 if control else 1
        blocks[place].rows.append(list(row))
    chosen = frame[frame["added"]]
    added = frozenset(zip(chosen["label"], chosen["size"].astype(str), strict=True))
    return ReportTable(list(columns), [block for block in blocks if block.rows], details=details, added=added)


def score_columns(results: Results, names: Iterable[str]) -> dict[str, list[TableCell]]:
    """The columns of scores, by heading."""
    known = {name: results.scores[name] for name in names}
    return {
        score.heading: score_cells(results.summary, name, score, class_digits(results, name))
        for name, score in known.items()
    }


def equivalents(results: Results, curves: Iterable[str]) -> dict[str, list[TableCell]]:
    """The columns of equivalents, each followed by that on the fitted curve if it says something."""
    frame, columns = results.summary, {}
    for curve in curves:
        columns[dee_name(curve)] = dee_cells(frame, curve, results.max_size)
        # Within the measured sizes the fitted curve would contradict the measured one.
        beyond = np.isinf(frame[curve])
        if f"{curve}_fit" not in frame:
            continue
        fits = frame[[f"{curve}_fit{end}" for end in ENDS]].where(beyond)
        if (fits.iloc[:, 0].notna() & ((fits.iloc[:, 1] > 0) | np.isfinite(fits.iloc[:, 2]))).any():
            texts = [fit_text(*fit) for fit in fits.itertuples(index=False)]
            columns[dee_name(curve).replace(" ↑", " fitted ↑")] = [TableCell(text) for text in texts]
    return columns


def _costs(results: Results) -> tuple[dict[str, list[TableCell]], dict[str, list[TableCell]]]:
    """The columns of cost: the main ones, and details."""
    frame, noisy = results.summary, results.summary["latency_noisy"]
    batch = (results.meta.get("latency") or {}).get("batch_size", "large")
    latencies = {"latency_b1_ratio": "batch 1", "latency_batch_ratio": f"batch {batch}"}
    stated = frame["cost_stated"].map({True: "*", False: ""})

    def counted(key: str) -> list[TableCell]:
        pairs = zip(frame[key], stated, strict=True)
        return [TableCell(ratio_text(value) + mark * math.isfinite(value)) for value, mark in pairs]

    details = {"Params rel.": counted("params_rel")} | {
        f"Latency rel., {name}": [TableCell(ratio_text(*each)) for each in zip(frame[key], noisy, strict=True)]
        for key, name in latencies.items()
    }
    details["Own training (s)"] = [TableCell(seconds_text(value)) for value in frame["train_seconds"]]
    return {"FLOPs rel.": counted("macs_rel")}, details


def sizes_table(results: Results, scores: Sequence[str] = _SIZES) -> ReportTable:
    """Return one block a score: a row for each label, a column for each ensemble size."""
    frame = results.summary
    sizes = sorted(set(frame["size"]))
    blocks = []
    for name in scores:
        score, keys = results.task.scores[name], zip(frame["label"], frame["size"], strict=True)
        cells = dict(zip(keys, score_cells(frame, name, score, class_digits(results, name)), strict=True))
        labels = dict.fromkeys(frame["label"])
        rows = [[TableCell(label), *(cells.get((label, size), TableCell("")) for size in sizes)] for label in labels]
        blocks.append(TableBlock(score.heading, rows))
    return ReportTable(["Method", *(f"{size} member{'s'[: size > 1]}" for size in sizes)], blocks)


def comparisons_table(results: Results) -> ReportTable:
    """Return the paired differences: a block for each score, a column for each reference.

    Sizes of the reference method that are the methods' own share one column.  In classification, differences to
    methods other than deep ensembles and those of ECE are in the CSV file alone.
    """
    task, frame = results.task, results.comparisons
    label = task.reference_label
    if results.classifies:
        frame = frame[frame["reference"].str.startswith(f"{label}-") & frame["metric"].isin(_COMPARED)]
    own = (frame["reference"] == f"{label}-" + frame["size"].astype(int).astype(str)) & (frame["size"] > 1)
    frame = frame.assign(reference=frame["reference"].where(~own, f"{label} of that size"))
    references = list(dict.fromkeys(frame["reference"]))
    blocks = []
    for metric, part in frame.groupby("metric", sort=False):
        score = task.scores[str(metric)]
        digits = (2 if score.percent else 4) if results.classifies else None
        title = score.heading.replace(" % ", " (percentage points) ")
        blocks.append(
            TableBlock(title, _compared_rows(part, references, partial(_difference, score=score, digits=digits)))
        )
    return ReportTable(["Method", "Size", *(f"minus {name}" for name in references)], blocks)


def _compared_rows(
    frame: pd.DataFrame, references: Sequence[str], cell: Callable[[pd.Series], TableCell]
) -> list[list[TableCell]]:
    """Return a row for each label and size, with a cell for each reference."""
    found: dict[tuple[str, int], dict[str, TableCell]] = {}
    for _, row in frame.drop_duplicates(["label", "size", "reference"]).iterrows():
        found.setdefault((row["label"], row["size"]), {})[row["reference"]] = cell(row)
    return [
        [TableCell(label), TableCell(str(size)), *(cells.get(name, TableCell("")) for name in references)]
        for (label, size), cells in found.items()
    ]


def _difference(row: pd.Series, score: ScoreInfo, digits: int | None) -> TableCell:
    if math.isnan(row["difference"]):
        return TableCell(MISSING)
    text = difference_text(row, score, digits)
    if math.isnan(row["p_holm"]):
        return TableCell(text)
    text = f"{text}, {p_text(row['p_holm'])}"
    if not significant(row):
        return TableCell(text, "tied")
    return TableCell(text, "best" if (row["difference"] > 0) == (score.better == "higher") else "")


def tuning_table(results: Results) -> ReportTable | None:
    """How the settings of each method were chosen; None if that is recorded of none."""
    stated = results.meta.get("tuning")
    if not stated or not any(stated.values()):
        return None
    blocks = []
    for control, title in ((False, "Methods"), (True, "Controls")):
        rows = []
        for label in dict.fromkeys(results.summary.loc[results.summary["control"] == control, "label"]):
            if label not in stated:
                continue
            how = Tuning.model_validate(stated[label]) if stated[label] else None
            tried = "not recorded" if how is None or how.settings is None else str(how.settings)
            words = (_CHOSEN.get(how.on, how.on), how.varied) if how else ("", "")
            rows.append([TableCell(label), TableCell(tried), *map(TableCell, words)])
        blocks += [TableBlock(title, rows)] if rows else []
    header = ["Method", "Settings tried", "Chosen by", "Varied"]
    return ReportTable(header, blocks, text_columns=4) if blocks else None


def fewer_repetitions(results: Results) -> str:
    """A sentence on the rows of fewer repetitions than others have; empty if all have as many."""
    frame = results.summary[results.summary["n"] < results.summary["n"].max()]
    if frame.empty:
        return ""
    rows = ", ".join(f"{row['label']} (size {row['size']}): {int(row['n'])}" for _, row in frame.iterrows())
    return f"Rows of fewer than {int(results.summary['n'].max())} repetitions: {rows}."
