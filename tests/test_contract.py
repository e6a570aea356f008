"""The contract tests over every registered method, and over methods that break it."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import nn

from benchmarks.check import CHECKS, Subject, check_method, make_subject
from dbn_core import Method, Mixture, Part, parse_method
from dbn_core.registry import methods


@lru_cache(maxsize=1)
def subject(spec: str) -> Subject:
    return make_subject(parse_method(spec))


SPECS = [*methods(), "dbn[preset=paper]", "dbn[distill=false,steps=2]", "end2[prediction=dirichlet]", "bn[slim=2]"]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(spec: str, check: object) -> None:
    check(subject(spec))  # type: ignore[operator]


class Draws(Method):
    """Trains from the global random state."""

    def parts(self, size: int) -> list[Part]:
        return [Part("x", members=(0,))]

    def fit(self, part: Part, context: object) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(3)}

    def members(self, size: int) -> tuple[int, ...]:
        return (0,)

    def predictor(self, size: int, context: object) -> nn.Module:
        return Mixture([context.members[0]])  # type: ignore[attr-defined]


class Spoils(Draws):
    """Changes a shared member."""

    def fit(self, part: Part, context: object) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            next(context.members[0].parameters()).add_(1)  # type: ignore[attr-defined]
        return {"x": torch.ones(1)}


class Batchwise(nn.Module):
    """Normalises over the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)[:, :4]
        return (x - x.mean(0)).log_softmax(-1)


class Leaks(Draws):
    """Looks at the rest of the batch."""

    def fit(self, part: Part, context: object) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(1)}

    def predictor(self, size: int, context: object) -> nn.Module:
        return Batchwise()


@pytest.mark.parametrize(
    ("method", "words"),
    [(Draws, "different weights"), (Spoils, "of a member"), (Leaks, "rest of the batch")],
    ids=["draws", "spoils", "leaks"],
)
def test_a_broken_method_is_told_what_is_wrong(method: type[Method], words: str) -> None:
    method.name = "de"  # a name that parses; the class is never registered
    problems = [verdict.problem for verdict in check_method(method())]
    assert any(words in problem for problem in problems), problems
