"""Score models in the units of the data, and samplers as modules: what generative suites train and predict with.

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
from typing import cast

import torch
from torch import nn

from dbn_core.generative.aggregate import parse_rule
from dbn_core.generative.diffusion.process import Prediction, ScoreModel, append_dims
from dbn_core.generative.diffusion.samplers import Callback, Ensemble, sample_diffusion
from dbn_core.generative.diffusion.schedules import VP


class Member(ScoreModel):
    """A score model of data that are standardised channel by channel, since schedules assume unit variance.

    Args:
        mean, std: one for each channel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        schedule: VP,
        prediction: Prediction,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(network, schedule, prediction)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(tuple(values)).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """The score at x [B, C, H, W] and t [B]; t defaults to ``t_max``, so that costs can be counted from x alone."""
        return super().forward(x, x.new_full((len(x),), self.schedule.t_max) if t is None else t)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Standardise data [B, C, H, W]."""
        return (x - self.mean) / self.std

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`encode`."""
        return z * self.std + self.mean


class Disturbed(Member):
    """A member whose score has an error of known size: ``s + eta ||s|| z / ||z||``, norms of one example.

    Where s is the true score, this adds ``sigma^2 eta^2 ||s||^2`` to the denoising loss.

    Args:
        eta: size of the error relative to the score.
        z: its direction [C, H, W], the same at every state and time.
    """

    direction: torch.Tensor

    def __init__(self, member: Member, eta: float, z: torch.Tensor) -> None:
        mean, std = member.mean.flatten().tolist(), member.std.flatten().tolist()
        super().__init__(member.network, member.schedule, member.prediction, mean, std)
        self.member, self.eta = member, eta
        self.register_buffer("direction", z / z.norm())

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """The disturbed score at x [B, C, H, W] and t [B]."""
        score = self.member(x, t)
        return score + append_dims(self.eta * score.flatten(1).norm(dim=1), x) * self.direction


class SamplingPredictor(nn.Module):
    """Standard normal noise [B, C, H, W] to samples of the same shape, by members under a rule.

    Samplers and rules draw from torch's global generator, which the harness seeds.

    Args:
        members: M of them, with one schedule.
        steps: of the sampler.
        sampler: a key of :data:`dbn_core.generative.diffusion.samplers.SAMPLERS`.
        rule: see :mod:`dbn_core.generative.aggregate`.
    """

    def __init__(self, members: Sequence[Member], steps: int, sampler: str = "ddim", rule: str = "arithmetic") -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.steps, self.sampler, self.rule = steps, sampler, parse_rule(rule)

    @property
    def first(self) -> Member:
        """Member 0, whose schedule and standardisation all share."""
        return cast(Member, self.members[0])

    @property
    def evaluations(self) -> int:
        """Network evaluations for one sample (NFE), all members counted."""
        each = 1 if self.rule.draws != "never" else len(self.members)
        return each * self.steps * (2 if self.sampler == "heun" else 1)

    def field(self, examples: int, generator: torch.Generator) -> Ensemble:
        """The score of the rule for as many examples; a rule that pools ends has none."""
        return Ensemble(self.members, self.rule, examples, generator)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Samples, in the units of the data."""
        return self._sample(noise)

    def _sample(self, noise: torch.Tensor, callback: Callback | None = None) -> torch.Tensor:
        schedule, draws = self.first.schedule, torch.default_generator
        members = list(self.members)
        end = sample_diffusion(members, noise, schedule, self.steps, self.sampler, self.rule, draws, callback)
        return self.first.decode(end)

    @torch.no_grad()
    def trajectories(self, noise: torch.Tensor) -> torch.Tensor:
        """States at which the score is evaluated, and the sample, in the units of the data: [B, T, C, H, W].

        A rule that pools the ends of several trajectories has the start and the sample alone.
        """
        states: list[torch.Tensor] = []
        end = self._sample(noise, lambda step, x: states.append(self.first.decode(x)))
        return torch.stack([*(states[:1] if self.rule.pools == "ends" else states), end], 1)
