"""The first paragraph of the report, computed from the results so that it always agrees with them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import dee_text, difference_text, p_text, ratio_text, significant

_KINDS = {"raw": "raw NLL", "cal": "temperature-scaled NLL"}  # of equivalents


def summary(results: Results) -> list[str]:
    """Return plain sentences: the reference, the best other method, its cost, and how certain that is."""
    name = results.task.headline
    others = results.others[results.others[f"{name}_mean"].notna()]
    controls = others["control"].any()
    others = others[~others["control"]]
    sentences = [_reference(results, name), *_doubts(results)]
    if results.lite:
        return [*sentences, "Methods are only tried here, and not ranked."]
    if others.empty:
        return [*sentences, "No other method was measured."]
    best = _best(others, results, name)
    aside = ", controls aside," if controls else ""
    sentences += [
        f"Among the other methods{aside} {_name(best)} has the best {results.task.scores[name].title}, "
        f"{_value(best, results, name)}{_cost(best)}{_worth(best, results, 'dee_raw', '; its')}.",
        _against_one(best, results, name),
        _rivals(others, best, results, name),
    ]
    if "cnll" in results.scores:
        sentences.append(_calibrated(others, best, results))
        sentences.append(_none_reaches_one(others))
        sentences.append(_open_ended(others, results))
    return [sentence for sentence in sentences if sentence]


def selection_summary(results: Results) -> str:
    """A sentence on selective prediction: the method with the best AUGRC, and its worth."""
    others = results.others[~results.others["control"] & results.others["augrc_mean"].notna()]
    if others.empty or results.lite:  # methods that are only tried are not ranked
        return ""
    best = _best(others, results, "augrc")
    return (
        f"Among the other methods {_name(best)} has the best AUGRC, {_value(best, results, 'augrc')}"
        f"{_worth(best, results, 'dee_augrc', '; on this score its')}."
    )


def _name(row: pd.Series) -> str:
    return f"{row['label']} (size {row['size']})"


def _value(row: pd.Series, results: Results, name: str) -> str:
    score = results.task.scores[name]
    return f"{row[f'{name}_mean'] * score.scale:.4g}" + (" %" if score.percent else "")


def _best(frame: pd.DataFrame, results: Results, name: str) -> pd.Series:
    lower = results.task.scores[name].better == "lower"
    return frame.sort_values(f"{name}_mean", kind="stable", ascending=lower).iloc[0]


def _reference(results: Results, name: str) -> str:
    curve = results.reference[results.reference[f"{name}_mean"].notna()]
    if curve.empty:
        return "The reference was not measured, so nothing is compared with it."
    first, last = curve.iloc[0], curve.iloc[-1]
    count, title = int(curve["n"].max()), results.task.scores[name].title
    over = f"mean of {count} repetitions" if count > 1 else "one repetition, without intervals"
    to = f" and {_value(last, results, name)} at size {last['size']}" if len(curve) > 1 else ""
    what = "the deep ensemble, " if results.classifies else ""
    return (
        f"The reference is {what}{first['label']}: its {title} is {_value(first, results, name)} at size "
        f"{first['size']}{to} ({over})."
    )


def _rising(results: Results) -> dict[str, str]:
    """The scores of the reference that do not fall from its smallest to its largest size, by column of equivalents."""
    ends = {
        curve: results.reference[f"{score}_mean"].dropna()
        for curve, score in results.task.curves.items()
        if score in results.scores
    }
    return {
        curve: results.task.curves[curve]
        for curve, mean in ends.items()
        if mean.size > 1 and mean.iloc[-1] >= mean.iloc[0]
    }


def _doubts(results: Results) -> list[str]:
    """What makes equivalents or calibrated scores meaningless, as far as it concerns the reference."""
    sizes = results.reference["size"]
    titles = [results.task.scores[score].title for score in _rising(results).values()]
    lines = [
        f"The {title} of the reference does not fall from size {sizes.iloc[0]} to {sizes.iloc[-1]}, so equivalents on "
        "it mean nothing."
        for title in titles
    ]
    names = {
        f"{row['label']}{between}{row['size']}"
        for _, row in results.reference.iterrows()
        for between in ("-", " of size ")
    }
    loose = [line.partition(":")[0] for line in results.statistics if "does not determine the temperature" in line]
    if loose := [name for name in loose if name in names]:
        lines.append(
            f"Validation does not determine the temperature of {', '.join(loose)}: calibrated scores are uncertain."
        )
    return lines


def _cost(row: pd.Series) -> str:
    costs = []
    if math.isfinite(row["macs_rel"]):
        costs.append(f"{ratio_text(row['macs_rel'])} the FLOPs")
    if math.isfinite(row["latency_b1_ratio"]):
        noisy = " (a noisy measurement)" if row["latency_noisy"] else ""
        costs.append(f"{ratio_text(row['latency_b1_ratio'])} the batch-1 latency{noisy}")
    return f", at {' and '.join(costs)} of one network" if costs else ""


def _worth(row: pd.Series, results: Results, curve: str, start: str) -> str:
    if math.isnan(row.get(curve, math.nan)) or curve in _rising(results):
        return ""
    dee = dee_text(row[curve], row[f"{curve}_low"], row[f"{curve}_high"], results.max_size)
    return f"{start} deep-ensemble equivalent is {dee}"


def _against_one(best: pd.Series, results: Results, name: str) -> str:
    frame, score, one = results.comparisons, results.task.scores[name], f"{results.task.reference_label}-1"
    same = (frame["label"] == best["label"]) & (frame["size"] == best["size"])
    found = frame[same & (frame["metric"] == name) & (frame["reference"] == one)]
    if found.empty or found[["difference", "low", "high"]].isna().to_numpy().any():
        return ""
    row = found.iloc[0]
    side = "lower" if row["difference"] < 0 else "higher"
    verdict = f"significantly {side} than" if significant(row) else "not significantly different from"
    difference = difference_text(row, score, (2 if score.percent else 4) if results.classifies else None)
    return f"Its {score.title} is {verdict} that of {one} (difference {difference}, {p_text(row['p_holm'])})."


def _rivals(others: pd.DataFrame, best: pd.Series, results: Results, name: str) -> str:
    tied = others[(others[f"{name}_mark"] == "tied") & (others.index != best.name)]
    if len(others) == 1 or best[f"{name}_mark"] != "best" or math.isnan(best[f"{name}_low"]):
        return ""
    title = results.task.scores[name].title
    if tied.empty:
        return f"Each of the others has a significantly worse {title} ({results.test})."
    names = ", ".join(_name(row) for _, row in tied.iterrows())
    return f"Its difference in {title} to {names} is not significant ({results.test})."


def _calibrated(others: pd.DataFrame, best: pd.Series, results: Results) -> str:
    known = others[others["cnll_mean"].notna()]
    if known.empty:
        return ""
    row = _best(known, results, "cnll")
    who = "it is also the best" if row.name == best.name else f"{_name(row)} is the best"
    worth = _worth(row, results, "dee_cal", "; its")
    return f"After temperature scaling {who}, with a cNLL of {_value(row, results, 'cnll')}{worth}."


def _open_ended(others: pd.DataFrame, results: Results) -> str:
    """Say so if hardly any equivalent has an interval with an end on the curve."""
    meant = [f"dee_{kind}" for kind in _KINDS if f"dee_{kind}" not in _rising(results)]
    frames = [others[[f"{column}_low", f"{column}_high"]].set_axis([0, 1], axis=1) for column in meant]
    known = pd.concat(frames).dropna() if frames else pd.DataFrame(columns=[0, 1], dtype=float)
    is_open = np.isneginf(known[0]) & np.isposinf(known[1])
    if known.empty or is_open.mean() < 0.75:
        return ""
    count = int(results.reference["n"].max())
    return (
        f"{int(is_open.sum())} of the {len(known)} intervals of equivalents are open at both ends: {count} repetitions "
        "are too few to tell how many members a method is worth."
    )


def _none_reaches_one(others: pd.DataFrame) -> str:
    """Say so if no method is worth even one network."""
    failing = [
        name
        for kind, name in _KINDS.items()
        if others[f"dee_{kind}"].notna().any() and not (others[f"dee_{kind}"] > 1).any()
    ]
    return f"No method is better than a single network on {' or '.join(failing)}." if failing else ""
