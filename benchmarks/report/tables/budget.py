"""The table of budgets: the best row within a budget of training and a budget of prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import (
    ReportTable,
    TableBlock,
    TableCell,
    decimals,
    dee_text,
    ratio_text,
    significant,
    with_interval,
)
from benchmarks.report.training import cost_text

TRAINING = (2, 5, 10, 20, 50)  # trainings of one member
NETWORKS = (1.0, 1.2, 2.0)  # FLOPs of a prediction over those of one network
SCORES = {"nll": "dee_raw", "cnll": "dee_cal"}
_ROUNDING = 0.005  # FLOPs are shown with two digits, and fit as shown


def budget_frame(results: Results) -> pd.DataFrame:
    """Return the row of lowest mean for each score and pair of budgets; empty cells if none fits.

    Every row of known cost takes part, deep ensembles and controls included.  `tied` names the other rows that fit and
    do not differ significantly; `compared` counts those for which there is a test.
    """
    lines = []
    for score, dee in SCORES.items():
        tests = _tests(results.comparisons, score)
        for training in TRAINING:
            for networks in NETWORKS:
                fits = _fitting(results.summary, score, training, networks)
                line = {"score": score, "training_at_most": training, "networks_at_most": networks}
                if len(fits):
                    best = fits.iloc[0]
                    found = {_name(row): _same(best, row, score, tests) for _, row in fits.iloc[1:].iterrows()}
                    known = [name for name, same in found.items() if same is not None]
                    line |= {key: best[key] for key in ("label", "method", "family", "size")}
                    line |= {key: best[key] for key in ("train_member_equivalents", "macs_rel")}
                    line |= {"fitting": len(fits), "compared": len(known)}
                    line |= {end: best[f"{score}_{end}"] for end in ("mean", "low", "high")}
                    line |= {f"dee{end}": best[f"{dee}{end}"] for end in ("", "_low", "_high")}
                    line["tied"] = "; ".join(name for name in known if found[name])
                lines.append(line)
    return pd.DataFrame(lines)


def budget_table(results: Results, frame: pd.DataFrame) -> ReportTable | None:
    """Return the pairs of budgets that have another best than a smaller one; None if no row has a known cost."""
    if "label" not in frame:
        return None
    blocks = []
    for score in SCORES:
        part = frame[(frame["score"] == score) & _new(frame)]
        digits = decimals((part["high"] - part["low"]) / 2, 3, 4)
        rows = [[TableCell(text) for text in _texts(row, digits, results.max_size)] for _, row in part.iterrows()]
        blocks.append(TableBlock(results.task.scores[score].heading, rows))
    header = ["Train at most", "Run at most", "Best", "Not different from it"]
    return ReportTable([*header, "Score ↓", "DEE ↑", "Training", "FLOPs rel."], blocks, text_columns=4)


def _new(frame: pd.DataFrame) -> pd.Series:
    """Whether the best of each pair of budgets is not that of the next smaller budget of training or prediction."""
    axes = ["score", "training_at_most", "networks_at_most"]
    best = frame.set_index(axes)[["label", "size"]].apply(tuple, axis=1)
    chosen = frame["label"].notna()
    for axis, budgets in ((1, TRAINING), (2, NETWORKS)):
        smaller = dict(zip(budgets[1:], budgets, strict=False))
        for i, row in enumerate(best.index):
            if row[axis] in smaller:
                before = (*row[:axis], smaller[row[axis]], *row[axis + 1 :])
                chosen.iloc[i] &= best[row] != best[before]
    return chosen


def budget_note(results: Results) -> str:
    """Say how to read the table, and which rows are not in it."""
    unknown = results.summary[~results.summary["train_member_equivalents"].notna() | results.summary["macs_rel"].isna()]
    names = ", ".join(dict.fromkeys(_name(row) for _, row in unknown.iterrows()))
    text = (
        "The row of lowest mean NLL, raw and after temperature scaling, among all rows within both budgets: deep "
        "ensembles, methods and controls. Training is counted in trainings of one member and is an upper bound (see "
        "the conventions); running is counted in FLOPs of one network. A pair of budgets is listed if its best is not "
        "that of a smaller one; the CSV has all. Each choice was made on the test scores that it "
        "shows, so the scores are slightly optimistic; choose a method of your own on validation. “Not different” "
        "names the rows within the budgets whose paired test finds no difference. Most pairs were not tested, so a "
        "blank does not say that the others are worse."
    )
    return text + (f" Left out, since their cost is {cost_text(math.nan)}: {names}." if names else "")


def _fitting(summary: pd.DataFrame, score: str, training: float, networks: float) -> pd.DataFrame:
    """Rows within both budgets, the best first."""
    fits = (summary["train_member_equivalents"] <= training + 1e-9) & (summary["macs_rel"] < networks + _ROUNDING)
    return summary[fits & summary[f"{score}_mean"].notna()].sort_values(f"{score}_mean", kind="stable")


def _tests(comparisons: pd.DataFrame, score: str) -> dict[tuple[str, int, str], bool]:
    """Whether a difference was found, by label, size and reference."""
    frame = comparisons[(comparisons["metric"] == score) & comparisons["low"].notna()]
    frame = frame.drop_duplicates(["label", "size", "reference"])
    return {(row["label"], row["size"], row["reference"]): significant(row) for _, row in frame.iterrows()}


def _same(best: pd.Series, other: pd.Series, score: str, tests: Mapping[tuple[str, int, str], bool]) -> bool | None:
    """Whether no difference was found; None where the rows hold no test of this pair."""
    if best[f"{score}_mark"] == "best" and not _is_reference(other):
        return str(other[f"{score}_mark"]) == "tied"
    for of, to in ((best, other), (other, best)):
        for name in (_reference(to), _name(to)):
            if (key := (of["label"], of["size"], name)) in tests:
                return not tests[key]
    return None


def _is_reference(row: pd.Series) -> bool:
    """Whether a row is of the deep ensembles."""
    return bool(row["family"] == "de")


def _reference(row: pd.Series) -> str:
    """The name of a row in the comparisons."""
    return f"DE-{row['size']}" if _is_reference(row) else f"{row['label']} of size {row['size']}"


def _name(row: pd.Series) -> str:
    return f"{row['label']}{'-' if _is_reference(row) else ', '}{int(row['size'])}"


def _texts(row: pd.Series, digits: int, max_size: int | None) -> list[str]:
    limits = [f"{row['training_at_most']} members", f"{row['networks_at_most']:.1f} networks"]
    score = with_interval(row["mean"], row["low"], row["high"], digits)
    dee = dee_text(row["dee"], row["dee_low"], row["dee_high"], max_size)
    return [
        *limits,
        *(_name(row), row["tied"], score, dee, cost_text(row["train_member_equivalents"])),
        ratio_text(row["macs_rel"]),
    ]
