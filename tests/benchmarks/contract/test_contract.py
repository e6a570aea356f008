"""The contract tests over methods that keep it, and over methods that each break one promise."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks.contract import check
from benchmarks.contract.check import CHECKS, CheckResult, check_method
from dbn_core import Part, parse_method, register
from tests.support.promises import BROKEN, ORDINARY, Good, fitting, growing, listing, predicting, raises


def results_of(overrides: Mapping[str, Any], point: str = "") -> list[CheckResult]:
    """Results of Good with overrides; with ``point`` of the one check whose sentence has it."""
    register("mine")(type("Mine", (Good,), {"__doc__": "A method.", **overrides}))
    checks = [check for check in CHECKS if point in (check.__doc__ or "")]
    results = list(check_method(parse_method("mine"), checks))
    assert len(results) == len(checks) == (1 if point else len(CHECKS))
    return results


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_method_passes(name: str) -> None:
    assert {result.outcome for result in results_of(ORDINARY[name])} == {"ok"}


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named_in_one_sentence(name: str) -> None:
    overrides, point, words = BROKEN[name]
    growing.calls = 0  # type: ignore[attr-defined]
    [result] = results_of(overrides, point)
    assert result.outcome == "FAIL"
    assert words in result.sentence
    assert "\n" not in result.sentence


@pytest.mark.usefixtures("clean_registry")
def test_one_failure_is_reported_once_and_what_depends_on_it_is_skipped() -> None:
    crash = raises(RuntimeError("first line\nsecond line"))
    for names, failures in ((["fit"], 1), (["check_size"], 1), (["parts"], 1), (["parts", "predictor"], 1)):
        results = results_of(dict.fromkeys(names, crash))
        failed = [result.sentence for result in results if result.outcome == "FAIL"]
        assert len(failed) == failures, failed
        assert "skip" in {result.outcome for result in results}
        assert not any("\n" in sentence for sentence in failed)


@pytest.mark.usefixtures("clean_registry")
def test_every_part_is_checked() -> None:
    def fit(self: Any, part: Part, context: Any) -> dict[str, torch.Tensor]:
        if part.name == "second":
            self.index = 1
        return {"x": torch.ones(1)}

    parts = listing(Part("first"), Part("second"))
    [result] = results_of({**parts, **fitting(lambda context: None), "fit": fit}, "keeps nothing")
    assert "fit('second') sets self.index" in result.sentence


def test_no_check_is_an_assert_statement() -> None:
    """``python -O`` removes those."""
    files = Path(check.__file__).parent.glob("*.py")
    statements = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    assert not [node for node in statements if isinstance(node, ast.Assert)]


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("vote", [True, False])
def test_probabilities_of_zero_pass_with_a_note(vote: bool) -> None:
    def predict(self: Any, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return F.one_hot(logits.argmax(-1), 4).float().log() if vote else logits.log_softmax(-1)

    [result] = results_of(predicting(predict), "normalised")
    assert result.outcome == "ok"
    assert ("minus infinity" in result.sentence) == vote
