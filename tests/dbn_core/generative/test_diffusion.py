"""Diffusion models against closed forms: normal laws and mixtures, whose scores, flows and densities are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.likelihood import log_likelihood, rademacher
from dbn_core.generative.diffusion.loss import draw_times, dsm_loss, training_loss
from dbn_core.generative.diffusion.mixture import GaussianMixture, ring
from dbn_core.generative.diffusion.networks import ScoreMLP, ScoreUNet, fixed_dropout
from dbn_core.generative.diffusion.process import ScoreModel, add_noise
from dbn_core.generative.diffusion.samplers import SAMPLERS, Ensemble, ddim_step, sample_diffusion
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.generative.metrics.samples import energy_distance
from dbn_core.rng import generator

schedule = VP()
skewed = GaussianMixture(torch.tensor([1.0, 3.0]), torch.tensor([[-1.0, 0.5], [0.8, -0.3]]), torch.tensor([0.4, 0.1]))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"), dtype=torch.float64)


def gaussian(variance, dimension=1):
    return GaussianMixture(torch.ones(1), torch.zeros(1, dimension), torch.tensor([float(variance)]))


# ------------------------------------------------------------------------------------------------------------ schedules


def test_drift_and_diffusion_are_the_derivatives_of_signal_and_noise():
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    alpha, variance = schedule.alpha(t), schedule.sigma(t).square()
    f, g_squared = schedule.drift(t), schedule.diffusion(t)
    (rate,) = torch.autograd.grad(alpha.sum(), t, retain_graph=True)
    torch.testing.assert_close(rate, f * alpha)
    (rate,) = torch.autograd.grad(variance.sum(), t)
    torch.testing.assert_close(rate, g_squared + 2 * f * variance)


def test_the_schedule_is_the_published_one():
    t = torch.tensor([1e-3, 0.1, 1.0], dtype=torch.float64)
    torch.testing.assert_close(VP().alpha(t).log(), -(t**2) * (20 - 0.1) / 4 - t * 0.1 / 2)
    torch.testing.assert_close(VP().alpha(t).square() + VP().sigma(t).square(), torch.ones_like(t))


@given(steps=st.integers(1, 9), factor=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_a_grid_is_a_part_of_a_finer_one(steps, factor):
    torch.testing.assert_close(schedule.times(steps), schedule.times(steps * factor)[::factor], rtol=1e-12, atol=0)
    assert bool((schedule.times(steps).diff() < 0).all())


# ------------------------------------------------------------------------------------------------------- exact mixtures


@pytest.mark.parametrize("mixture", [skewed, ring(5)], ids=["skewed", "ring"])
def test_densities_and_scores_are_those_of_torch_distributions(mixture):
    x = normal(20, 2).requires_grad_()
    alpha, sigma = torch.linspace(0.1, 1, 20).double(), torch.linspace(0, 2, 20).double()
    log_probs = mixture.log_prob(x, alpha, sigma)
    covariances = mixture.variances[:, None, None] * torch.eye(2)
    for i in (0, 7, 19):
        components = torch.distributions.MultivariateNormal(
            alpha[i] * mixture.means, alpha[i] ** 2 * covariances + sigma[i] ** 2 * torch.eye(2)
        )
        law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), components)
        torch.testing.assert_close(log_probs[i], law.log_prob(x[i]))
    (slope,) = torch.autograd.grad(log_probs.sum(), x)
    torch.testing.assert_close(mixture.score_at(x.detach(), alpha, sigma), slope)


def test_samples_have_the_moments_of_the_mixture():
    x = skewed.sample(40_000, generator(seed=1)).double()
    means = skewed.weights @ skewed.means
    torch.testing.assert_close(x.mean(0), means, rtol=0, atol=0.02)
    covariances = skewed.variances[:, None, None] * torch.eye(2)
    second = (skewed.weights[:, None, None] * (covariances + skewed.means[:, :, None] * skewed.means[:, None])).sum(0)
    torch.testing.assert_close(x.T.cov(), second - means[:, None] * means, rtol=0, atol=0.04)
    torch.testing.assert_close(ring(8).sample(40_000, generator(seed=1)).var(0), torch.ones(2), rtol=0, atol=0.03)


# ------------------------------------------------------------------------------------------------- predictions and loss


@pytest.mark.parametrize("prediction", ["noise", "x", "v"])
def test_a_perfect_network_gives_noise_data_and_score_whatever_it_predicts(prediction):
    x_0, noise, t = normal(6, 3), normal(6, 3, seed=1), schedule.times(5).clone()
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    answer = {"noise": noise, "x": x_0, "v": alpha * noise - sigma * x_0}[prediction]
    model, x_t = ScoreModel(lambda x, level: answer, schedule, prediction), add_noise(schedule, x_0, t, noise)
    torch.testing.assert_close(model.denoised(x_t, t), x_0, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(model.noise(x_t, t), noise, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(model(x_t, t), -noise / sigma, rtol=1e-6, atol=1e-9)
    assert float(dsm_loss(model, schedule, x_0, t, noise).max()) < 1e-9


def test_times_of_training_follow_the_grid():
    t = draw_times(schedule, 1000, generator(seed=0))
    fractions = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    grid = schedule.times(10)[[9, 5, 1]]
    torch.testing.assert_close(t.sort().values.quantile(fractions), grid, rtol=0.02, atol=0)
    assert schedule.t_min <= float(t.min()) < float(t.max()) <= schedule.t_max


def test_the_exact_score_has_the_least_loss():
    x_0 = skewed.sample(2000, generator(seed=3))
    exact = skewed.score(schedule)

    def loss(score):
        return float(training_loss(score, schedule, x_0, generator(seed=4)))

    least = loss(exact)
    for factor in (0.8, 1.2):
        assert loss(lambda x, t, factor=factor: factor * exact(x, t)) > least + 0.01


def test_the_loss_of_a_normal_law_is_known():
    # For N(0, v) the least loss at t is alpha^2 v / (alpha^2 v + sigma^2): the noise's variance given x_t.
    t = torch.full((40_000,), 0.3)
    x_0 = 2 * normal(40_000, 1)
    loss = dsm_loss(gaussian(4).score(VP()), VP(), x_0, t, normal(40_000, 1, seed=1)).mean()
    signal, noise = float(VP().alpha(t[:1])) ** 2 * 4, float(VP().sigma(t[:1])) ** 2
    assert float(loss) == pytest.approx(signal / (signal + noise), rel=0.03)


@given(members=st.integers(2, 5), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_what_the_mean_score_gains_in_loss_is_the_diversity_of_its_members(members, seed):
    x_0, noise, t = normal(6, 2, seed=seed), normal(6, 2, seed=seed + 1), torch.rand(6).double() * 0.9 + 0.05
    scores = [gaussian(0.3 + m, 2).score(VP()) for m in range(members)]
    mean = Ensemble(scores, "arithmetic", 6)
    losses = torch.stack([dsm_loss(score, VP(), x_0, t, noise) for score in scores])
    x_t = add_noise(VP(), x_0, t, noise)
    each = torch.stack([VP().sigma(t)[:, None] * score(x_t, t) for score in scores])
    diversity = (each - each.mean(0)).square().mean((0, 2))
    torch.testing.assert_close(losses.mean(0) - dsm_loss(mean, VP(), x_0, t, noise), diversity, rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------- samplers


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exact_scores_lead_to_the_distribution(sampler):
    even, g = ring(4, std=0.3), generator(seed=5)
    mixture = GaussianMixture(torch.tensor([1.0, 2.0, 3.0, 4.0]), even.means, even.variances)
    start = torch.randn(1200, 2, generator=g)
    got = sample_diffusion([mixture.score(schedule)], start, schedule, 40, sampler, generator=g)
    real, other = mixture.sample(1200, g), even.sample(1200, g)
    assert energy_distance(got, real) < 0.02 < energy_distance(got, other)


def test_ddpm_draws_from_the_posterior_of_its_paper():
    # One step from t to s, then a last one: compare the first with the posterior written with betas.
    schedule, x = VP(), torch.tensor([[0.7]], dtype=torch.float64).expand(60_000, 1)
    t, s = schedule.times(2)[:2]
    bar_t, bar_s = float(schedule.alpha(t)) ** 2, float(schedule.alpha(s)) ** 2
    x_0, beta = 0.4, 1 - bar_t / bar_s
    mean = (bar_s**0.5 * beta * x_0 + (bar_t / bar_s) ** 0.5 * (1 - bar_s) * 0.7) / (1 - bar_t)
    variance = (1 - bar_s) / (1 - bar_t) * beta
    seen = []

    def score(x, t):
        seen.append(x)
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return (alpha * x_0 - x) / sigma**2

    sample_diffusion([score], x, schedule, 2, "ddpm", generator=generator(seed=6))
    assert float(seen[1].mean()) == pytest.approx(mean, abs=4 * (variance / 60_000) ** 0.5)
    assert float(seen[1].var()) == pytest.approx(variance, rel=0.03)


def test_a_deterministic_step_follows_the_flow_of_a_normal_law():
    # Along the flow of N(0, v) x keeps its rank: it grows with the standard deviation of p_t.
    x = torch.tensor([[1.5]], dtype=torch.float64)
    spread = (schedule.alpha(schedule.times(1)).square() * 2 + schedule.sigma(schedule.times(1)).square()).sqrt()
    for sampler, error in (("heun", 3e-3), ("ddim", 5e-2)):
        end = sample_diffusion([gaussian(2).score(schedule)], x, schedule, 80, sampler)
        assert float(end) == pytest.approx(1.5 * float(spread[1] / spread[0]), rel=error)


def test_a_step_of_ddim_with_the_truth_lands_on_the_truth():
    x_0, noise = normal(4, 2), normal(4, 2, seed=1)
    t, s = torch.tensor([0.9, 0.5, 0.4, 0.2]).double(), torch.tensor([0.1, 0.2, 0.3, 0.1]).double()
    landed = ddim_step(VP(), add_noise(VP(), x_0, t, noise), x_0, t, s)
    torch.testing.assert_close(landed, add_noise(VP(), x_0, s, noise))


def test_bad_settings_of_samplers_are_refused():
    start = torch.zeros(3, 2)
    score = [ring().score(VP())]
    with pytest.raises(SpecError, match="Unknown rule"):
        sample_diffusion(score, start, VP(), 4, rule="best")
    for settings_ in ({"sampler": "ddpm"}, {"rule": "moe"}):
        with pytest.raises(ValueError, match="Generator"):
            sample_diffusion(score, start, VP(), 4, **settings_)


def test_an_ensemble_runs_one_member_on_an_example_where_a_rule_draws_one():
    counts = [0, 0, 0]

    def member(m):
        def score(x, t):
            counts[m] += len(x)
            return torch.full_like(x, float(m))

        return score

    field = Ensemble([member(m) for m in range(3)], "alternating", 50, generator(seed=1))
    x, t = torch.zeros(50, 2), torch.ones(50)
    first, again, second = field(x, t, 0), field(x, t, 0), field(x, t, 1)
    assert sum(counts) == 150
    assert min(counts) > 0
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_each_expert_of_a_mixture_leads_its_trajectories_to_its_own_place():
    places = [GaussianMixture(torch.ones(1), torch.tensor([[c, 0.0]]), torch.tensor([0.01])) for c in (-3.0, 3.0)]
    scores = [place.score(VP()) for place in places]
    start = torch.randn(300, 2, generator=generator(seed=2))
    experts = sample_diffusion(scores, start, VP(), 30, rule="moe", generator=generator(seed=3))[:, 0]
    assert float((experts.abs() - 3).abs().max()) < 1
    assert 0.35 < float((experts > 0).float().mean()) < 0.65
    ends = sample_diffusion(scores, start, VP(), 30, rule="mean-predictions")
    torch.testing.assert_close(ends, torch.stack([sample_diffusion([s], start, VP(), 30) for s in scores]).mean(0))


# ----------------------------------------------------------------------------------------------------------- likelihood


def test_the_likelihood_of_a_mixture_by_the_flow():
    x = skewed.sample(40, generator(seed=7)).double()
    expected = skewed.log_prob(
        x, float(schedule.alpha(schedule.times(1)[1])), float(schedule.sigma(schedule.times(1)[1]))
    )
    found = log_likelihood(skewed.score(schedule), schedule, x, steps=50)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    one = log_likelihood(Ensemble([skewed.score(schedule)] * 2, "arithmetic", 40), schedule, x, steps=2)
    torch.testing.assert_close(one, log_likelihood(skewed.score(schedule), schedule, x, steps=2))


def test_the_likelihood_of_a_normal_law_with_further_axes():
    x, law = normal(3, 2, 2), lambda x, t: -x / (VP().alpha(t).square() * 2 + VP().sigma(t).square()).reshape(-1, 1, 1)
    # The flow ends at the standard normal law but for alpha at t_max.
    expected = torch.distributions.Normal(0, math.sqrt(2)).log_prob(x).sum((1, 2))
    torch.testing.assert_close(log_likelihood(law, VP(), x, steps=30), expected, rtol=0, atol=0.01)


def test_hutchinsons_estimate_over_all_signs_is_the_exact_divergence():
    truth, x = skewed, torch.randn(6, 2, generator=generator(seed=3), dtype=torch.float64)
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    exact = log_likelihood(truth.score(VP()), VP(), x, steps=10)
    estimate = log_likelihood(truth.score(VP()), VP(), x, 10, signs[:, None].expand(4, 6, 2))
    torch.testing.assert_close(estimate, exact)


def test_one_probe_for_each_image_estimates_without_bias():
    network, probed = ScoreUNet(1, width=8, output_init=1.0), generator(seed=5)
    network.reset(generator(seed=4))
    model, x = ScoreModel(network, VP()), torch.randn(1, 1, 4, 4, generator=generator(seed=6)).expand(400, -1, -1, -1)
    exact = log_likelihood(model, VP(), x[:1], steps=2)
    one = log_likelihood(model, VP(), x, 2, rademacher(1, x, probed))
    error = (one.mean() - exact[0]).abs() / one.std() * len(x) ** 0.5
    assert one.std() > 0
    assert float(error) < 4  # standard errors


def test_following_one_expert_a_trajectory_has_the_likelihood_of_the_mixture():
    """Two exact experts that know a half of the modes each: together they are the truth."""
    truth = ring(modes=8)
    halves = [GaussianMixture(torch.ones(4), truth.means[m::2], truth.variances[m::2]) for m in range(2)]
    x = truth.sample(64, generator(seed=4)).double()
    field = Ensemble([half.score(VP()) for half in halves], "moe", len(x), generator(seed=0))
    found = log_likelihood(field, VP(), x, steps=40)
    exact = log_likelihood(truth.score(VP()), VP(), x, steps=40)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)
    # The mean of -log p_k, of the expert that each example happens to follow, is far above -log of the mean of p_k.
    followed = torch.stack([log_likelihood(half.score(VP()), VP(), x, steps=40) for half in halves]).mean(0)
    assert float(-followed.mean()) > float(-found.mean()) + 0.5


@pytest.mark.parametrize("rule", ["alternating", "mean-predictions"])
def test_rules_without_a_density_are_refused(rule):
    field = Ensemble([ring().score(VP())] * 2, rule, 3, generator(seed=0))
    with pytest.raises(SpecError, match="no density"):
        log_likelihood(field, VP(), torch.zeros(3, 2))


# ------------------------------------------------------------------------------------------------ networks and training


def networks():
    points, images = ScoreMLP(2, width=16, dropout=0.3), ScoreUNet(1, width=8, dropout=0.3)
    for network in (points, images):
        network.reset(generator(seed=1))
        network.out.weight.data.normal_(generator=generator(seed=2))
    return [(points, torch.zeros(4, 2)), (images, torch.zeros(4, 1, 8, 8))]


@pytest.mark.parametrize("network_and_x", networks(), ids=["mlp", "unet"])
def test_masks_of_a_fixed_dropout_network_are_fixed_and_differ_between_members(network_and_x):
    network, x = network_and_x
    level, (one, two) = torch.zeros(4), [fixed_dropout(network, generator(seed=s)) for s in (3, 4)]
    assert torch.equal(one(x, level), one(x, level))
    assert torch.equal(one(x, level), fixed_dropout(network, generator(seed=3))(x, level))
    assert not torch.equal(one(x, level), two(x, level))
    assert torch.equal(one(x, level)[0], one(x, level)[1])  # the same mask for all examples
    network.eval()
    network.requires_grad_(False)
    whole, many = (
        network(x, level),
        torch.stack([fixed_dropout(network, generator(seed=s))(x, level) for s in range(40)]),
    )
    assert float((many.mean(0) - whole).abs().max()) < float((many - whole).abs().max()) / 2  # scaled to keep the mean


@pytest.mark.parametrize("network_and_x", networks(), ids=["mlp", "unet"])
def test_networks_tell_levels_apart_and_start_at_zero(network_and_x):
    network, x = network_and_x
    network.eval()
    low, high = network(x, torch.full((4,), -6.0)), network(x, torch.full((4,), 4.0))
    assert (low - high).abs().max().item() > 1e-3
    network.reset(generator(seed=9))
    assert network(x, torch.zeros(4)).abs().max().item() == 0


def test_the_last_layer_starts_with_the_variance_that_it_is_given():
    for scale in (0.25, 1.0):
        network = ScoreMLP(400, width=600, depth=1, output_init=scale)
        network.reset(generator(seed=1))
        weight = network.out.weight.detach()
        assert float(weight.var()) == pytest.approx(scale * 2 / (400 + 600), rel=0.02)
        assert float(weight.abs().max()) <= (3 * scale * 2 / 1000) ** 0.5


@pytest.mark.parametrize(("resolutions", "million"), [(2, 0.65), (3, 2.73), (4, 10.86)])
def test_a_unet_of_more_resolutions_sees_further(resolutions, million):
    count = sum(parameter.numel() for parameter in ScoreUNet(3, 64, resolutions=resolutions).parameters())
    assert count / 1e6 == pytest.approx(million, abs=0.01)
    network = ScoreUNet(1, width=8, resolutions=resolutions).double().eval()
    network.reset(generator(seed=1))
    network.out.weight.data.normal_(generator=generator(seed=2))
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64, generator=generator(seed=3)).requires_grad_()
    # Normalisation sees the whole image; what one pixel adds without it is a neighbourhood that grows with resolutions.
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda h: h
    y = network(x, torch.zeros(1, dtype=torch.float64))
    assert y.shape == x.shape
    (seen,) = torch.autograd.grad(y[0, 0, 32, 32], x)
    reach = int((seen[0, 0].abs() > 0).any(0).sum())
    assert {2: 20, 3: 40, 4: 60}[resolutions] <= reach <= {2: 32, 3: 63, 4: 64}[resolutions]


def test_training_approaches_the_exact_score():
    truth, schedule, g = gaussian(0.05, 2), VP(), generator(seed=1)
    network = ScoreMLP(2, width=32, depth=2)
    network.reset(g)
    model = ScoreModel(network, schedule)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        training_loss(model, schedule, truth.sample(128, g), g).backward()
        optimizer.step()
    untrained = ScoreModel(lambda x, level: torch.zeros_like(x), schedule)
    x = truth.sample(4000, generator(seed=2))
    loss = {
        name: float(training_loss(score, schedule, x, generator(seed=3)).detach())
        for name, score in {"exact": truth.score(schedule), "fitted": model, "untrained": untrained}.items()
    }
    assert loss["exact"] < loss["fitted"] < loss["exact"] + 0.3 * (loss["untrained"] - loss["exact"])
