"""The bridge against closed forms, simulation of its reference process, and oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from dbn_core.bridge.denoiser import Denoiser, bridge_loss, draw_steps, flow_loss, kl_to
from dbn_core.bridge.distill import step_distillation_loss
from dbn_core.bridge.process import (
    bridge_mean_std,
    mean_temperature,
    random_temperature,
    sample_bridge,
    target_logits,
)
from dbn_core.bridge.sampler import sample
from dbn_core.bridge.schedule import step_variances, variance
from dbn_core.methods.predictors import BridgedSource
from dbn_core.nets.init import initialise_
from dbn_core.nets.score import ScoreNetwork
from dbn_core.rng import generator
from tests.support.fitting import fresh

rates = st.floats(1e-5, 1.0)
seeds = st.integers(0, 2**32)
predictions = pytest.mark.parametrize("prediction", ["noise", "displacement"])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"), dtype=torch.float64)


class Call(nn.Module):
    """A function in the place of a score network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, features, z, tau):
        return self.function(features, z, tau)


FEATURES = torch.zeros(0)  # the functions here look at no feature map

# ------------------------------------------------------------------------------------------------ noise schedule


@given(beta_0=rates, beta_1=rates)
@settings(max_examples=30, deadline=None)
def test_clock_is_the_integral_of_the_rate(beta_0, beta_1):
    tau = np.linspace(0, 1, 201)
    beta = np.interp(tau, [0, 1], [beta_0, beta_1])
    integral = np.concatenate([[0.0], np.cumsum((beta[1:] + beta[:-1]) / 2 * np.diff(tau))])
    got = variance(torch.from_numpy(tau), beta_0, beta_1).numpy()
    np.testing.assert_allclose(got, integral, rtol=1e-9, atol=1e-12)
    assert got[0] == 0
    assert np.all(np.diff(got) > 0)
    assert got[-1] == pytest.approx((beta_0 + beta_1) / 2)


def test_published_constants_of_the_steps():
    variances = step_variances(5, 1e-4, 1e-4)
    assert variances.dtype == torch.float64
    assert variances.sqrt().tolist() == pytest.approx([0, 0.00447, 0.00632, 0.00775, 0.00894, 0.01], abs=6e-6)
    z_0, z_1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    denoiser = Denoiser(Call(lambda h, z, tau: torch.zeros_like(z)), variances, "noise")
    for n, target in enumerate([44.7, 63.2, 77.5, 89.4, 100.0], 1):
        mean, _ = bridge_mean_std(z_0, z_1, torch.tensor([n]), variances)
        assert mean[0].tolist() == pytest.approx([1 - n / 5, n / 5], abs=1e-6)
        # The regression target is (Z_n - Z_0) / sigma_n: on the mean path this times Z_1 - Z_0.
        loss = bridge_loss(denoiser, FEATURES, mean, torch.tensor([n]), z_0)
        assert math.sqrt(float(loss) / 2) == pytest.approx(target, abs=0.06)
    for beta, largest in [(1e-4, 0.005), (1e-3, 0.016), (5e-3, 0.035)]:
        # T = 2 has a node in the middle, where the bridge is widest.
        _, std = bridge_mean_std(z_0, z_1, torch.tensor([1]), step_variances(2, beta, beta))
        assert float(std) == pytest.approx(largest, abs=6e-4)


# ------------------------------------------------------------------------------------------------ bridge process


@pytest.mark.parametrize(("beta_0", "beta_1"), [(0.5, 0.5), (0.1, 2.0), (3, 0.2)])
def test_bridge_law_is_the_conditioned_brownian_motion(beta_0, beta_1):
    # Simulate dZ = sqrt(beta) dW from 0 by its increments, without any formula of bridges.  Given Z(1), the Gaussian
    # Z(tau) has the regression line as its mean and the residual spread as its deviation.
    steps, paths, rng = 5, 40_000, np.random.default_rng(0)
    fine = 40 * steps
    centres = (np.arange(fine) + 0.5) / fine
    increments = rng.normal(size=(paths, fine)) * np.sqrt(np.interp(centres, [0, 1], [beta_0, beta_1]) / fine)
    path = increments.cumsum(1)[:, 39::40]
    variances = step_variances(steps, beta_0, beta_1)
    z_0, z_1 = torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[-1.0, 0.5]]).double()
    for n in range(1, steps):
        line = stats.linregress(path[:, -1], path[:, n - 1])
        residual = np.std(path[:, n - 1] - line.slope * path[:, -1] - line.intercept)
        index = torch.full((paths,), n)
        mean, std = bridge_mean_std(z_0, z_1, torch.tensor([n]), variances)
        slope = (mean - z_0) / (z_1 - z_0)
        assert slope[0].numpy() == pytest.approx(line.slope, abs=6 * line.stderr)
        assert float(std) == pytest.approx(residual, rel=0.02)
        draws = sample_bridge(z_0.expand(paths, 2), z_1.expand(paths, 2), index, variances, generator(seed=n))
        assert draws.mean(0).numpy() == pytest.approx(mean[0].numpy(), abs=6 * residual / math.sqrt(paths))
        assert draws.std(0).numpy() == pytest.approx(residual, rel=0.03)
        assert stats.kstest((draws[:, 0] - mean[0, 0]) / std[0, 0], "norm").pvalue > 1e-4
        assert abs(np.corrcoef(draws.T.numpy())[0, 1]) < 0.03  # one noise for each class


