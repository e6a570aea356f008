"""The table of budgets: with so much training, and so much per prediction, what came out best in these rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from benchmarks.report.load import REFERENCE_FAMILY, Results
from benchmarks.report.tables import formatting
from benchmarks.report.training import cost_text

TRAINING = (10, 20, 50)  # trainings of one member
NETWORKS = (1.0, 1.2, 2.0)  # FLOPs of a prediction over those of one network
SCORES = {"nll": "dee_raw", "cnll": "dee_cal"}
_ROUNDING = 0.005  # FLOPs are shown with two digits, and fit as shown


def budget_frame(results: Results) -> pd.DataFrame:
    """Return the best row of the summary for each score, training and networks, by its mean; empty where none fits.

    Every row takes part, deep ensembles and controls too, unless its cost is not known.  `tied` names the other rows
    that fit and are known not to differ significantly, `compared` says how many were compared at all.
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


def budget_table(frame: pd.DataFrame, max_size: int | None) -> formatting.Table | None:
    """Return the frame as a table; None where no row has a known training cost.

    Args:
        max_size: of the deep ensembles, beyond which a DEE is censored.
    """
    if "label" not in frame:
        return None
    blocks = []
    for score in SCORES:
        part = frame[frame["score"] == score]
        digits = formatting.decimals((part["high"] - part["low"]) / 2, 3, 4)
        rows = [[formatting.Cell(text) for text in _texts(row, digits, max_size)] for _, row in part.iterrows()]
        blocks.append(formatting.Block(formatting.SCORE_NAMES[score], rows))
    header = ["Train at most", "Run at most", "Best", "Not different from it"]
    return formatting.Table([*header, "Score ↓", "DEE ↑", "Training", "FLOPs rel."], blocks, text_columns=4)


def budget_note(results: Results) -> str:
    """Say how to read the table, and which rows are not in it."""
    unknown = results.summary[~results.summary["train_member_equivalents"].notna() | results.summary["macs_rel"].isna()]
    names = ", ".join(dict.fromkeys(_name(row) for _, row in unknown.iterrows()))
    text = (
        "The lowest mean NLL, raw and after temperature scaling, among the rows that fit: deep ensembles, methods and "
        "controls. Training is counted in trainings of one member and is an upper bound (see the conventions), "
        "running in FLOPs of one network. The choice in each row was made on the test figures that it shows, so the "
        "table describes these rows and its best figures are a little too good; a method of yours is to be chosen on "
        "validation. “Not different” names those that fit and have a paired test that finds no difference; most pairs "
        "of methods were not tested, and a blank does not say that the others are worse."
    )
    return text + (f" Cost {cost_text(math.nan)}, hence left out: {names}." if names else "")


def _fitting(summary: pd.DataFrame, score: str, training: float, networks: float) -> pd.DataFrame:
    """Rows within both budgets, the best first."""
    fits = (summary["train_member_equivalents"] <= training + 1e-9) & (summary["macs_rel"] < networks + _ROUNDING)
    return summary[fits & summary[f"{score}_mean"].notna()].sort_values(f"{score}_mean", kind="stable")


def _tests(comparisons: pd.DataFrame, score: str) -> dict[tuple[str, int, str], bool]:
    """Whether a difference was found, by label, size and reference."""
    frame = comparisons[(comparisons["metric"] == score) & comparisons["low"].notna()]
    frame = frame.drop_duplicates(["label", "size", "reference"])
    return {(row["label"], row["size"], row["reference"]): formatting.significant(row) for _, row in frame.iterrows()}


def _same(best: pd.Series, other: pd.Series, score: str, tests: Mapping[tuple[str, int, str], bool]) -> bool | None:
    """Whether no difference was found; None where the rows hold no test of this pair."""
    if best[f"{score}_mark"] == "best" and other["family"] != REFERENCE_FAMILY:
        return str(other[f"{score}_mark"]) == "tied"
    for of, to in ((best, other), (other, best)):
        for name in (_reference(to), _name(to)):
            if (key := (of["label"], of["size"], name)) in tests:
                return not tests[key]
    return None


def _reference(row: pd.Series) -> str:
    """What the comparisons call it."""
    return f"DE-{row['size']}" if row["family"] == REFERENCE_FAMILY else f"{row['label']} of size {row['size']}"


def _name(row: pd.Series) -> str:
    return f"{row['label']}{'-' if row['family'] == REFERENCE_FAMILY else ', '}{int(row['size'])}"


def _texts(row: pd.Series, digits: int, max_size: int | None) -> list[str]:
    limits = [f"{row['training_at_most']} members", f"{row['networks_at_most']:.1f} networks"]
    if not isinstance(row["label"], str):
        return [*limits, "none", "", *[formatting.MISSING] * 4]
    score = formatting.with_interval(row["mean"], row["low"], row["high"], digits)
    dee = formatting.dee_text(row["dee"], row["dee_low"], row["dee_high"], max_size)
    return [
        *limits,
        *(_name(row), row["tied"], score, dee, cost_text(row["train_member_equivalents"])),
        formatting.ratio_text(row["macs_rel"]),
    ]
