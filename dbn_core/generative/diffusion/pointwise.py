"""How well an ensemble predicts at test examples: errors of its score, and their likelihood.

>>> import torch
>>> from dbn_core.generative.diffusion.members import Member, SamplingPredictor
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.schedules import VP
>>> members = [Member(ScoreMLP(2, width=8, output_init=1.0), VP(), "v", (0.0, 0.0), (1.0, 1.0)) for _ in range(3)]
>>> for seed, member in enumerate(members):
...     member.network.reset(torch.Generator().manual_seed(seed))
>>> x, found = torch.randn(50, 2, 1, 1), {}
>>> for name, chosen in {"mean": members, "0": members[:1], "1": members[1:2], "2": members[2:]}.items():
...     draws = [torch.Generator().manual_seed(0) for _ in range(2)]
...     found[name] = score_errors(SamplingPredictor(chosen, steps=1), x, None, 2, 50, *draws)
>>> each = torch.stack([found[name]["dsm"] for name in "012"]).mean(0)
>>> bool(torch.allclose(found["mean"]["dsm"], each - found["mean"]["diversity"], atol=1e-5))
True
"""

from __future__ import annotations

import torch

from dbn_core.generative.diffusion.likelihood import log_likelihood, rademacher
from dbn_core.generative.diffusion.loss import draw_times
from dbn_core.generative.diffusion.members import SamplingPredictor
from dbn_core.generative.diffusion.process import Score, add_noise, append_dims, randn_like


@torch.no_grad()
def score_errors(
    predictor: SamplingPredictor,
    x: torch.Tensor,
    truth: Score | None,
    draws: int,
    batch: int,
    generator: torch.Generator,
    choices: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Errors of the predictor's score, each a mean over coordinates and over draws of time and noise, [N].

    ``dsm``: of sigma times the score from minus the noise (the denoising loss).  ``score_error``: from sigma times the
    true score.  ``diversity``, of two members or more: of the members from their mean, mean over members.  The loss of
    the mean of scores is the members' mean loss minus the diversity, at every point (ambiguity identity, Krogh and
    Vedelsby, 1995).

    Args:
        x: examples [N, ...], in the units of the data.
        truth: the true score of standardised data, of points [N, D], where it is known.
        draws: of time and noise for each example.
        batch: examples that run at once.
        generator: source of times and noise, which therefore do not depend on the rule.
        choices: source of members, where the rule draws them.
    """
    members, rule, schedule = list(predictor.members), predictor.rule, predictor.first.schedule
    z = predictor.first.encode(x)
    states = [rule.start(len(members), len(part), choices) for part in z.split(batch)]
    found: dict[str, list[torch.Tensor]] = {"dsm": [], "diversity": [], "score_error": []}
    for draw in range(draws):
        t, noise = draw_times(schedule, len(z), generator).to(z.device), randn_like(z, generator)
        z_t = add_noise(schedule, z, t, noise)
        parts = zip(states, z_t.split(batch), t.split(batch), noise.split(batch), strict=True)
        for state, at, times, drawn in parts:
            sigma = append_dims(schedule.sigma(times), at)
            values = torch.stack([member(at, times) for member in members])
            combined = sigma * rule(values, state, draw)
            found["dsm"].append(_mean_square(combined + drawn))
            if len(members) > 1:
                found["diversity"].append(
                    torch.stack([_mean_square(v) for v in sigma * (values - values.mean(0))]).mean(0)
                )
            if truth is not None:
                true = truth(at.flatten(1), times).reshape(at.shape)
                found["score_error"].append(_mean_square(combined - sigma * true))
    return {name: torch.cat(v).reshape(draws, len(z)).mean(0).cpu() for name, v in found.items() if v}


def _mean_square(values: torch.Tensor) -> torch.Tensor:
    """[N, ...] to [N]."""
    return values.square().flatten(1).mean(1)


def dequantised(x: torch.Tensor, levels: int, generator: torch.Generator) -> tuple[torch.Tensor, float]:
    """Images in [0, 1] of evenly spaced grey levels, with uniform noise as wide as a level; and that width."""
    width = 1 / max(1, levels - 1)
    return x + width * (torch.rand(x.shape, generator=generator).to(x) - 0.5), width


def nats_per_coordinate(
    predictor: SamplingPredictor,
    x: torch.Tensor,
    steps: int,
    probes: int,
    batch: int,
    generator: torch.Generator,
    level: float | None = None,
) -> torch.Tensor:
    """Nats per coordinate [N] by :func:`~dbn_core.generative.diffusion.likelihood.log_likelihood`.

    Args:
        x: examples [N, C, H, W] in the units of the data.
        steps: of the ODE.
        probes: of the divergence; 0: exact.
        batch: examples that run at once.
        generator: source of probes.
        level: width of a grey level of dequantised images.  The number then is of the levels: that of standardised data
            minus the logarithm of the level's width among them, an upper bound by Jensen.
    """
    member = predictor.first
    z = member.encode(x)
    signs = rademacher(probes, z, generator) if probes else None
    volume = 0.0 if level is None else float((level / member.std).log().mean())
    found = []
    for start in range(0, len(z), batch):
        part, own = z[start : start + batch], None if signs is None else signs[:, start : start + batch]
        field = predictor.field(len(part), generator)
        found.append(log_likelihood(field, member.schedule, part, steps, own).cpu())
    return -torch.cat(found) / z[0].numel() - volume