@given(seed=seeds, beta_0=rates, beta_1=rates, steps=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_bridge_meets_both_ends_exactly(seed, beta_0, beta_1, steps):
    z_0, z_1 = normal(3, 4, seed=seed), normal(3, 4, seed=seed + 1)
    variances = step_variances(steps, beta_0, beta_1)
    for n, end in ((0, z_0), (steps, z_1)):
        draw = sample_bridge(z_0, z_1, torch.full((3,), n), variances, generator(seed=seed))
        assert torch.equal(draw, end)


def test_each_example_has_its_own_step():
    z_0, z_1, variances = normal(4, 3), normal(4, 3, seed=1), step_variances(4, 0.2, 0.2)
    n = torch.tensor([0, 4, 1, 2])
    mean, std = bridge_mean_std(z_0, z_1, n, variances)
    for row, tau in enumerate((0, 1, 0.25, 0.5)):
        torch.testing.assert_close(mean[row], (1 - tau) * z_0[row] + tau * z_1[row])
        assert float(std[row]) == pytest.approx(math.sqrt(0.2 * tau * (1 - tau)))


# ---------------------------------------------------------------------------------------------------- end points


@given(seed=seeds, members=st.integers(1, 5), classes=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_target_is_the_centred_log_of_the_mean_probability(seed, members, classes):
    z = 4 * normal(members, 3, classes, seed=seed)
    got = target_logits(z)
    for row in range(3):
        probs = np.mean([np.exp(m) / np.exp(m).sum() for m in z[:, row].numpy()], axis=0)
        np.testing.assert_allclose(got[row].numpy(), np.log(probs) - np.log(probs).mean(), atol=1e-5)
        np.testing.assert_allclose(got[row].softmax(0).numpy(), probs, atol=1e-6)
    offsets = 10 * normal(members, 3, 1, seed=seed + 1)
    torch.testing.assert_close(target_logits(z + offsets), got, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target_logits(z.flip(0)), got, rtol=1e-6, atol=1e-6)


def test_target_weights_members():
    z = normal(3, 2, 5)
    weights = torch.tensor([0.5, 0.3, 0.2])
    expected = sum(w * z[i].softmax(-1) for i, w in enumerate(weights.tolist()))
    torch.testing.assert_close(target_logits(z, weights).softmax(-1), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(target_logits(z, torch.tensor([1.0, 0.0, 0.0])).softmax(-1), z[0].softmax(-1))


def test_target_survives_extreme_logits():
    got = target_logits(torch.tensor([[[500.0, -500.0, 0.0]], [[-500.0, 500.0, 0.0]]]))
    assert torch.isfinite(got).all()
    assert got.softmax(-1)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_random_temperature_follows_a_stretched_beta():
    draws = random_temperature(20_000, 2.0, 0.4, generator(seed=0))
    assert draws.shape == (20_000, 1)
    assert draws.dtype == torch.float32
    assert draws.min() >= 2
    assert draws.max() <= 2.4
    assert stats.kstest((draws[:, 0].double().numpy() - 2) / 0.4, stats.beta(1, 5).cdf).pvalue > 1e-3
    assert draws.mean().item() == pytest.approx(mean_temperature(2.0, 0.4), abs=0.002)
    other = random_temperature(2000, 1.0, 1.2, generator(seed=1))
    assert stats.kstest((other[:, 0].double().numpy() - 1) / 1.2, stats.beta(1, 5).cdf).pvalue > 1e-3
    assert torch.equal(random_temperature(5, 2.0, 0.0, generator(seed=2)), torch.full((5, 1), 2.0))


@pytest.mark.parametrize(
    ("law", "cdf"), [("uniform", stats.uniform(1, 1.2).cdf), ("exponential", stats.expon(1, 1.2).cdf)]
)
def test_a_random_temperature_may_follow_another_law(law, cdf):
    draws = random_temperature(20_000, 1.0, 1.2, generator(seed=0), law)
    assert stats.kstest(draws[:, 0].double().numpy(), cdf).pvalue > 1e-3
    assert draws.mean().item() == pytest.approx(mean_temperature(1.0, 1.2, law), abs=0.03)


# ------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("steps", "include_last", "expected"), [(5, False, 4), (5, True, 5), (2, False, 1), (1, False, 1)]
)
def test_steps_are_drawn_uniformly_and_leave_out_the_last_unless_told(steps, include_last, expected):
    draws = draw_steps(6000, steps, include_last, generator(seed=3))
    values, counts = draws.unique(return_counts=True)
    assert values.tolist() == list(range(1, expected + 1))
    assert expected == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_bridge_loss_by_hand():
    # T = 2, beta = 1: sigma_1^2 = 1/2.  The network answers 3 + tau in every class.
    variances = step_variances(2, 1.0, 1.0)
    z_n, z_0 = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    n = torch.tensor([1, 2])
    network = Call(lambda h, z, tau: (3 + tau)[:, None].expand_as(z))
    s = math.sqrt(0.5)
    noise = ((3.5 - 1 / s) ** 2 + (3.5 - 2 / s) ** 2 + (4 + 1) ** 2 + (4 - 3) ** 2) / 2
    displacement = ((3.5 - 1 / 0.5) ** 2 + (3.5 - 2 / 0.5) ** 2 + (4 + 1) ** 2 + (4 - 3) ** 2) / 2
    for prediction, expected in (("noise", noise), ("displacement", displacement)):
        loss = bridge_loss(Denoiser(network, variances, prediction), FEATURES, z_n, n, z_0)
        assert float(loss) == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------------------------------------------ sampling


@predictions
def test_oracle_lands_with_unequal_rates_and_posterior_noise(prediction):
    z_0, z_1, steps = normal(4, 6), normal(4, 6, seed=1), 6
    variances = step_variances(steps, 0.3, 2.0)
    # With this schedule the scale is known by step only, so the oracle counts the calls: n = T ... 1.
    left = list(range(steps, 0, -1))

    def network(features, z, tau):
        s = float(variances[left.pop(0)])
        return (z - z_0) / (math.sqrt(s) if prediction == "noise" else s / float(variances[-1]))

    denoiser = Denoiser(Call(network), variances, prediction)
    got = sample(denoiser, FEATURES, z_1, "posterior", generator(seed=5))
    torch.testing.assert_close(got, z_0, rtol=1e-9, atol=1e-9)
    assert not left


@pytest.mark.parametrize("steps", [1, 5, 7])
def test_step_weights_are_one_over_n(steps):
    beta, z, c = 0.04, normal(3, 4), normal(1, 4, seed=1)
    seen = []

    def network(features, state, tau):
        seen.append((state, float(tau[0])))
        return c.expand_as(state)

    # A constant displacement is walked in T equal strides; a constant noise in strides of sigma_n / n.
    got = sample(Denoiser(Call(network), step_variances(steps, beta, beta)), FEATURES, z)
    torch.testing.assert_close(got, z - c)
    for index, (state, tau) in enumerate(seen):
        assert tau == pytest.approx((steps - index) / steps)
        torch.testing.assert_close(state, z - c * index / steps)
    got = sample(Denoiser(Call(network), step_variances(steps, beta, beta), "noise"), FEATURES, z)
    stride = sum(math.sqrt(beta * n / steps) / n for n in range(1, steps + 1))
    torch.testing.assert_close(got, z - c * stride)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sampler_noise_has_the_stated_variance(steps):
    # A zero network estimates Z_0 by Z_n itself, so the state only gathers noise.
    beta, start = 0.5, torch.zeros(50_000, 2, dtype=torch.float64)
    denoiser = Denoiser(Call(lambda h, z, tau: torch.zeros_like(z)), step_variances(steps, beta, beta))
    assert torch.equal(sample(denoiser, FEATURES, start), start)
    forward = sample(denoiser, FEATURES, start, "forward", generator(seed=1))
    assert float(forward.var()) == pytest.approx(beta, rel=0.03)  # all increments together
    posterior = sample(denoiser, FEATURES, start, "posterior", generator(seed=1))
    expected = beta / steps * sum((n - 1) / n for n in range(1, steps + 1))
    if steps == 1:
        assert torch.equal(posterior, start)  # nothing is added at n = 1
    else:
        assert float(posterior.var()) == pytest.approx(expected, rel=0.03)


# ------------------------------------------------------------------------- rectified flow, KL, step distillation


class Says(nn.Module):
    """A network that gives the same answer to everything, and remembers what it saw."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, features, z, tau):
        self.seen.append((z, tau))
        return self.answer


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_true_velocity_has_no_loss_and_euler_arrives(steps):
    """The defect of the released ablation: with 5 points its sampler closed about two thirds of the gap."""
    z_0, z_1, t = normal(7, 4), normal(7, 4, seed=1), torch.rand(7, generator=generator(seed=2)).double()
    flow = Denoiser(Says(z_1 - z_0), step_variances(steps, 1e-4, 1e-4), "displacement")
    assert float(flow_loss(flow, FEATURES, z_0, z_1, t)) == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(sample(flow, FEATURES, z_1), z_0)
    seen, tau = flow.network.seen[0]
    torch.testing.assert_close(seen, (1 - t[:, None]) * z_0 + t[:, None] * z_1)
    torch.testing.assert_close(tau, t)


def test_kl_loss_is_the_divergence_of_the_estimate():
    z_0, z_n, answer = (normal(6, 5, seed=seed) for seed in range(3))
    n, denoiser = torch.tensor([1, 2, 3, 1, 2, 3]), Denoiser(Says(answer), step_variances(3, 1.0, 1.0))
    estimate, p = (z_n - (n / 3)[:, None] * answer).softmax(-1), z_0.softmax(-1)
    expected = (p * (p.log() - estimate.log())).sum(1).mean()
    assert float(bridge_loss(denoiser, FEATURES, z_n, n, z_0, "kl")) == pytest.approx(float(expected), rel=1e-6)
    assert float(kl_to(z_0 + 3.0, z_0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_distillation_mixes_its_two_targets_and_runs_the_student_once(loss):
    z_1, z_c, z_0, answer = (normal(6, 5, seed=seed) for seed in range(4))
    student, one = Denoiser(Says(answer), step_variances(1, 1.0, 1.0)), torch.ones(6, dtype=torch.long)
    mixed = step_distillation_loss(student, FEATURES, z_1, z_c, z_0, 0.3, loss)
    assert len(student.network.seen) == 1
    parts = [bridge_loss(student, FEATURES, z_1, one, z, loss) for z in (z_c, z_0)]
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


# ------------------------------------------------------------------------- a score network that is blind to its state


@pytest.mark.parametrize(("steps", "beta_0", "beta_1"), [(1, 1e-4, 1e-4), (5, 1e-4, 1e-4), (5, 0.1, 2.0)])
def test_a_blind_bridge_is_a_mean_of_regressions(steps, beta_0, beta_1):
    """Z_0 = Z_1 - sum_n w_n u(h, n / T), w_n the clock's share of step n: 1 / T for equal rates."""
    features, z_1 = torch.randn(3, 4, 8, 8, generator=generator(seed=1)), normal(3, 5).float()
    network = ScoreNetwork(4, 5, "mini", sees_state=False)
    initialise_(network, generator(seed=0))
    denoiser = Denoiser(network, step_variances(steps, beta_0, beta_1)).eval()
    shares = denoiser.variances.diff() / denoiser.variances[-1]
    assert beta_0 != beta_1 or shares.tolist() == pytest.approx([1 / steps] * steps)
    with torch.no_grad():
        moves = [network(features, torch.zeros(3, 5), torch.full((3,), n / steps)) for n in range(1, steps + 1)]
        closed = z_1 - sum(float(share) * move for share, move in zip(shares, moves, strict=True))
        torch.testing.assert_close(sample(denoiser, features, z_1), closed, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- predictors


def test_bridged_source_predicts_from_the_bridges_alone():
    source, images = fresh(), torch.rand(3, 1, 8, 8, generator=generator(seed=0))
    shift = torch.tensor([[1.0, -1.0, 0.5, 0.0]])
    seen = []
    denoisers = [
        Denoiser(Call(lambda h, z, tau, f=f: seen.append(h) or (f * shift).expand_as(z)), step_variances(1, 1e-4, 1e-4))
        for f in (1, 2)
    ]
    with torch.no_grad():
        logits = source(images)
        features, _ = source.split("block2")
        bare = BridgedSource(source, "block2", denoisers, 2.0667)(images)
        assert all(torch.equal(h, features(images)) for h in seen)
    assert bare.shape == (2, 3, 4)
    for term, factor in zip(bare, (1, 2), strict=True):
        torch.testing.assert_close(term, (logits / 2.0667 - factor * shift).log_softmax(-1))
