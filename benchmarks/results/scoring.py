"""Scores of one set of predictions: raw, and after temperature scaling where there are validation predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dbn_core.metrics.calibration import apply_temperature, expected_calibration_error, fit_temperature
from dbn_core.metrics.scores import Array, brier, correct, mixture_log_probs, negative_log_likelihood

# Scores that are means over examples, and whether a larger value is better.
PER_EXAMPLE = {"acc": True, "nll": False, "brier": False, "cnll": False, "cbrier": False, "kl_to_ensemble": False}
PER_SPLIT = {"ece": False, "cece": False}
SCORES = [*PER_EXAMPLE, *PER_SPLIT, "temperature"]


@dataclass(kw_only=True)
class Scores:
    """Scores on the test split; ``examples`` are [N], ``split`` are numbers.

    ``log_probs`` and ``calibrated`` are [N, K]; without validation predictions there is no calibrated score.
    """

    log_probs: Array
    labels: Array
    calibrated: Array | None = None
    examples: dict[str, Array] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)


def score_arrays(arrays: Mapping[str, Array], terms: int | None = None) -> Scores:
    """All scores that need no other predictions.  The temperature is fitted on validation.

    Args:
        arrays: ``test`` [M, N, K] log-probabilities and ``test_labels`` [N], and the same two of ``validation`` if any.
        terms: how many of the M terms count; all when None.
    """
    log_probs, labels = mixture_log_probs(arrays["test"][:terms]), arrays["test_labels"]
    result = Scores(log_probs=log_probs, labels=labels)
    result.examples = {
        "acc": correct(log_probs, labels),
        "nll": negative_log_likelihood(log_probs, labels),
        "brier": brier(log_probs, labels),
    }
    result.split = {"ece": expected_calibration_error(log_probs, labels)}
    if "validation" in arrays:
        temperature = fit_temperature(mixture_log_probs(arrays["validation"][:terms]), arrays["validation_labels"])
        calibrated = result.calibrated = apply_temperature(log_probs, temperature)
        result.examples |= {"cnll": negative_log_likelihood(calibrated, labels), "cbrier": brier(calibrated, labels)}
        result.split |= {"cece": expected_calibration_error(calibrated, labels), "temperature": temperature}
    return result
