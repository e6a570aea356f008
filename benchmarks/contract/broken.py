"""The error of a broken promise."""

from __future__ import annotations

from dbn_core.errors import BenchError


class ContractError(BenchError):
    """A method breaks a point of the contract: what it does, and what its author must change."""


def require(kept: bool, sentence: str) -> None:
    """Raise :class:`ContractError` with the sentence unless the promise is kept."""
    if not kept:
        raise ContractError(sentence)
