"""Rules that combine M vector fields into one: how an ensemble of score networks moves a common state.

From "When Are Two Scores Better Than One?" (2026, arXiv 2601.11444).  The released code draws one index for a batch,
takes the lower of two middle values as the median, and shifts by the whole batch; here each example has its own.
Values [M, B, ...] are scores, noise predictions or velocities of M members at a common state.

>>> import torch
>>> values = torch.tensor([[[1.0, -4.0]], [[3.0, 2.0]]])  # M = 2 members, one example, two coordinates
>>> for spec in ("arithmetic", "dominant", "sum", "guidance[scale=0.5]"):
...     rule = parse_rule(spec)
...     state = rule.start(members=2, examples=1)
...     print(spec, rule(values, state, step=0).tolist())
arithmetic [[2.0, -1.0]]
dominant [[3.0, -4.0]]
sum [[4.0, -2.0]]
guidance[scale=0.5] [[1.0, -0.5]]

Torch is imported only where members are drawn, so that a spec can be checked without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from dbn_core.errors import SpecError, did_you_mean, shown

if TYPE_CHECKING:
    import torch

_SPEC = re.compile(r"(?P<name>[^\[\]]+?)\s*(\[(?P<options>[^\[\]]*)\])?")


def arithmetic(values: torch.Tensor) -> torch.Tensor:
    """Mean over members, [M, B, ...] to [B, ...].

    At one state the mean of denoised predictions is the same rule, since they are affine in the values.
    """
    return values.mean(0)


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum over members: M times the mean.  A product of experts only where the densities are not diffused."""
    return values.sum(0)


def guidance(values: torch.Tensor, scale: float) -> torch.Tensor:
    """``scale`` times the mean: 1 is the arithmetic mean, M the sum."""
    return scale * values.mean(0)


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
    """A rule with its options; see :data:`RULES`.

    Attributes:
        draws: ``step``: each example follows one member, drawn anew at every step; ``trajectory``: drawn once.
        pools: ``states``: called at every step; ``ends``: each member has its own trajectory from a common start, and
            the rule is called once, on their ends.
        least_members: smallest M for which the rule is defined.
    """

    name: str
    summary: str
    function: Callable[..., torch.Tensor]
    options: Mapping[str, float | None] = field(default_factory=dict, hash=False)  # None: must be given
    draws: Literal["never", "step", "trajectory"] = "never"
    pools: Literal["states", "ends"] = "states"
    least_members: int = 1

    def __str__(self) -> str:
        body = ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}[{body}]" if body else self.name

    def start(self, members: int, examples: int, generator: torch.Generator | None = None) -> RuleState:
        """The state of a batch of trajectories at their start.

        Args:
            members: M.
            examples: B.
            generator: source of members; needed by rules that draw them.

        Raises:
            SpecError: too few members for the rule.
            ValueError: the rule draws members and has no generator.
        """
        if members < self.least_members:
            raise SpecError(
                f"Rule '{self.name}' needs at least {self.least_members} member(s), not {members}: "
                "take more members, or 'arithmetic'."
            )
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
        """Values of the members at a common state, [M, B, ...], to one, [B, ...].

        Raises:
            ValueError: not as many members or examples as the state was started for.
        """
        if tuple(values.shape[:2]) != (state.members, state.examples):
            raise ValueError(
                f"Rule '{self.name}' was started for {state.members} members and {state.examples} examples, not for "
                f"values of shape {tuple(values.shape)}: call start() for each batch."
            )
        index = self.choice(state, step)
        return self.function(values, **self.options) if index is None else select(values, index)


def _table(*rules: Rule) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


RULES = _table(
    Rule("arithmetic", "mean of the members", arithmetic),
    Rule("geometric", "shifted geometric mean; margin > 0 in the values' unit", geometric, {"margin": None}),
    Rule("median", "median of each coordinate", median),
    Rule("dominant", "largest in size of each coordinate", dominant),
    Rule("sum", "sum of the members", total),
    Rule("guidance", "the mean times scale", guidance, {"scale": None}),
    Rule("alternating", "a member drawn at every step, for each example", select, draws="step", least_members=2),
    Rule("moe", "mixture of experts: a member drawn for each trajectory", select, draws="trajectory"),
    Rule("mean-predictions", "mean of M trajectories' ends from a common start", arithmetic, pools="ends"),
)


def parse_rule(spec: str) -> Rule:
    """The rule that a spec such as ``geometric[margin=1.0]`` names.

    Raises:
        SpecError: unknown rule or option, a value that is no number in range, or a required option that is missing.
    """
    match = _SPEC.fullmatch(spec.strip())
    if not match:
        raise SpecError(f"Rule {shown(spec)} is malformed: write name or name[option=value].")
    name = match["name"].strip()
    if name not in RULES:
        raise SpecError(f"Unknown rule {shown(name)}{did_you_mean(name, RULES)}.")
    rule, given = RULES[name], {}
    for item in filter(None, (piece.strip() for piece in (match["options"] or "").split(","))):
        key, separator, value = (piece.strip() for piece in item.partition("="))
        if not separator:
            raise SpecError(f"Option {shown(item)} of rule '{name}' is malformed: write option=value.")
        if key not in rule.options:
            takes = did_you_mean(key, rule.options) or " (it takes none)"
            raise SpecError(f"Rule '{name}' has no option {shown(key)}{takes}.")
        if key in given:
            raise SpecError(f"Option '{key}' of rule '{name}' is given twice.")
        given[key] = _number(name, key, value)
    options = {**rule.options, **given}
    for key, number in options.items():
        if number is None:
            raise SpecError(f"Rule '{name}' needs its {key}: write {name}[{key}=1.0], in the unit of the values.")
    return replace(rule, options=options)


def _number(rule: str, option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise SpecError(f"Option '{option}' of rule '{rule}' is {shown(text)}: give a positive number.")
    return number
