"""Scores in blocks, on several cores: what plain formulas over everything at once give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import entr, log_softmax, logsumexp
from scipy.stats import norm

from dbn_core.metrics import calibration, scores
from dbn_core.metrics.selective import smooth_calibration_error
from dbn_core.tasks.class_scores import caveats, score_arrays

BINS = 15


def plain_ece_terms(log_probs: np.ndarray, labels: np.ndarray, debiased: bool) -> np.ndarray:
    confidence = np.minimum(np.exp(log_probs.max(1)), 1)
    gaps = confidence - (log_probs.argmax(1) == labels)
    which = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(int)
    terms = np.empty(len(labels))
    for each in set(which):
        inside = which == each
        gap, sigma = gaps[inside].mean(), np.sqrt((confidence * (1 - confidence))[inside].sum()) / inside.sum()
        if not debiased:
            terms[inside] = np.sign(gap) * gaps[inside]
            continue
        z = abs(gap) / sigma if sigma else np.inf
        folded = 2 * sigma * norm.pdf(z) + abs(gap) * (1 - 2 * norm.cdf(-z))
        terms[inside] = 2 * abs(gap) - folded + np.sign(gap) * (1 + 2 * norm.cdf(-z)) * (gaps[inside] - gap)
    return terms


def plain_scores(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every score by SciPy, from arrays of full size."""

    def mixed(terms: np.ndarray) -> np.ndarray:
        mean = log_softmax(logsumexp(terms.astype(np.float64), axis=0) - np.log(len(terms)), axis=1)
        return np.where(np.isneginf(mean), -149 * np.log(2), mean)

    def own(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        hot = np.eye(log_probs.shape[1])[labels]
        return {
            "nll": -log_probs[np.arange(len(labels)), labels],
            "brier": ((np.exp(log_probs) - hot) ** 2).sum(1),
            "ece": plain_ece_terms(log_probs, labels, False),
            "ece_debiased": plain_ece_terms(log_probs, labels, True),
        }

    test, labels = mixed(arrays["test"]), arrays["test_labels"]
    held, truth = mixed(arrays["validation"]), arrays["validation_labels"]

    def loss(log_t: float) -> float:
        return float(-log_softmax(held / np.exp(log_t), axis=1)[np.arange(len(truth)), truth].mean())

    fit = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(fit.x))
    scaled = own(log_softmax(test / temperature, axis=1), labels)
    return {
        "acc": (test.argmax(1) == labels).astype(float),
        **own(test, labels),
        **{f"c{name}": values for name, values in scaled.items()},
        "temperature": np.array([temperature]),
    }


