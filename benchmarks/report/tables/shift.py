"""Methods on shifted images: the tables and the sentences of that section.  Imports no Matplotlib.

The rows are those of ``shifts.csv``: test images corrupted at levels 1 to 5 (0: clean), and out-of-distribution images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.report.model import Results
from benchmarks.report.tables.formatting import (
    MISSING,
    ReportTable,
    TableBlock,
    TableCell,
    decimals,
    dee_text,
    with_interval,
)
from benchmarks.report.tables.main import DEE_NAMES

CLEAN, MEAN, OOD = "clean", "corruptions", "ood/"
_PERCENT = ("acc", "ece", "cece")
_SCORES = ("acc", "nll", "ece", "cnll", "cece")
_CURVES = ("dee_raw", "dee_cal")
_BY_CORRUPTION = ("acc", "nll")
_DETECTION = {"auroc": "AUROC % ↑", "aupr": "AUPR % ↑", "fpr95": "FPR95 % ↓"}
_CONFIDENCE = {"msp": "max. probability", "entropy": "entropy", "mi": "mutual information"}
_Values = tuple[float, float, float]


def set_title(name: str) -> str:
    """Return a set's name for headings: `gaussian noise`, `svhn-like`."""
    return name.removeprefix(OOD).replace("_", " ")


def levels(results: Results) -> list[int]:
    """Return the measured levels of corruption, without the clean images."""
    return [] if results.shifts is None else sorted({int(x) for x in results.shifts["level"].dropna()} - {0})


def tabulated(results: Results) -> list[tuple[str, int]]:
    """Return the methods and sizes of the tables: of the deep ensembles only 1, the largest, and the methods' sizes."""
    sizes = {1, *results.others["size"], results.reference["size"].max()}
    other = results.summary["family"] != results.task.reference
    frame = results.summary[other | results.summary["size"].isin(sizes)]
    return list(zip(frame["label"], frame["size"].astype(int), strict=True))


class Values:
    """Mean, low and high of a metric by method, size, set and level; NaN if there are none."""

    def __init__(self, frame: pd.DataFrame) -> None:
        keys = zip(
            frame["label"], frame["size"], frame["set"], frame["level"].fillna(-1).astype(int), frame["metric"],
            strict=True,
        )  # fmt: skip
        values = zip(frame["mean"], frame["low"], frame["high"], strict=True)
        self._known: dict[tuple[Any, ...], _Values] = dict(zip(keys, values, strict=True))

    def of(self, method: tuple[str, int], name: str, level: int, metric: str) -> _Values:
        """Mean and the ends of its interval."""
        return self._known.get((*method, name, level, metric), (math.nan,) * 3)


