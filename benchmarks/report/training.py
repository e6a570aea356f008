"""What a method costs to train, counted in trainings of one member: one formula, from the passes in the rows.

Examples that go through a network are counted three ways: ``member_passes`` through the members that a method needs
(it runs them, or they teach it), ``student_passes`` through what it trains itself, ``teacher_passes`` through frozen
members that teach it.  A backward pass takes twice a forward pass, so that a frozen pass is a third of a trained one.
"""

from __future__ import annotations

import math

import pandas as pd

BACKWARD = 2  # FLOPs of a backward pass over those of a forward pass: a gradient for inputs, and one for weights
NOT_RECORDED = "not recorded"


def member_equivalents(
    member_passes: float, student_passes: float, teacher_passes: float, macs_rel: float, unit: float
) -> tuple[float, float]:
    r"""Return what training cost, in trainings of one member: without the method's own training, and with it, at most.

    .. math:: \frac{P_{member}}{u} + \frac{P_{teacher}}{(1 + 2) u}, \quad \ldots + \frac{P_{student}}{u} c

    The rows do not say what the trained network costs; it is taken to cost what the predictor costs, ``c``.  That is
    exact for a student that is deployed as it was trained.  It is too much for a bridge, whose predictor also runs a
    frozen source, and for a network that predicts several times; so the second number is "at most".  What was spent on
    choosing settings is in neither.

    Args:
        member_passes, student_passes, teacher_passes: examples, as above.
        macs_rel: c, multiply-adds of the predictor over those of one member; not needed without a training of its own.
        unit: u, the ``member_passes`` of one member.

    Returns:
        (least, most); NaN where a number that counts is not known.
    """
    if not unit > 0:
        return math.nan, math.nan
    least = (member_passes + teacher_passes / (1 + BACKWARD)) / unit
    own = student_passes * macs_rel / unit if student_passes else 0.0
    return least, least + own


def with_training(summary: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Add ``train_member_equivalents`` (at most) and ``train_member_equivalents_least`` to the rows of a summary.

    Args:
        summary: rows with the columns that :func:`member_equivalents` takes; without one of them nothing is known.
        reference: family of the deep ensembles, which say what one member costs.
    """
    names = ("member_passes", "student_passes", "teacher_passes", "macs_rel")
    known = summary.reindex(columns=[*names, "size"]).astype(float)
    ensembles = known[summary["family"] == reference].dropna(subset="member_passes")
    unit = float((ensembles["member_passes"] / ensembles["size"]).iloc[0]) if len(ensembles) else math.nan
    found = [member_equivalents(*row, unit) for row in known[list(names)].itertuples(index=False)]
    least, most = zip(*found, strict=True) if found else ((), ())
    return summary.assign(train_member_equivalents=most, train_member_equivalents_least=least)


def cost_text(value: float) -> str:
    """Return a training cost as `6.3`, or `not recorded`."""
    return f"{value:.1f}" if math.isfinite(value) else NOT_RECORDED
