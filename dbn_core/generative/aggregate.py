"""Rules that combine M vector fields into one: how an ensemble of score networks moves a common state.

From "When Are Two Scores Better Than One?" (2026, arXiv 2601.11444).  The released code draws one index for a batch,
takes the lower of two middle values as the median, and shifts by the whole batch; here each example has its own.
Values [M, B, ...] are scores, noise predictions or velocities of M members at a common state.

>>> import torch
>>> values = torch.tensor([[[1.0, -4.0]], [[3.0, 2.0]]])  # M = 2 members, one example, two coordinates
>>> for spec in ("arithmetic", "dominant", "sum"):
...     rule = parse_rule(spec)
...     state = rule.start(members=2, examples=1)
...     print(spec, rule(values, state, step=0).tolist())
arithmetic [[2.0, -1.0]]
dominant [[3.0, -4.0]]
sum [[4.0, -2.0]]

Torch is imported only where members are drawn, so that a spec can be checked without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from dbn_core.errors import SpecError, did_you_mean, shown

if TYPE_CHECKING:
    import torch

_SPEC = re.compile(r"(?P<name>[a-z-]+)\s*(\[\s*margin\s*=(?P<margin>[^\[\],=]+)\])?")


def arithmetic(values: torch.Tensor) -> torch.Tensor:
    """Mean over members, [M, B, ...] to [B, ...].

    At one state the mean of denoised predictions is the same rule, since they are affine in the values.
    """
    return values.mean(0)


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum over members: M times the mean.  A product of experts only where the densities are not diffused."""
    return values.sum(0)


def geometric(values: torch.Tensor, margin: float) -> torch.Tensor:
    """``exp(mean log(s + c)) - c`` with an offset of each example's own, ``c = abs(min) + margin``.

    The offset makes signed values positive; the minimum is over members and coordinates of one example, so the result
    does not depend on the rest of the batch.  To second order it is ``mean - Var / (2 (mean + c))``: nearly the
    arithmetic mean, unless the margin is far below the values' size, when the least coordinate collapses to about -c.

    Args:
        margin: positive, in the unit of the values and of their order.
    """
    least = values.transpose(0, 1).flatten(1).amin(1)
    offset = (least.abs() + margin).reshape(-1, *[1] * (values.ndim - 2))
    return (values + offset).log().mean(0).exp() - offset


def median(values: torch.Tensor) -> torch.Tensor:
    """Median of each coordinate over members: the mean of the middle two where M is even (so the mean at M = 2)."""
    ordered = values.sort(0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def dominant(values: torch.Tensor) -> torch.Tensor:
    """Per coordinate the value with the largest magnitude, with its sign; the positive one of two equal ones."""
    most, least = values.amax(0), values.amin(0)
    return most.where(most >= -least, least)


def select(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The value of member ``index[b]`` for example b: [M, B, ...] and int64 [B] to [B, ...]."""
    import torch

    index = index.to(values.device)
    return values[index, torch.arange(len(index), device=values.device)]


@dataclass
class RuleState:
    """State of a rule along the trajectories of one batch: the member of each example, if the rule draws one."""

    members: int
    examples: int
    generator: torch.Generator | None = None
    index: torch.Tensor | None = None  # int64 [B]
    step: int | None = None  # at which the index was drawn

    def draw(self) -> torch.Tensor:
        """New members for all examples, uniform and independent."""
        import torch

        if self.generator is None:
            raise ValueError("This rule draws members: pass a torch.Generator to start().")
        device = self.generator.device
        self.index = torch.randint(self.members, (self.examples,), generator=self.generator, device=device)
        return self.index


@dataclass(frozen=True)
class Rule:
    """A rule; see :data:`RULES`.

    Attributes:
        margin: that of ``geometric``; 0 where it must still be given, None for the other rules.
        draws: ``step``: each example follows one member, drawn anew at every step; ``trajectory``: drawn once.
        pools: ``states``: called at every step; ``ends``: each member has its own trajectory from a common start, and
            the rule is called once, on their ends.
    """

    name: str
    function: Callable[..., torch.Tensor]
    margin: float | None = None
    draws: Literal["never", "step", "trajectory"] = "never"
    pools: Literal["states", "ends"] = "states"

    def __str__(self) -> str:
        return self.name if self.margin is None else f"{self.name}[margin={self.margin}]"

    def start(self, members: int, examples: int, generator: torch.Generator | None = None) -> RuleState:
        """The state of a batch of trajectories at their start.

        Args:
            members: M.
            examples: B.
            generator: source of members; needed by rules that draw them.

        Raises:
            ValueError: the rule draws members and has no generator.
        """
        state = RuleState(members, examples, generator)
        if self.draws != "never":
            state.draw()
        return state

    def choice(self, state: RuleState, step: int) -> torch.Tensor | None:
        """The member that each example follows at this step, int64 [B], or ``None`` where all M are needed.

        Successive calls with the same step return the same members, so a solver may evaluate twice.
        """
        if self.draws == "step" and state.step not in (None, step):
            state.draw()
        state.step = step
        return state.index

    def __call__(self, values: torch.Tensor, state: RuleState, step: int) -> torch.Tensor:
        """Values of the members at a common state, [M, B, ...], to one, [B, ...]."""
        index = self.choice(state, step)
        if index is not None:
            return select(values, index)
        return self.function(values) if self.margin is None else self.function(values, self.margin)


RULES = {
    rule.name: rule
    for rule in (
        Rule("arithmetic", arithmetic),
        Rule("geometric", geometric, margin=0.0),
        Rule("median", median),
        Rule("dominant", dominant),
        Rule("sum", total),
        Rule("alternating", select, draws="step"),
        Rule("moe", select, draws="trajectory"),  # a mixture of experts
        Rule("mean-predictions", arithmetic, pools="ends"),
    )
}


def parse_rule(spec: str) -> Rule:
    """The rule that a spec such as ``median`` or ``geometric[margin=1.0]`` names.

    Raises:
        SpecError: unknown rule, or a margin that is missing, not positive or not the rule's.
    """
    match = _SPEC.fullmatch(spec.strip())
    if not match:
        raise SpecError(f"Rule {shown(spec)} is malformed: write its name, or geometric[margin=1.0].")
    name, margin = match["name"], match["margin"]
    if name not in RULES:
        raise SpecError(f"Unknown rule {shown(name)}{did_you_mean(name, RULES)}.")
    rule = RULES[name]
    if rule.margin is None and margin is None:
        return rule
    if margin is None:
        raise SpecError(f"Rule '{name}' needs its margin: write {name}[margin=1.0], in the unit of the values.")
    if rule.margin is None:
        raise SpecError(f"Rule '{name}' takes no margin: write {name}.")
    try:
        number = float(margin)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SpecError(f"The margin of rule {shown(spec)} is {shown(margin)}: give a positive number.")
    return replace(rule, margin=number)


def _checked(spec: str) -> str:
    try:
        return str(parse_rule(spec))
    except SpecError as error:
        raise ValueError(str(error)) from error


# The spec of a rule as an option of a method.
RuleSpec = Annotated[str, AfterValidator(_checked)]
