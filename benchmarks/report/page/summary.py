"""The first paragraph of the report, computed from the results so that it can never disagree with them."""

from __future__ import annotations

import math

import pandas as pd

from benchmarks.report.load import Results
from benchmarks.report.tables.formatting import dee_text, difference_text, p_text, ratio_text, significant


def lead(results: Results) -> list[str]:
    """Return plain sentences: the yardstick, the best cheap method, what it costs, and how sure that is."""
    others = results.others[results.others["nll_mean"].notna()]
    sentences = _yardstick(results)
    if others.empty:
        return [*sentences, "No method cheaper than an ensemble was measured."]
    best = others.sort_values("nll_mean", kind="stable").iloc[0]
    sentences += [_best(best, results), _against_one(best, results), _rivals(others, best, results)]
    sentences.append(_calibrated(others, best, results))
    return [sentence for sentence in [*sentences, _none_reaches_one(others)] if sentence]


def _name(row: pd.Series) -> str:
    return f"{row['label']} (size {row['size']})"


def _digits(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:.3f}"


def _yardstick(results: Results) -> list[str]:
    curve = results.reference[results.reference["nll_mean"].notna()]
    if curve.empty:
        return ["No deep ensemble was measured, so there is no yardstick and no deep-ensemble equivalent."]
    first, last = curve.iloc[0], curve.iloc[-1]
    count = int(curve["n"].max())
    over = f"the mean of {count} repetitions" if count > 1 else "one repetition, hence without intervals"
    if len(curve) == 1:
        return [f"The yardstick is DE-{first['size']}, with a test NLL of {_digits(first['nll_mean'])} ({over})."]
    one = "1 network" if first["size"] == 1 else f"{first['size']} networks"
    return [
        f"The yardstick is the deep ensemble: its test NLL goes from {_digits(first['nll_mean'])} with {one} to "
        f"{_digits(last['nll_mean'])} with {last['size']} ({over})."
    ]


def _best(best: pd.Series, results: Results) -> str:
    costs = []
    if math.isfinite(best["macs_rel"]):
        costs.append(f"{ratio_text(best['macs_rel'])} the FLOPs")
    if math.isfinite(best["latency_b1_ratio"]):
        noisy = " (a noisy measurement)" if best["latency_noisy"] else ""
        costs.append(f"{ratio_text(best['latency_b1_ratio'])} the batch-1 latency{noisy}")
    cost = f", at {' and '.join(costs)} of one network" if costs else ""
    dee = dee_text(best["dee_raw"], best["dee_raw_low"], best["dee_raw_high"], results.max_size)
    worth = "" if math.isnan(best["dee_raw"]) else f"; its deep-ensemble equivalent is {dee}"
    return f"Among the other methods, {_name(best)} has the lowest NLL, {_digits(best['nll_mean'])}{cost}{worth}."


def test_name(results: Results) -> str:
    """Return what says that a mark or a sentence holds a significant difference."""
    return "paired bootstrap, 95 %" if results.bootstrapped else "paired t test, corrected by Holm, 5 %"


def _rivals(others: pd.DataFrame, best: pd.Series, results: Results) -> str:
    tied = others[(others["nll_mark"] == "tied") & (others.index != best.name)]
    if len(others) == 1 or best["nll_mark"] != "best" or math.isnan(best["nll_low"]):
        return ""
    if tied.empty:
        return f"Each of the others has a significantly higher NLL ({test_name(results)})."
    names = ", ".join(_name(row) for _, row in tied.iterrows())
    return f"Against {names} the difference in NLL is not significant ({test_name(results)})."


def _against_one(best: pd.Series, results: Results) -> str:
    frame = results.comparisons
    same = (frame["label"] == best["label"]) & (frame["size"] == best["size"])
    found = frame[same & (frame["metric"] == "nll") & (frame["reference"] == "DE-1")]
    if found.empty or found[["difference", "low", "high"]].isna().to_numpy().any():
        return ""
    row = found.iloc[0]
    side = "lower" if row["difference"] < 0 else "higher"
    verdict = f"significantly {side} than" if significant(row) else "not significantly different from"
    p_value = p_text(row.get("p_holm", row["p_value"]))
    return f"Its NLL is {verdict} that of one network (difference {difference_text(row)}, {p_value})."


def _calibrated(others: pd.DataFrame, best: pd.Series, results: Results) -> str:
    known = others[others["cnll_mean"].notna()]
    if known.empty:
        return ""
    row = known.sort_values("cnll_mean", kind="stable").iloc[0]
    dee = dee_text(row["dee_cal"], row["dee_cal_low"], row["dee_cal_high"], results.max_size)
    worth = "" if math.isnan(row["dee_cal"]) else f" and an equivalent of {dee}"
    who = "it is also the lowest of them" if row.name == best.name else f"{_name(row)} is the lowest of them"
    return f"After temperature scaling {who}, with a cNLL of {_digits(row['cnll_mean'])}{worth}."


def _none_reaches_one(others: pd.DataFrame) -> str:
    """Say plainly when no method is worth even one network."""
    failing = [
        name
        for kind, name in (("raw", "on raw NLL"), ("cal", "on temperature-scaled NLL"))
        if others[f"dee_{kind}"].notna().any() and not (others[f"dee_{kind}"] > 1).any()
    ]
    return f"No method cheaper than an ensemble beats a single network {' or '.join(failing)}." if failing else ""
