"""Claims in words: how values, methods and tests are named on the page, at the terminal and in verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.claims.model import Difference, Equivalence, Selection, Test, Threshold, split_subject
from benchmarks.results.pairing import method_name


@dataclass(frozen=True)
class Metric:
    """How a metric is written: its name, the factor and digits of its values, and their unit."""

    name: str
    scale: float
    digits: int
    unit: str = ""


METRICS = {
    "acc": Metric("accuracy", 100, 2, " points"),
    "nll": Metric("NLL", 1, 4),
    "cnll": Metric("cNLL", 1, 4),
    "ece": Metric("ECE", 100, 2, " points"),
    "cece": Metric("cECE", 100, 2, " points"),
    "dee_raw": Metric("DEE (raw)", 1, 2),
    "dee_cal": Metric("DEE (calibrated)", 1, 2),
    "macs_rel": Metric("relative FLOPs", 1, 3, "×"),
    "dsm": Metric("denoising loss", 1, 4),
    "energy": Metric("energy distance", 1, 4),
    "fd": Metric("classifier-FD", 1, 2),
    "w1_test": Metric("W1 to test rows", 1, 3),
    "noise_mse": Metric("noise MSE", 1, 3),
}


def number(value: float, metric: str, signed: bool) -> str:
    """Return a value without its unit; a censored deep-ensemble equivalent as `< 1` or `> M`."""
    how = METRICS[metric]
    if math.isinf(value):
        return "< 1" if value < 0 else "> M"
    return f"{value * how.scale:{'+' if signed else ''}.{how.digits}f}".replace("-", "−")


def with_unit(value: float, metric: str, signed: bool) -> str:
    """Return a value with its unit, where it has one."""
    return number(value, metric, signed) + METRICS[metric].unit


def effect(value: float, low: float, high: float, metric: str, signed: bool) -> str:
    """Return `−0.67 [−1.33, −0.04] points`; without brackets where there is no interval, or no width to it."""
    if math.isnan(low) or math.isnan(high) or low == high:
        return with_unit(value, metric, signed)
    ends = f"[{number(low, metric, signed)}, {number(high, metric, signed)}]"
    return f"{number(value, metric, signed)} {ends}{METRICS[metric].unit}"


def is_signed(test: Test) -> bool:
    """Whether the test is about a difference, whose sign is then always written."""
    return not isinstance(test, Threshold)


def quantity(test: Test, subject: str) -> str:
    """Return what is estimated: `accuracy of DBN (fixed) of size 3 minus DE-3`."""
    name = f"{METRICS[test.metric].name} of {_side(test.of, subject)}"
    return name if isinstance(test, Threshold) else f"{name} minus {_side(test.to, subject)}"


def _side(side: Selection, subject: str) -> str:
    """A method and its size; without the size where "the method" stands for subjects of several sizes."""
    if side.size is None and split_subject(subject)[1] is None:
        return side.label or subject
    return method_name(*side.of(subject))


def bound(test: Test) -> str:
    """Return what is demanded of it: `above −0.30 points`."""
    if isinstance(test, Equivalence):
        return f"within {_edge(test)}"
    p_below = test.p_below if isinstance(test, Difference) else None
    return f"{test.side} {_edge(test)}" + (f" with p < {p_below:g}" if p_below else "")


def finding(test: Test, verdict: str, low: float, high: float) -> str:
    """Return where the interval lies: wholly on the claimed side, wholly on the other, or across the bound."""
    if verdict == "holds":
        return f"lies wholly {bound(test)}"
    if verdict == "undecided" and isinstance(test, Difference) and test.p_below and not low <= 0 <= high:
        return f"lies wholly {test.side} {_edge(test)}, but p is not below {test.p_below:g}"
    if verdict == "undecided":
        return f"reaches across {_edge(test)}"
    if isinstance(test, Equivalence):
        return f"lies wholly beyond {_edge(test)}"
    return f"lies wholly {'below' if test.side == 'above' else 'above'} {_edge(test)}"


def _edge(test: Test) -> str:
    if isinstance(test, Equivalence):
        return f"±{with_unit(test.within, test.metric, False)}"
    if isinstance(test, Difference) and test.bound == 0:
        return "0"
    return with_unit(test.bound, test.metric, is_signed(test))
