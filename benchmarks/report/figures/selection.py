"""Which methods the figures draw, where there are more than a figure can show.  Imports no Matplotlib."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from benchmarks.report.figures.pareto import front
from benchmarks.report.load import Results

MOST = 24  # methods or series in a figure, besides the reference and the controls


def drawn(results: Results) -> Results:
    """The results of what the figures draw: the reference, the controls and at most `MOST` methods or series.

    Methods on the Pareto front of cost and score come first, then those with the best score.
    """
    left = _left_out(results)
    if not left:
        return results

    def kept(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[~frame["label"].isin(left)]

    return replace(
        results,
        summary=kept(results.summary),
        rows=kept(results.rows),
        reliability=kept(results.reliability),
        shifts=None if results.shifts is None else kept(results.shifts),
    )


def selected(results: Results) -> str:
    """A sentence, after a space, that says which methods :func:`drawn` keeps; empty where it keeps all."""
    if not (left := _left_out(results)):
        return ""
    score = "cNLL" if not results.task else results.task["scores"][results.task["headline"]]["title"]
    count = _methods(results)["label"].nunique()
    return (
        f" {count - len(left)} of {count} methods are drawn: those on the Pareto front of cost and {score}, then those "
        f"with the best {score}; the tables have all."
    )


def _methods(results: Results) -> pd.DataFrame:
    return results.main[results.main["family"] != results.reference_family]


def _left_out(results: Results) -> set[str]:
    frame = _methods(results)
    # The figures of a task draw the entries of a series under one name.
    names = frame["label"].replace((results.meta.get("series") or {}) if results.task else {})
    if names.nunique() <= MOST:
        return set()
    cost, score, sign = "macs_rel", "cnll", 1
    if task := results.task:
        cost, score = task["axis"][0], task["headline"]
        sign = -1 if task["scores"][score]["better"] == "higher" else 1
    loss = sign * frame[f"{score}_mean"]
    behind = ~front(list(frame[cost]), list(loss))
    ranked = frame.assign(name=names, behind=behind, loss=loss).sort_values(["behind", "loss"], kind="stable")
    kept = list(dict.fromkeys(ranked["name"]))[:MOST]
    return set(ranked.loc[~ranked["name"].isin(kept), "label"])
