"""Scores of class probabilities: which ones there are, and how they are computed from stored predictions.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbn_core.tasks.base import Score, Scores

if TYPE_CHECKING:
    from dbn_core.metrics.scores import Array

_COVERAGE = 0.8  # of the selective risk
_MISSED = 0.05  # share of conformal sets that may miss the label

SCORES: Mapping[str, Score] = {
    "acc": Score("ACC", "higher", percent=True, words="accuracy"),
    "nll": Score("NLL"),
    "brier": Score("BS", words="Brier score"),
    "cnll": Score("cNLL", words="calibrated NLL"),
    "cbrier": Score("cBS", words="calibrated Brier score"),
    "kl_to_ensemble": Score("KL to ensemble"),
    "ece": Score("ECE", percent=True),
    "cece": Score("cECE", percent=True, words="calibrated ECE"),
    "ece_debiased": Score("ECE debiased", percent=True, words="debiased ECE"),
    "cece_debiased": Score("cECE debiased", percent=True, words="calibrated debiased ECE"),
    "temperature": Score("temperature", None),
    "augrc": Score(
        "AUGRC",
        percent=True,
        table="uncertainty",
        meaning="area under the generalised risk-coverage curve (Traub et al., 2024): the share of all examples "
        "that are both wrong and accepted, mean over all coverages.",
    ),
    "aurc": Score(
        "AURC",
        percent=True,
        table="uncertainty",
        meaning="area under the risk-coverage curve (Geifman and El-Yaniv, 2017): the share of errors among the "
        "accepted examples, mean over all coverages.",
    ),
    "risk80": Score(
        "risk at 80 % coverage",
        percent=True,
        table="uncertainty",
        meaning="share of errors among the 80 % most confident examples.",
    ),
    "smece": Score(
        "smECE",
        percent=True,
        table="uncertainty",
        words="smooth ECE",
        meaning="smooth ECE (Błasiok and Nakkiran, 2024): without bins.",
    ),
    "csmece": Score("csmECE", percent=True, table="uncertainty", words="calibrated smooth ECE"),
    "mutual_information": Score(
        "MI",
        better=None,
        table="uncertainty",
        words="mutual information",
        meaning="mutual information of class and member in nats: entropy of the mean prediction minus mean entropy "
        "of the members. It grows with their number.",
    ),
    "disagreement": Score(
        "disagreement",
        better=None,
        percent=True,
        table="uncertainty",
        meaning="share of the pairs of members whose top classes differ.",
    ),
    "lac_size": Score(
        "set size",
        table="uncertainty",
        words="size of conformal sets",
        meaning="mean number of classes in conformal sets (LAC; Sadinle et al., 2019), calibrated on validation to "
        "hold the label in 95 %.",
    ),
    "lac_coverage": Score(
        "coverage of sets",
        better=None,
        percent=True,
        table="uncertainty",
        words="coverage of conformal sets",
        meaning="share of these sets that hold the label, on test.",
    ),
}


@dataclass(kw_only=True)
class ClassScores(Scores):
    """Scores of class probabilities.

    Attributes:
        log_probs: [N, K].
        labels: [N].
        zeros: how many probabilities were exactly zero, and count as ``FLOOR`` (:mod:`dbn_core.metrics.scores`).
        zero_labels: how many of them are a label's.
        determined: whether the validation split determines the temperature.
    """

    log_probs: Array
    labels: Array
    zeros: int = 0
    zero_labels: int = 0
    determined: bool = True

    @property
    def calibrated(self) -> Array | None:
        """``log_probs`` at the fitted temperature, computed anew; None without validation."""
        from dbn_core.metrics.calibration import apply_temperature

        return apply_temperature(self.log_probs, self.split["temperature"]) if "temperature" in self.split else None


def caveats(scores: Sequence[ClassScores]) -> list[str]:
    """Caveats of the scores of one method over its repetitions, in sentences."""
    from dbn_core.metrics.scores import FLOOR

    lines = []
    if zeros := sum(each.zeros for each in scores):
        total, of_labels = sum(each.log_probs.size for each in scores), sum(each.zero_labels for each in scores)
        lines.append(
            f"{zeros:,} of {total:,} test probabilities are exactly 0 and count as {FLOOR:.2g}; {of_labels:,} of them "
            f"are a label's{', and the NLL depends on that' if of_labels else ''}."
        )
    if loose := sum(not each.determined for each in scores):
        where = f" in {loose} of {len(scores)} repetitions" if len(scores) > 1 else ""
        lines.append(
            f"validation does not determine the temperature{where}: the NLL is flat or has no minimum from T = 0.05 to "
            "20, so calibrated scores depend on the search."
        )
    return lines


def score_arrays(arrays: Mapping[str, Array], terms: int | None = None) -> ClassScores:
    """All scores that need no other predictions; the temperature is fitted on validation.

    Args:
        arrays: ``test`` [M, N, K] log-probabilities and ``test_labels`` [N], and the same two of ``validation`` if any;
            ``test_ids`` [N] where each repetition has a test split of its own.
        terms: number of terms to use, from the first; all if None.
    """

    from dbn_core.metrics.calibration import search_temperature
    from dbn_core.metrics.scores import LOG_FLOOR, by_example, mixture_log_probs, negative_log_likelihood
    from dbn_core.metrics.selective import conformal_scores, conformal_threshold, disagreement, mutual_information

    members = arrays["test"][:terms]
    log_probs, labels = mixture_log_probs(members), arrays["test_labels"]
    result = ClassScores(log_probs=log_probs, labels=labels, ids=arrays.get("test_ids"))
    result.zeros = int(by_example(lambda block: (block == LOG_FLOOR).sum(1), log_probs).sum())
    result.zero_labels = int((negative_log_likelihood(log_probs, labels) == -LOG_FLOOR).sum())
    result.examples = _examples(log_probs, labels)
    if len(members) > 1:
        result.examples |= {"mutual_information": mutual_information(members), "disagreement": disagreement(members)}
    if "validation" in arrays:
        validation, known = mixture_log_probs(arrays["validation"][:terms]), arrays["validation_labels"]
        temperature, result.determined = search_temperature(validation, known)
        threshold = conformal_threshold(conformal_scores(validation, known), _MISSED)
        del validation  # no more is needed of it, and the rest needs memory
        result.split = {"temperature": temperature}
        scaled = _examples(log_probs, labels, temperature)
        result.examples |= {f"c{name}": values for name, values in scaled.items() if name != "acc"}
        result.examples |= _sets(log_probs, labels, threshold)
    return result


def _sets(log_probs: Array, labels: Array, threshold: float) -> dict[str, Array]:
    """Sizes of the conformal sets, and whether they hold the label; [N] each, computed in blocks to save memory."""
    import numpy as np

    from dbn_core.metrics.scores import by_example
    from dbn_core.metrics.selective import conformal_sets

    def of_block(log_probs: Array, labels: Array) -> Array:
        sets = conformal_sets(log_probs, threshold)
        return np.stack([sets.sum(1), sets[np.arange(len(labels)), labels]], 1).astype(np.float64)

    size, held = np.ascontiguousarray(by_example(of_block, log_probs, labels).T)
    return {"lac_size": size, "lac_coverage": held}


def _examples(log_probs: Array, labels: Array, temperature: float | None = None) -> dict[str, Array]:
    """Scores of each example, [N], at a temperature if one is given; computed in blocks to save memory."""
    import numpy as np

    from dbn_core.metrics.calibration import apply_temperature, calibration_terms, confidence_and_hit
    from dbn_core.metrics.scores import brier, by_example, negative_log_likelihood
    from dbn_core.metrics.selective import (
        augrc_terms,
        aurc_terms,
        risk_at_coverage_terms,
        smooth_calibration_terms,
    )

    def of_block(log_probs: Array, labels: Array) -> Array:
        block = log_probs if temperature is None else apply_temperature(log_probs, temperature)
        scores = negative_log_likelihood(block, labels), brier(block, labels), *confidence_and_hit(block, labels)
        return np.stack(scores, 1)

    nll, brier_score, confidence, hit = np.ascontiguousarray(by_example(of_block, log_probs, labels).T)
    scores = {
        "acc": hit,
        "nll": nll,
        "brier": brier_score,
        "ece": calibration_terms(confidence, hit),
        "ece_debiased": calibration_terms(confidence, hit, debiased=True),
        "smece": smooth_calibration_terms(confidence, hit),
    }
    if temperature is None:  # which hardly changes the order of confidences
        scores |= {
            "augrc": augrc_terms(confidence, hit),
            "aurc": aurc_terms(confidence, hit),
            "risk80": risk_at_coverage_terms(confidence, hit, _COVERAGE),
        }
    return scores
