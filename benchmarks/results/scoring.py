"""Scores of one set of predictions: raw, and after temperature scaling where there are validation predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dbn_core.metrics.calibration import apply_temperature, calibration_error_terms, fit_temperature
from dbn_core.metrics.scores import Array, brier, correct, mixture_log_probs, negative_log_likelihood

# Scores that methods are compared in, and whether a larger value is better.
BETTER = {
    **{"acc": True, "nll": False, "brier": False, "cnll": False, "cbrier": False, "kl_to_ensemble": False},
    **{"ece": False, "cece": False, "ece_debiased": False, "cece_debiased": False},
}
SCORES = [*BETTER, "temperature"]


@dataclass(kw_only=True)
class Scores:
    """Scores on the test split; ``examples`` are [N], whose mean is the score, ``split`` are numbers.

    ``log_probs`` and ``calibrated`` are [N, K]; without validation predictions there is no calibrated score.  ``ids``
    [N] number the test examples in the whole source, where each repetition splits it anew.
    """

    log_probs: Array
    labels: Array
    ids: Array | None = None
    calibrated: Array | None = None
    examples: dict[str, Array] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)

    def __contains__(self, score: str) -> bool:
        """Whether the predictions have the score."""
        return score in self.examples or score in self.split

    def values(self, score: str) -> Array:
        """Its value for each example, [N], or for the whole split, [1]."""
        return self.examples[score] if score in self.examples else np.array([self.split[score]])


def score_arrays(arrays: Mapping[str, Array], terms: int | None = None) -> Scores:
    """All scores that need no other predictions.  The temperature is fitted on validation.

    Args:
        arrays: ``test`` [M, N, K] log-probabilities and ``test_labels`` [N], and the same two of ``validation`` if any;
            ``test_ids`` [N] where each repetition has a test split of its own.
        terms: how many of the M terms count; all when None.
    """
    log_probs, labels = mixture_log_probs(arrays["test"][:terms]), arrays["test_labels"]
    result = Scores(log_probs=log_probs, labels=labels, ids=arrays.get("test_ids"))
    result.examples = {
        "acc": correct(log_probs, labels),
        "nll": negative_log_likelihood(log_probs, labels),
        "brier": brier(log_probs, labels),
        "ece": calibration_error_terms(log_probs, labels),
        "ece_debiased": calibration_error_terms(log_probs, labels, debiased=True),
    }
    if "validation" in arrays:
        temperature = fit_temperature(mixture_log_probs(arrays["validation"][:terms]), arrays["validation_labels"])
        calibrated = result.calibrated = apply_temperature(log_probs, temperature)
        result.examples |= {
            "cnll": negative_log_likelihood(calibrated, labels),
            "cbrier": brier(calibrated, labels),
            "cece": calibration_error_terms(calibrated, labels),
            "cece_debiased": calibration_error_terms(calibrated, labels, debiased=True),
        }
        result.split = {"temperature": temperature}
    return result
