"""The bridge against closed forms, simulation of its reference process, and oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from baselines.dbn import training
from baselines.dbn.training import bridge_recipe, distillation_recipe
from dbn_core.bridge.denoiser import Denoiser, bridge_loss, draw_steps
from dbn_core.bridge.process import (
    bridge_mean_std,
    mean_temperature,
    random_temperature,
    sample_bridge,
    target_logits,
)
from dbn_core.bridge.sampler import sample
from dbn_core.bridge.schedule import step_variances, variance
from dbn_core.data.dataset import Dataset, Split
from dbn_core.errors import SpecError
from dbn_core.methods.context import FitContext, PredictContext
from dbn_core.methods.predictors import BridgedSource
from dbn_core.methods.registry import parse_method
from dbn_core.nets import NetworkSpec
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe

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
    assert variances.shape == (6,)
    assert variances.dtype == torch.float64
    assert variances[0] == 0
    assert variances.sqrt()[1:].tolist() == pytest.approx([0.00447, 0.00632, 0.00775, 0.00894, 0.01], abs=6e-6)
    z_0, z_1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    for n, weights, target, posterior in [
        (1, (0.8, 0.2), 44.7, 1),
        (2, (0.6, 0.4), 63.2, 1 / 2),
        (3, (0.4, 0.6), 77.5, 1 / 3),
        (4, (0.2, 0.8), 89.4, 1 / 4),
        (5, (0.0, 1.0), 100.0, 1 / 5),
    ]:
        mean, _ = bridge_mean_std(z_0, z_1, torch.tensor([n]), variances)
        assert mean[0].tolist() == pytest.approx(weights, abs=1e-6)
        # The regression target is (Z_n - Z_0) / sigma_n: on the mean path this times Z_1 - Z_0.
        denoiser = Denoiser(Call(lambda h, z, tau: torch.zeros_like(z)), variances, "noise")
        loss = bridge_loss(denoiser, FEATURES, mean, torch.tensor([n]), z_0)
        assert math.sqrt(float(loss) / 2) == pytest.approx(target, abs=0.06)
        # One sampler step from n moves by the posterior weight towards the estimate of Z_0.
        a = float((variances[n] - variances[n - 1]) / variances[n])
        assert a == pytest.approx(posterior)
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


def oracle(z_0, steps, beta, prediction):
    """The exact regression target, from the formulas of the constant-rate bridge."""

    def network(features, z, tau):
        scale = (beta * tau).sqrt() if prediction == "noise" else tau
        return (z - z_0) / scale[:, None]

    return Denoiser(Call(network), step_variances(steps, beta, beta), prediction)


@predictions
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_oracle_carries_the_source_to_the_ensemble(prediction, steps):
    z_0, z_1 = normal(4, 10), 3 * normal(4, 10, seed=1)
    denoiser = oracle(z_0, steps, 1e-4, prediction)
    torch.testing.assert_close(sample(denoiser, FEATURES, z_1), z_0, rtol=0, atol=1e-6)
    n = torch.randint(1, steps + 1, (4,), generator=generator(seed=0))
    z_n = sample_bridge(z_0, z_1, n, denoiser.variances, generator(seed=1))
    assert float(bridge_loss(denoiser, FEATURES, z_n, n, z_0)) < 1e-9


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


def zero_denoiser(steps, beta):
    return Denoiser(Call(lambda h, z, tau: torch.zeros_like(z)), step_variances(steps, beta, beta))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sampler_noise_has_the_stated_variance(steps):
    # A zero network estimates Z_0 by Z_n itself, so the state only gathers noise.
    beta, start = 0.5, torch.zeros(50_000, 2, dtype=torch.float64)
    denoiser = zero_denoiser(steps, beta)
    assert torch.equal(sample(denoiser, FEATURES, start), start)
    forward = sample(denoiser, FEATURES, start, "forward", generator(seed=1))
    assert float(forward.var()) == pytest.approx(beta, rel=0.03)  # all increments together
    posterior = sample(denoiser, FEATURES, start, "posterior", generator(seed=1))
    expected = beta / steps * sum((n - 1) / n for n in range(1, steps + 1))
    if steps == 1:
        assert torch.equal(posterior, start)  # nothing is added at n = 1
    else:
        assert float(posterior.var()) == pytest.approx(expected, rel=0.03)


# --------------------------------------------------------------------------------------------- step distillation


# ------------------------------------------------------------------------- a score network that is blind to its state


def score_denoiser(sees_state, steps, beta_0, beta_1, seed=0):
    network = ScoreNetwork(4, 5, "mini", sees_state=sees_state)
    initialise_(network, generator(seed=seed))
    with torch.no_grad():  # the seeing branch grows from zero; here it has grown
        network.out.weight.add_(torch.randn(network.out.weight.shape, generator=generator(seed=seed)))
    return Denoiser(network, step_variances(steps, beta_0, beta_1)).eval()


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
@pytest.mark.parametrize(("beta_0", "beta_1"), [(1e-4, 1e-4), (0.1, 2.0)])
def test_a_blind_bridge_is_a_mean_of_regressions(steps, beta_0, beta_1):
    """Z_0 = Z_1 - sum_n w_n u(h, n / T), w_n the clock's share of step n: 1 / T for equal rates."""
    features, z_1 = torch.randn(3, 4, 8, 8, generator=generator(seed=1)), normal(3, 5).float()
    denoiser = score_denoiser(False, steps, beta_0, beta_1)
    shares = denoiser.variances.diff() / denoiser.variances[-1]
    with torch.no_grad():
        found = sample(denoiser, features, z_1)
        moves = [
            denoiser.network(features, torch.zeros(3, 5), torch.full((3,), n / steps)) for n in range(1, steps + 1)
        ]
        closed = z_1 - sum(float(share) * move for share, move in zip(shares, moves, strict=True))
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-5)
    if beta_0 == beta_1:
        assert shares.tolist() == pytest.approx([1 / steps] * steps)
        torch.testing.assert_close(found, z_1 - torch.stack(moves).mean(0), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- predictors


def tiny(seed=0):
    network = Classifier(NetworkSpec(name="resnet8", width=1, channels=2), 4, 1, (0.5,), (0.2,))
    initialise_(network, generator(seed=seed))
    return network.eval()


def test_bridged_source_predicts_from_the_bridges_alone():
    source, images = tiny(), torch.rand(3, 1, 8, 8, generator=generator(seed=0))
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


# -------------------------------------------------------------------------------------------------------- method

PAPER = {
    "temperature_per": "batch",
    "train_last_step": False,
    "prediction": "noise",
    "ema": "reversed",
    "sampler_noise": "forward",
    "mixup_per": "batch",
    "source_weight": "each",
    "keep": "best_accuracy",
}


def dbn(**options):
    body = ",".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()
    )
    return parse_method(f"dbn[{body}]" if body else "dbn")


