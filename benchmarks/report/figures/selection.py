"""Which methods the figures draw, if there are more than a figure can show.  Imports no Matplotlib."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from benchmarks.report.figures.pareto import front
from benchmarks.report.model import Results

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
        risk_coverage=None if results.risk_coverage is None else kept(results.risk_coverage),
    )


def selection_note(results: Results) -> str:
    """A sentence, after a space, that says which methods :func:`drawn` keeps; empty if it keeps all."""
    if not (left := _left_out(results)):
        return ""
    score = results.task.scores[_ranking(results)[1]].title
    count = _methods(results)["label"].nunique()
    return (
        f" The figure shows {count - len(left)} of {count} methods: those on the Pareto front of cost and {score}, "
        f"then those with the best {score}; the tables have all."
    )


def _ranking(results: Results) -> tuple[str, str]:
    """The cost and the score by which methods are chosen."""
    return ("macs_rel", "cnll") if results.classifies else (results.task.axis[0], results.task.headline)


def _methods(results: Results) -> pd.DataFrame:
    return results.main[results.main["family"] != results.task.reference]


def _left_out(results: Results) -> set[str]:
    frame = _methods(results)
    # The figures of a task draw the entries of a series under one name.
    names = frame["label"].replace(results.series)
    if names.nunique() <= MOST:
        return set()
    cost, score = _ranking(results)
    loss = frame[f"{score}_mean"] * (-1 if results.task.scores[score].better == "higher" else 1)
    behind = ~front(list(frame[cost]), list(loss))
    ranked = frame.assign(name=names, behind=behind, loss=loss).sort_values(["behind", "loss"], kind="stable")
    kept = list(dict.fromkeys(ranked["name"]))[:MOST]
    return set(ranked.loc[~ranked["name"].isin(kept), "label"])


def plotted_scores(results: Results) -> list[str]:
    """The task's scores that figures show."""
    return [name for name in results.task.plotted_scores if results.main[f"{name}_mean"].notna().any()]
