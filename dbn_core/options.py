"""Base class of options that are part of the keys of stored artefacts.  Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict


class KeyedOptions(BaseModel):
    """Options of a suite file or of a spec.  Frozen; unknown options are errors.

    The key of an artefact is the hash of its recipe (:mod:`benchmarks.suite.plan`).  A recipe holds options as
    :meth:`key` gives them, without those that equal their defaults.  A new option whose default changes no result
    therefore changes no key.  A change of a default, of a name or of what an option means changes keys or what they
    stand for: raise ``FORMAT`` of the plan with it, or ``version`` of the method that it concerns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def key(self, include: Collection[str] | None = None, exclude: Collection[str] = ()) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON.

        Args:
            include: of these options only.
            exclude: options to leave out, since what is made does not depend on them.
        """
        chosen = None if include is None else set(include)
        return self.model_dump(mode="json", include=chosen, exclude=set(exclude), exclude_defaults=True)


def parse_weights(option: str, text: str) -> list[float]:
    """Weights with sum 1 from numbers between colons.

    >>> parse_weights("weights", "1:2:5")
    [0.125, 0.25, 0.625]

    Raises:
        ValueError: what is no number of 0 or more, or a sum of 0; the message names the option.
    """
    try:
        weights = [float(weight) for weight in text.split(":")]
    except ValueError:
        weights = []
    total = sum(weights)
    if not (weights and min(weights) >= 0 and 0 < total < math.inf):
        raise ValueError(f"{option}={text}: write numbers of 0 or more, such as 1:2:4")
    return [weight / total for weight in weights]