def test_paper_preset_is_the_released_code():
    config = dbn(preset="paper").config
    assert {key: getattr(config, key) for key in PAPER} == PAPER
    fixed = dbn().config
    assert fixed == dbn(preset="fixed").config
    assert all(getattr(fixed, key) != value for key, value in PAPER.items())
    # What the presets do not name is the CIFAR-10 configuration of the paper in both.
    for each in (config, fixed):
        assert (each.steps, each.members_per_bridge, each.beta_0, each.beta_1) == (5, 3, 1e-4, 1e-4)
        assert (each.temperature, each.temperature_spread, each.split_at) == (2.0, 0.4, "block1")
        assert (each.lr, each.batch_size, each.mixup, each.distill_alpha) == (2.5e-4, 128, 0.4, 0.5)
        assert not each.sees_state


@pytest.mark.parametrize("group", [2, 3, 4])
@pytest.mark.parametrize("bridges", [1, 2, 3, 4])
def test_each_member_counts_once_over_all_targets(group, bridges):
    size = bridges * (group - 1) + 1
    shares = {}
    for preset in ("paper", "fixed"):
        method = dbn(preset=preset, members_per_bridge=group)
        parts = [part for part in method.parts(size) if part.name.startswith("bridge")]
        assert len(parts) == bridges
        total = torch.zeros(size, dtype=torch.float64)
        for part in parts:
            assert part.members[0] == 0
            weights = method.target_weights(part)
            weights = torch.full((group,), 1 / group) if weights is None else weights
            assert float(weights.sum()) == pytest.approx(1)
            total[list(part.members)] += weights / bridges
        shares[preset] = total.tolist()
    assert shares["fixed"] == pytest.approx([1 / size] * size)
    assert shares["paper"] == pytest.approx([1 / group] + [1 / group / bridges] * (size - 1))