def severity_table(results: Results) -> ReportTable | None:
    """Return scores, equivalents and the share of the ensemble's gain: on clean images and at three levels."""
    every = levels(results)
    if results.shifts is None or not every:
        return None
    values, methods = Values(results.shifts), tabulated(results)
    names = [results.task.scores[score].heading for score in _SCORES]
    header = ["Method", "Size", *names, *(DEE_NAMES[curve] for curve in _CURVES), "Gain in NLL kept % ↑"]
    blocks = []
    for level in dict.fromkeys((0, every[0], every[len(every) // 2], every[-1])):
        name, title = (MEAN, f"Level {level}") if level else (CLEAN, "Clean")
        columns = [_column(values, methods, name, level, score) for score in _SCORES]
        for curve in _CURVES:
            found = [values.of(method, name, level, curve) for method in methods]
            columns.append([TableCell(dee_text(*value, results.max_size)) for value in found])
        columns.append([TableCell(share_text(values.of(method, name, level, "kept_nll"))) for method in methods])
        blocks.append(_block(title, methods, columns))
    return ReportTable(header, blocks)


def corruptions_table(results: Results) -> ReportTable | None:
    """Return accuracy and NLL under each corruption at the highest level."""
    every = levels(results)
    if results.shifts is None or not every:
        return None
    values, methods, top = Values(results.shifts), tabulated(results), every[-1]
    frame = results.shifts[results.shifts["level"] == top]
    names = [name for name in dict.fromkeys(frame["set"]) if name != MEAN]
    blocks = [
        _block(
            f"{results.task.scores[score].heading}, level {top}",
            methods,
            [_column(values, methods, name, top, score) for name in names],
        )
        for score in _BY_CORRUPTION
    ]
    return ReportTable(["Method", "Size", *map(set_title, names)], blocks)


def detection_table(results: Results) -> ReportTable | None:
    """Return how well out-of-distribution images are detected: a block a set, a column a measure and score."""
    if results.shifts is None:
        return None
    names = [name for name in dict.fromkeys(results.shifts["set"]) if name.startswith(OOD)]
    if not names:
        return None
    values, methods = Values(results.shifts), tabulated(results)
    metrics = {
        f"{metric}_{score}": f"{title[:-2]}, {by} {title[-1]}"
        for score, by in _CONFIDENCE.items()
        for metric, title in _DETECTION.items()
        if f"{metric}_{score}" in set(results.shifts["metric"])
    }
    blocks = [
        _block(set_title(name), methods, [_column(values, methods, name, -1, metric) for metric in metrics])
        for name in names
    ]
    return ReportTable(["Method", "Size", *metrics.values()], blocks)


def _column(values: Values, methods: Sequence[tuple[str, int]], name: str, level: int, metric: str) -> list[TableCell]:
    percent = metric in _PERCENT or metric.split("_")[0] in _DETECTION
    scale = 100 if percent else 1
    found = [tuple(scale * x for x in values.of(method, name, level, metric)) for method in methods]
    digits = decimals(((high - low) / 2 for _, low, high in found), *((1, 2) if percent else (3, 4)))
    return [TableCell(with_interval(mean, low, high, digits)) for mean, low, high in found]


def _block(title: str, methods: Sequence[tuple[str, int]], columns: Sequence[Sequence[TableCell]]) -> TableBlock:
    rows = zip(methods, zip(*columns, strict=True), strict=True)
    # Predictions made elsewhere are not tested on shifted images, so they have no row.
    known = [
        [TableCell(m[0]), TableCell(str(m[1])), *cells]
        for m, cells in rows
        if {cell.text for cell in cells} != {MISSING}
    ]
    return TableBlock(title, known)


def share_text(value: _Values, unit: str = "") -> str:
    """Return a share in % with its interval: `92 [80, 105]`, `31 [−∞, 240]`, with the unit after the share."""
    if math.isnan(value[0]):
        return MISSING

    def one(x: float) -> str:
        text = "∞" if math.isinf(x) else f"{100 * abs(x):.0f}"
        return f"−{text}" if x < 0 and text != "0" else text

    ends = "" if math.isnan(value[1]) else f" [{one(value[1])}, {one(value[2])}]"
    return f"{one(value[0])}{unit}{ends}"


def sentences(results: Results) -> list[str]:
    """Return how the ensemble's gain changes under shift, and the share of it that each method keeps."""
    every = levels(results)
    if results.shifts is None or not every:
        return []
    values, top = Values(results.shifts), every[-1]
    return [*_of_the_ensemble(results, values, top), *_of_the_others(results, values, top)]


def _of_the_ensemble(results: Results, values: Values, top: int) -> list[str]:
    reference = results.reference
    label, sizes = (reference["label"].iloc[0] if len(reference) else ""), set(reference["size"].astype(int))
    if 1 not in sizes or len(sizes) < 2:
        return []
    largest = max(sizes)

    def nll(size: int, level: int) -> float:
        return values.of((label, size), MEAN if level else CLEAN, level, "nll")[0]

    one, many = [nll(1, level) for level in (0, top)], [nll(largest, level) for level in (0, top)]
    gains = [a - b for a, b in zip(one, many, strict=True)]
    if any(map(math.isnan, gains)):
        return []
    return [
        f"Between clean images and level {top} (mean over the corruptions), the NLL of one network changes from "
        f"{one[0]:.3f} to {one[1]:.3f}, and that of {label}-{largest} from {many[0]:.3f} to {many[1]:.3f}. The "
        f"ensemble's gain changes from {gains[0]:.3f} to {gains[1]:.3f} nats."
    ]


def _of_the_others(results: Results, values: Values, top: int) -> list[str]:
    def kept(method: tuple[str, int], level: int) -> _Values:
        return values.of(method, MEAN if level else CLEAN, level, "kept_nll")

    methods = [m for m in tabulated(results) if not all(math.isnan(kept(m, level)[0]) for level in (0, top))]
    if not methods:
        return []
    said = [_kept_text(method, kept(method, 0), kept(method, top)) for method in methods]
    return [
        "A deep ensemble of a method's size has a gain in NLL over one network. The share of it that each method "
        f"keeps, on clean images and at level {top}: " + "; ".join(said) + "."
    ]


def _kept_text(method: tuple[str, int], clean: _Values, top: _Values) -> str:
    both = ("(no gain)" if math.isnan(share[0]) else share_text(share, " %") for share in (clean, top))
    return f"{method[0]} (size {method[1]}) " + " and ".join(both)
