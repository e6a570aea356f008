"""What suites of generative models train and predict with: score models of data as they lie, and samplers as modules.

>>> import torch
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.schedules import VP
>>> member = Member(ScoreMLP(2, width=8), VP(), "v", mean=(1.0, 0.0), std=(2.0, 1.0))
>>> member.network.reset(torch.Generator().manual_seed(0))
>>> predictor = SamplingPredictor([member, member], steps=4, sampler="heun", rule="arithmetic")
>>> predictor(torch.randn(3, 2, 1, 1)).shape, predictor.evaluations
(torch.Size([3, 2, 1, 1]), 16)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dbn_core.generative.aggregate import parse_rule
from dbn_core.generative.diffusion.process import Prediction, ScoreModel
from dbn_core.generative.diffusion.samplers import SAMPLERS, Ensemble, sample
from dbn_core.generative.diffusion.schedules import Schedule


class Member(ScoreModel):
    """A score model of data that are standardised channel by channel, since schedules expect unit variance.

    Args:
        mean, std: one for each channel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        schedule: Schedule,
        prediction: Prediction,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(network, schedule, prediction)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(tuple(values)).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """The score at x [B, C, H, W] and t [B]; without times at the end of pure noise, to see what it costs."""
        return super().forward(x, x.new_full((len(x),), self.schedule.t_max) if t is None else t)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Data [B, C, H, W] as the diffusion sees them."""
        return (x - self.mean) / self.std

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`encode`."""
        return z * self.std + self.mean


class SamplingPredictor(nn.Module):
    """Standard normal noise [B, C, H, W] to samples of the same shape, by members under a rule.

    What the sampler or the rule draws comes from torch's global generator, which the harness seeds.

    Args:
        members: M of them, with one schedule.
        steps: of the sampler.
        sampler: a key of :data:`dbn_core.generative.diffusion.samplers.SAMPLERS`.
        rule: see :mod:`dbn_core.generative.aggregate`.
    """

    def __init__(self, members: Sequence[Member], steps: int, sampler: str = "ddim", rule: str = "arithmetic") -> None:
        super().__init__()
        self.members: Any = nn.ModuleList(members)
        self.steps, self.sampler, self.rule = steps, sampler, parse_rule(rule)

    @property
    def schedule(self) -> Schedule:
        """That of the members."""
        return self.members[0].schedule

    @property
    def evaluations(self) -> int:
        """Networks that are run for one sample (NFE, members counted)."""
        each = 1 if self.rule.draws != "never" else len(self.members)
        return each * self.steps * (2 if self.sampler == "heun" else 1)

    def field(self, examples: int, generator: torch.Generator) -> Ensemble:
        """The score that the rule makes, for as many examples; a rule that pools ends has none."""
        return Ensemble(self.members, self.rule, examples, generator)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Samples, in the units of the data."""
        start = self.schedule.prior_std * noise
        drawn = torch.default_generator
        z = sample(list(self.members), self.schedule, start, self.steps, self.sampler, self.rule, drawn)
        return self.members[0].decode(z)

    @torch.no_grad()
    def paths(self, noise: torch.Tensor) -> torch.Tensor:
        """The states of each trajectory where a score was asked for, and its end, as data: [B, T, C, H, W].

        Of a rule that pools the ends of several trajectories there are the start and the end alone.
        """
        start, decode = self.schedule.prior_std * noise, self.members[0].decode
        if self.rule.pools == "ends":
            return torch.stack([decode(start), self(noise)], 1)
        field, seen = self.field(len(start), torch.default_generator), []

        def watched(x: torch.Tensor, t: torch.Tensor, step: int = 0) -> torch.Tensor:
            seen.append(decode(x))
            return field(x, t, step)

        walk: Any = SAMPLERS[self.sampler]
        end = walk(watched, self.schedule, start, self.schedule.times(self.steps), torch.default_generator)
        return torch.stack([*seen, decode(end)], 1)