def test_sizes_that_leave_a_group_incomplete_are_refused():
    for size, bridges in ((3, 1), (5, 2), (9, 4)):
        dbn().check_size(size)
        assert dbn().bridges(size) == bridges
    for size in (1, 2, 4):
        with pytest.raises(SpecError, match=f"not {size}"):
            dbn().check_size(size)


def dataset(examples, side=8):
    def split(count, seed):
        images = torch.randint(0, 256, (count, 1, side, side), generator=generator(seed=seed), dtype=torch.uint8)
        return Split(images, torch.arange(count) % 4)

    return Dataset("toy", "Toy", split(examples, 0), split(8, 1), split(8, 2), tuple("abcd"), (0.5,), (0.2,), False)


def context(data, **fields):
    spec = NetworkSpec(name="resnet8", width=1, channels=2)
    return FitContext(data, spec, torch.device("cpu"), {"seed": 0}, recipe=Recipe(), **fields)


def test_training_follows_the_papers_configuration():
    data = dataset(40_960, side=1)  # the paper's number of training images
    for preset, decay in (("paper", 1 - 0.99995), ("fixed", 0.99995)):
        method, fit = dbn(preset=preset, epochs=850), context(data)
        bridge, student = bridge_recipe(method.config, fit), distillation_recipe(method.config, fit)
        assert (bridge.epochs, student.epochs) == (800, 50)
        assert (bridge.lr, student.lr) == pytest.approx((2.5e-4, 2.5e-5))
        for recipe in (bridge, student):
            assert (recipe.optimizer, recipe.weight_decay, recipe.warmup_epochs) == ("adamw", 0, 0)
            assert (recipe.schedule, recipe.batch_size, recipe.mixup) == ("cosine", 128, 0.4)
        assert bridge.ema_decay == pytest.approx(decay, rel=1e-6, abs=1e-9)
    assert bridge_recipe(dbn(distill=False, epochs=850).config, context(data)).epochs == 850


@pytest.mark.parametrize("preset", ["paper", "fixed"])
def test_fit_trains_and_distils_as_the_preset_says(preset, monkeypatch):
    drawn, steps = [], []
    temperature, draw = training.random_temperature, training.draw_steps
    monkeypatch.setattr(training, "random_temperature", lambda *a: drawn.append(a[0]) or temperature(*a))
    monkeypatch.setattr(training, "draw_steps", lambda *a: steps.append(draw(*a)) or steps[-1])
    method = dbn(preset=preset, epochs=4, batch_size=16, steps=3, score_network="mini", distill_share=0.25)
    members = [tiny(seed) for seed in range(3)]
    fit = context(dataset(32), members=members)
    before = [{k: v.clone() for k, v in member.state_dict().items()} for member in members]
    multi, single = method.parts(3)
    states = {multi.name: method.fit(multi, fit).state_dict()}
    assert set(drawn) == {1 if preset == "paper" else 16}
    assert len(drawn) == 3 * 2
    assert int(torch.cat(steps).max()) == (2 if preset == "paper" else 3)
    fit.parts = states
    states[single.name] = method.fit(single, fit).state_dict()
    assert len(drawn) == 3 * 2 + 1 * 2
    # The student starts from its teacher: after one short epoch at a tenth of the rate it is still close to it.
    for name, weights in states[single.name].items():
        if weights.is_floating_point() and "running" not in name:
            torch.testing.assert_close(weights, states[multi.name][name], rtol=0, atol=2e-4)
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in member.state_dict().items())  # the members stay frozen
    predict = PredictContext(fit.data, fit.spec, fit.device, fit.axes, members={0: members[0]}, parts=states)
    with torch.no_grad():
        log_probs = method.predictor(3, predict)(torch.rand(5, 1, 8, 8, generator=generator(seed=1)))
    assert log_probs.shape == (1, 5, 4)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, 5))
