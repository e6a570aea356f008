"""Promises and their outcomes: how checks run, and the error of one that is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dbn_core.errors import BenchError

S = TypeVar("S")


class ContractError(BenchError):
    """A point of the contract is broken: what is wrong, and what the author must change."""


class NotCheckedError(Exception):
    """A check that cannot be made, and why."""


@dataclass
class CheckResult:
    """One check.

    Attributes:
        name: what is promised.
        outcome: ``ok``, ``FAIL``, or ``skip`` where an earlier failure prevents the check.
        sentence: the failure and its remedy, why the check was skipped, or a note on a check that passed.
    """

    name: str
    outcome: str = "ok"
    sentence: str = ""


def require(kept: bool, sentence: str) -> None:
    """Raise :class:`ContractError` with the sentence unless the promise is kept."""
    if not kept:
        raise ContractError(sentence)


def run_checks(checks: Sequence[Callable[[S], str | None]], subject: S) -> Iterator[CheckResult]:
    """Run checks, named by their docstrings, over a subject.

    A crash is a failure; a check that meets the same failure again is skipped.
    """
    failed = dict[str, str]()
    for check in checks:
        name = (check.__doc__ or check.__name__).rstrip(".")
        try:
            note = check(subject) or ""
        except KeyboardInterrupt:
            raise
        except NotCheckedError as reason:
            yield CheckResult(name, "skip", str(reason))
        except BaseException as error:  # also SystemExit, which a plugin may raise
            sentence = str(error) if isinstance(error, BenchError) else ""
            sentence = " ".join((sentence or f"{type(error).__name__}: {error}").split())
            first = failed.setdefault(sentence, name)
            if first == name:
                yield CheckResult(name, "FAIL", sentence)
            else:
                yield CheckResult(name, "skip", f"the same failure as of '{first}'")
        else:
            yield CheckResult(name, sentence=note)
