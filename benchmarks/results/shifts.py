"""Scores on shifted images: by severity of corruption, and of detecting out-of-distribution images.  No torch.

The statistics are those of the clean test split (:mod:`benchmarks.results.pairing`): a corrupted image is the same
example, and the mean over corruptions is taken for each example.  Scores of detection are of whole sets, so their
intervals are over repetitions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results.equivalents import kept_share
from benchmarks.results.pairing import CellResult, Key, Pairing, by_method, identity
from benchmarks.results.pools import effects, leave_one_out
from benchmarks.results.rows import add_equivalents, reference_keys
from benchmarks.statistics import Interval
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.data.shifted import corrupted_name, ood_name
from dbn_core.errors import ArtefactError
from dbn_core.metrics.calibration import (
    apply_temperature,
    calibration_error_terms,
    confidence_and_hit,
    fit_temperature,
)
from dbn_core.metrics.detection import detection, detectors
from dbn_core.metrics.scores import Array, correct, mixture_log_probs, negative_log_likelihood
from dbn_core.metrics.selective import augrc_terms
from dbn_core.tasks.base import Scores

CLEAN, MEAN = "clean", "corruptions"  # the test images as they are, and the mean over all corruptions of a level
COLUMNS = ("method", "label", "family", "size", "set", "level", "metric", "n", "mean", "low", "high")
METRICS = ("acc", "nll", "ece", "cnll", "cece", "augrc")
KEPT = ("acc", "nll", "cnll")  # scores whose remaining share of the gain over one network is given


@dataclass(frozen=True)
class _Predicted:
    """Predictions of one cell, or of some members of a pool.

    Attributes:
        terms: [M, N, K] log-probabilities by set, :data:`CLEAN` among them.
        labels, ids: [N], of the test images.
        temperature: fitted on clean validation images; None without such.
    """

    terms: Mapping[str, Array]
    labels: Array
    ids: Array | None
    temperature: float | None

    def corrupted(self, name: str) -> Scores:
        """Scores of each example of a set."""
        log_probs = mixture_log_probs(self.terms[name])
        examples = {
            "acc": correct(log_probs, self.labels),
            "nll": negative_log_likelihood(log_probs, self.labels),
            "ece": calibration_error_terms(log_probs, self.labels),
            "augrc": augrc_terms(*confidence_and_hit(log_probs, self.labels)),
        }
        if self.temperature is not None:
            calibrated = apply_temperature(log_probs, self.temperature)
            examples |= {
                "cnll": negative_log_likelihood(calibrated, self.labels),
                "cece": calibration_error_terms(calibrated, self.labels),
            }
        return Scores(examples=examples, ids=self.ids)

    def detected(self, name: str) -> Scores:
        """How well each score separates clean from out-of-distribution images.

        Of shifted images a method that is not nested has its mean prediction alone, so it has no mutual information.
        """
        clean, shifted = detectors(self.terms[CLEAN]), detectors(self.terms[name])
        split = {
            f"{metric}_{score}": value
            for score, confidence in clean.items()
            if score in shifted
            for metric, value in detection(confidence, shifted[score]).items()
        }
        return Scores(split=split, ids=self.ids)


# Members of a shared pool one by one, and for each all others, from which their effect on scores is estimated.
_Pool = tuple[list[_Predicted], list[_Predicted]]


def shift_table(plan: Plan, results: Sequence[CellResult], store: Store) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """All scores on shifted images in long form, and the reasons why some are missing, by key.

    Args:
        results: scored cells, whose temperatures are used.

    Returns:
        Columns :data:`COLUMNS`, a row for each method, size, set, level (0: clean; empty for out-of-distribution
        images) and metric; None for a suite without ``[shift]``.
    """
    if plan.suite.shift is None:
        return None, {}
    predicted, problems = [], {}
    for result in results:
        if result.cell.shifts:
            try:
                predicted.append((result.cell, _of_cell(plan, result, store)))
            except ArtefactError as error:
                missing = [key for key in result.cell.shifts if not store.has("shifts", key)]
                problems[(missing or result.cell.shifts)[0]] = str(error)
    pool, shift, rows = _pool(plan, predicted, store), plan.suite.shift, []
    rows += _severity_rows(plan, CLEAN, 0, _scores(predicted, pool, [CLEAN]))
    for level in shift.levels if shift.corruptions else ():
        names = [corrupted_name(name, level) for name in shift.corruptions]
        for name, one in zip((MEAN, *shift.corruptions), (names, *([name] for name in names)), strict=True):
            rows += _severity_rows(plan, name, level, _scores(predicted, pool, one))
    for name in shift.ood:
        groups, pairing = _scores(predicted, pool, [ood_name(name)], detect=True)
        for key in groups:
            means = {m: pairing.mean(m, key) for m in groups[key][0].scores.split}
            rows += _rows(groups[key], ood_name(name), np.nan, means)
    return pd.DataFrame(rows, columns=COLUMNS), problems


def _of_cell(plan: Plan, result: CellResult, store: Store) -> _Predicted:
    cell = result.cell
    made = [store.arrays("shifts", key) for key in cell.shifts]
    terms = {name: np.concatenate([arrays[name] for arrays in made])[: cell.terms] for name in made[0]}
    count = plan.nodes[cell.shifts[0]].recipe["shift"]["images"]
    known = store.arrays("predictions", cell.predictions)
    ids = known["test_ids"][:count] if "test_ids" in known else None
    terms[CLEAN] = known["test"][: cell.terms, :count]
    return _Predicted(terms, known["test_labels"][:count], ids, result.scores.split.get("temperature"))


def _pool(plan: Plan, predicted: Sequence[tuple[Cell, _Predicted]], store: Store) -> _Pool | None:
    """Members of a shared pool, from its largest deep ensemble (as :mod:`benchmarks.results.pools` takes them)."""
    ensembles = [pair for pair in predicted if pair[0].is_reference and pair[0].size > 1]
    if plan.suite.pool.sharing != "shared" or not ensembles:
        return None
    cell, all_of_it = max(ensembles, key=lambda pair: (pair[0].size, -pair[0].repetition))
    known = store.arrays("predictions", cell.predictions)

    def some(members: list[int]) -> _Predicted:
        terms = {name: values[members] for name, values in all_of_it.terms.items()}
        validation = mixture_log_probs(known["validation"][members])
        temperature = fit_temperature(validation, known["validation_labels"])
        return _Predicted(terms, all_of_it.labels, all_of_it.ids, temperature)

    alone, others = leave_one_out(cell.size)
    return list(map(some, alone)), list(map(some, others))


def _scores(
    predicted: Sequence[tuple[Cell, _Predicted]], pool: _Pool | None, names: Sequence[str], detect: bool = False
) -> tuple[dict[Key, list[CellResult]], Pairing]:
    """Every cell scored on a set, or on the mean of several, and their pairing."""

    def score(of: _Predicted) -> Scores:
        return of.detected(names[0]) if detect else _mean([of.corrupted(name) for name in names])

    groups = by_method([CellResult(cell, score(of)) for cell, of in predicted])
    if pool is None:
        return groups, Pairing(groups)
    alone, others = pool
    return groups, Pairing(groups, effects(list(map(score, alone)), list(map(score, others))))


def _mean(scores: Sequence[Scores]) -> Scores:
    examples = {name: np.mean([one.examples[name] for one in scores], axis=0) for name in scores[0].examples}
    return Scores(examples=examples, ids=scores[0].ids)


def _severity_rows(
    plan: Plan, name: str, level: int, scored: tuple[dict[Key, list[CellResult]], Pairing]
) -> list[dict[str, Any]]:
    groups, pairing = scored
    task = plan.suite.task
    worth: list[dict[str, Any]] = [{"method": key[0], "size": key[1]} for key in groups]
    add_equivalents(task, worth, groups, pairing)
    rows = []
    for key, row in zip(groups, worth, strict=True):
        found = {metric: pairing.mean(metric, key) for metric in METRICS}
        found |= {column: Interval(row[column], row[f"{column}_low"], row[f"{column}_high"]) for column in task.curves}
        rows += _rows(groups[key], name, level, found | _kept(groups, key, pairing))
    return rows


def _kept(groups: Mapping[Key, list[CellResult]], key: Key, pairing: Pairing) -> dict[str, Interval]:
    """The share of a deep ensemble's gain over one network that a method of its size has, where there is a gain."""
    ensembles = reference_keys(groups)
    if key in ensembles.values() or key[1] < 2 or not {1, key[1]} <= set(ensembles):
        return {}
    between, found = [ensembles[1], ensembles[key[1]]], {}
    for metric in KEPT:
        if repetitions := pairing.shared(metric, [key, *between]):
            gaps = pairing.gaps(metric, key, between, repetitions)
            if (gaps.mean[0] > gaps.mean[1]) == (metric == "acc"):  # else the ensemble is no better than one network
                found[f"kept_{metric}"] = kept_share(gaps)
    return found


def _rows(group: Sequence[CellResult], name: str, level: float, found: Mapping[str, Interval]) -> list[dict[str, Any]]:
    where = {**identity(group[0].cell), "set": name, "level": level, "n": len(group)}
    return [
        {**where, "metric": metric, "mean": value.value, "low": value.low, "high": value.high}
        for metric, value in found.items()
        if not np.isnan(value.value)
    ]
