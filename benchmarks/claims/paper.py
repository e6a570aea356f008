"""A paper and its claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.claims.decide import Claim, Decide


@dataclass(frozen=True)
class Paper:
    """A paper, a note for readers of its claims, and the claims."""

    key: str
    name: str
    title: str
    arxiv: str
    note: str
    claims: list[Claim] = field(default_factory=list)

    def claim(
        self, name: str, of: Sequence[str], *, why: str, data: str = "", published: str = "",
        caveats: dict[str, str] | None = None, see: str = "", suite: str = "",
    ) -> Callable[[Decide], Decide]:  # fmt: skip
        """Add a function to the claims of this paper; see :class:`benchmarks.claims.decide.Claim`."""

        def decorate(function: Decide) -> Decide:
            sentence = " ".join((function.__doc__ or "").split())
            key = function.__name__.replace("_", "-")
            found = Claim(key, self.key, name, sentence, tuple(of), function, why, data, published, caveats, see, suite)
            self.claims.append(found)
            return function

        return decorate
