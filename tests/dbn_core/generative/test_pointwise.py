"""Errors of a score at test examples: the ambiguity identity, a score that is disturbed on purpose, grey levels."""

import math

import pytest
import torch

from dbn_core.data.digits import DigitsSource
from dbn_core.generative.diffusion.members import Disturbed, Member, SamplingPredictor
from dbn_core.generative.diffusion.mixture import ring
from dbn_core.generative.diffusion.networks import ScoreMLP
from dbn_core.generative.diffusion.pointwise import dequantised, nats_per_coordinate, score_errors
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.generative.points import Mixture2dSource
from dbn_core.generative.tasks.generation import Generation
from dbn_core.rng import generator

CPU = torch.device("cpu")


def member(seed):
    network = ScoreMLP(2, width=16, depth=1, output_init=1.0)
    network.reset(generator(seed=seed))
    return Member(network, VP(), "v", (0.5, 0.0), (2.0, 1.0))


class Exact(Member):
    """The true score of standardised points."""

    def __init__(self, truth):
        super().__init__(torch.nn.Identity(), VP(), "noise", (0.0, 0.0), (1.0, 1.0))
        self.truth = truth

    def noise(self, x, t):
        score = self.truth.score(self.schedule)(x.flatten(1), t).reshape(x.shape)
        return -score * self.schedule.sigma(t).to(x)[:, None, None, None]


def errors(members, rule="arithmetic", x=None, truth=None):
    x = torch.randn(40, 2, 1, 1, generator=generator(seed=1)) if x is None else x
    predictor = SamplingPredictor(members, steps=1, rule=rule)
    return score_errors(predictor, x, truth, 3, 16, generator(seed=2), generator(seed=3))


def test_the_loss_of_the_mean_is_the_mean_loss_minus_the_diversity_at_every_point():
    members = [member(seed) for seed in range(4)]
    mean, each = errors(members), torch.stack([errors([one])["dsm"] for one in members])
    torch.testing.assert_close(mean["dsm"], each.mean(0) - mean["diversity"], rtol=1e-5, atol=1e-5)
    assert (mean["diversity"] > 0).all()
    assert "diversity" not in errors(members[:1])


def test_noise_and_diversity_do_not_depend_on_the_rule():
    members = [member(seed) for seed in range(3)]
    found = {rule: errors(members, rule) for rule in ("arithmetic", "moe", "alternating", "dominant")}
    for rule, other in found.items():
        assert torch.equal(other["diversity"], found["arithmetic"]["diversity"]), rule
    each = torch.stack([errors([one])["dsm"] for one in members])  # an example follows one of them
    assert bool((found["moe"]["dsm"][:, None] - each.T).abs().amin(1).max() < 1e-6)


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_a_disturbed_score_has_the_error_that_was_asked_for(eta):
    truth = ring()
    exact, x = Exact(truth), truth.sample(30, generator(seed=5))[:, :, None, None]
    disturbed = Disturbed(exact, eta, torch.randn(2, 1, 1, generator=generator(seed=6)))
    t = torch.linspace(0.01, 1, 30, dtype=torch.float64)
    score, wrong = exact(x, t), disturbed(x, t)
    sizes = score.flatten(1).norm(dim=1)
    torch.testing.assert_close((wrong - score).flatten(1).norm(dim=1), eta * sizes)
    directions = ((wrong - score) / sizes[:, None, None, None]).flatten(1)
    torch.testing.assert_close(directions, directions[:1].expand(30, 2))
    error = errors([disturbed], x=x, truth=truth.score(VP()))["score_error"]
    silent = errors([Disturbed(exact, 0.0, torch.ones(2, 1, 1))], x=x, truth=truth.score(VP()))["score_error"]
    assert float(silent.max()) < 1e-8
    assert float(error.min()) > 0


def test_the_probability_of_grey_levels_is_bounded_from_below():
    images = DigitsSource().load().train.images
    assert len(images.unique()) == 17
    x, level = dequantised(images.float() / 255, 17, generator(seed=1))
    assert level == 1 / 16
    assert float((x - images.float() / 255).abs().max()) <= level / 2
    # Normal data, of which the density is known: the number is minus log of the density times the level's width.
    normal = Member(torch.nn.Identity(), VP(), "noise", (0.25,), (0.5,))
    normal.noise = lambda z, t: z * VP().sigma(t).to(z)[:, None, None, None]
    some = x[:3].double()
    found = nats_per_coordinate(SamplingPredictor([normal], 1), some, 20, 1, 2, generator(seed=1), level)
    z = (some - 0.25) / 0.5
    expected = (z.square() / 2 + math.log(2 * math.pi) / 2).flatten(1).mean(1) - math.log(level / 0.5)
    torch.testing.assert_close(found, expected)


def test_a_part_of_the_test_examples_may_have_a_likelihood():
    data = Mixture2dSource(train_count=8, test_count=30).load()
    task = Generation(samples=2, likelihood_steps=20, likelihood_examples=12, probes=1)
    predictor = SamplingPredictor([Exact(data.truth)], steps=1)
    arrays = task.predict(predictor, data, CPU, torch.Generator().manual_seed(0), "exact")
    assert arrays["nll"].shape == (12,)
    scores = task.score({name: tensor.numpy() for name, tensor in arrays.items()})
    assert scores.split["nll"] == pytest.approx(arrays["nll"].mean().item())
    assert "nll" not in scores.examples