def plain_uncertainty(arrays: dict[str, np.ndarray], log_probs: np.ndarray, scaled: np.ndarray) -> dict[str, float]:
    """Every score of uncertainty by loops over thresholds, pairs and members, from given mixtures [N, K]."""
    labels, terms = arrays["test_labels"], arrays["test"].astype(np.float64)
    confidence, hit = calibration.confidence_and_hit(log_probs, labels)
    n, wrong, risks = len(labels), 1 - hit, []
    for k in range(1, n + 1):
        threshold = np.sort(confidence)[n - k]
        sure, tied = confidence > threshold, confidence == threshold
        risks.append((wrong[sure].sum() + (k - sure.sum()) * wrong[tied].mean()) / k)
    more = (confidence[:, None] > confidence) + 0.5 * (confidence[:, None] == confidence)
    held = np.exp(scores.mixture_log_probs(arrays["validation"]))[np.arange(40), arrays["validation_labels"]]
    sets = 1 - np.exp(log_probs) <= np.sort(1 - held)[39 - 1]  # ceil(0.95 * 41) = 39
    found = {
        "aurc": np.mean(risks),
        "augrc": (wrong[:, None] * more).mean(),
        "risk80": risks[-(-4 * n // 5) - 1],
        "smece": smooth_calibration_error(confidence, hit),
        "csmece": smooth_calibration_error(*calibration.confidence_and_hit(scaled, labels)),
        "lac_size": sets.sum(1).mean(),
        "lac_coverage": sets[np.arange(n), labels].mean(),
    }
    if (members := len(terms)) > 1:
        probs, votes = np.exp(terms), terms.argmax(2)
        within, mixed = entr(probs).sum(2).mean(0), entr(probs.mean(0)).sum(1)
        found["mutual_information"] = np.maximum(mixed - within, 0).mean()
        found["disagreement"] = np.mean([votes[i] != votes[j] for i in range(members) for j in range(i)])
    return {name: float(value) for name, value in found.items()}


def predictions(seed: int, members: int, examples: int, classes: int, kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("test", examples), ("validation", 40)):
        truth = rng.integers(0, classes, count)
        logits = rng.normal(size=(members, count, classes)) * 2 + 2 * np.eye(classes)[truth]
        logits[:] = logits[:1] if kind == "equal members" else logits
        logits = np.round(logits) if kind == "ties" else logits
        arrays |= {split: log_softmax(logits, axis=-1).astype(np.float32), f"{split}_labels": truth}
    if kind == "impossible classes":
        arrays["test"][:, np.arange(examples), (arrays["test_labels"] + 1) % classes] = -np.inf
    return arrays


kinds = st.sampled_from(["any", "ties", "equal members", "impossible classes"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 90), st.integers(3, 12), kinds)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_plain_formulas(seed: int, members: int, examples: int, classes: int, kind: str) -> None:
    arrays = predictions(seed, members, examples, classes, kind)
    found, truth = score_arrays(arrays), plain_scores(arrays)
    means = plain_uncertainty(arrays, found.log_probs, found.calibrated)
    assert {*found.examples, *found.split} == {*truth, *means}
    for name, value in means.items():
        assert found.values(name).mean() == pytest.approx(value, rel=1e-6, abs=1e-6), name
    for name, values in truth.items():
        assert found.values(name) == pytest.approx(values, rel=1e-9, abs=1e-12), name


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 90), kinds, st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_blocks_change_no_bit(seed: int, members: int, examples: int, kind: str, block: int) -> None:
    arrays = predictions(seed, members, examples, 7, kind)
    whole = score_arrays(arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "_BLOCK", block)
        parts = score_arrays(arrays)
        divergence = scores.kl_divergence(whole.log_probs, parts.calibrated)
    assert whole.split == parts.split
    assert whole.log_probs.tobytes() == parts.log_probs.tobytes()
    assert whole.calibrated.tobytes() == parts.calibrated.tobytes()
    for name, values in whole.examples.items():
        assert values.tobytes() == parts.examples[name].tobytes(), name
    assert divergence.tobytes() == scores.kl_divergence(whole.log_probs, whole.calibrated).tobytes()


def test_logarithms_are_scipys_where_numbers_are_infinite() -> None:
    odd = np.array([[[-np.inf, 0.0, 1.0]], [[-np.inf, 0.0, -np.inf]]])
    assert np.array_equal(scores._logsumexp(odd), logsumexp(odd, axis=0))
    row = np.array([[-np.inf, 0.0, -np.inf], [3.0, 3.0, -1e300]])
    assert np.array_equal(scores.log_softmax(row), log_softmax(row, axis=1))


def test_no_examples_have_no_scores() -> None:
    assert scores.brier(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)
    assert calibration.apply_temperature(np.zeros((0, 3)), 2.0).shape == (0, 3)


def test_an_error_in_a_block_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_BLOCK", 1)

    def fail(block: np.ndarray) -> np.ndarray:
        if block[0, 0] == 7:
            raise RuntimeError("the seventh")
        return block

    with pytest.raises(RuntimeError, match="the seventh"):
        scores.by_example(fail, np.arange(10.0)[:, None])


def test_zeros_and_a_temperature_that_nothing_determines_are_told() -> None:
    arrays = predictions(0, 2, 30, 5, "impossible classes")
    arrays["test"][:, 0, arrays["test_labels"][0]] = -np.inf
    arrays["test"][0, 1, arrays["test_labels"][1]] = -np.inf  # the other member's is not zero
    arrays["validation"][:] = np.log(0.2)
    found = score_arrays(arrays)
    assert (found.zeros, found.zero_labels, found.determined) == (31, 1, False)
    assert found.examples["nll"][0] == pytest.approx(149 * np.log(2))
    for values in found.examples.values():
        assert np.isfinite(values).all()
    zeros, temperature = caveats([found])
    assert zeros.startswith("31 of 150 test probabilities are exactly 0 and count as 1.4e-45; 1 of them")
    assert "does not determine the temperature:" in temperature
    good = score_arrays(predictions(0, 2, 30, 5, "any"))
    assert caveats([good]) == []
    assert "in 1 of 2 repetitions" in caveats([good, found])[1]
