"""Rules of aggregation against identities, invariances and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import RULES, parse_rule
from dbn_core.generative.diffusion.samplers import sample_diffusion
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.rng import generator

SPECS = {"geometric": "geometric[margin=1.0]"}
ALL = [SPECS.get(name, name) for name in RULES]
DETERMINISTIC = [spec for spec in ALL if parse_rule(spec).draws == "never"]
shapes = st.tuples(st.integers(2, 6), st.integers(1, 5), st.integers(1, 4))
seeds = st.integers(0, 2**32)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="values"), dtype=torch.float64)


def apply(spec, values, steps=(0,), seed=0):
    rule = parse_rule(spec)
    state = rule.start(members=len(values), examples=values.shape[1], generator=generator(seed=seed))
    return [rule(values, state, step) for step in steps][-1]


@pytest.mark.parametrize("spec", ALL)
def test_one_member_is_left_as_it_is(spec):
    values = normal(1, 4, 3)
    torch.testing.assert_close(apply(spec, values), values[0])


@pytest.mark.parametrize("spec", ALL)
def test_members_that_agree_are_left_as_they_are_but_for_the_sum(spec):
    one = normal(4, 2, 3)
    expected = 5 * one if spec == "sum" else one
    torch.testing.assert_close(apply(spec, one.expand(5, -1, -1, -1)), expected)


@pytest.mark.parametrize("spec", DETERMINISTIC)
@given(shape=shapes, seed=seeds)
@settings(max_examples=15, deadline=None)
def test_the_order_of_members_does_not_matter(spec, shape, seed):
    values = normal(*shape, seed=seed).mul(2).round() / 2  # with ties
    order = torch.randperm(shape[0], generator=generator(seed=seed))
    torch.testing.assert_close(apply(spec, values[order]), apply(spec, values))


@pytest.mark.parametrize("spec", ALL)
@given(shape=shapes, seed=seeds)
@settings(max_examples=15, deadline=None)
def test_an_example_does_not_depend_on_the_rest_of_its_batch(spec, shape, seed):
    values = normal(*shape, seed=seed)
    other = torch.cat([values[:, :1], 100 * normal(*shape, seed=seed + 1)], 1)
    torch.testing.assert_close(apply(spec, other, seed=seed)[0], apply(spec, values[:, :1], seed=seed)[0])


@given(shape=shapes, seed=seeds)
@settings(max_examples=25, deadline=None)
def test_the_gain_of_the_mean_is_the_diversity(shape, seed):
    values, target = normal(*shape, seed=seed), normal(*shape[1:], seed=seed + 1)
    mean = apply("arithmetic", values)
    gain = (values - target).square().sum(-1).mean(0) - (mean - target).square().sum(-1)
    torch.testing.assert_close(gain, (values - mean).square().sum(-1).mean(0), rtol=1e-5, atol=1e-9)


@given(shape=shapes, seed=seeds)
@settings(max_examples=25, deadline=None)
def test_relations_between_rules(shape, seed):
    values = normal(*shape, seed=seed)
    mean = apply("arithmetic", values)
    torch.testing.assert_close(apply("sum", values), shape[0] * mean)
    torch.testing.assert_close(apply("median", values[:2]), apply("arithmetic", values[:2]))
    torch.testing.assert_close(apply("median", values), values.quantile(0.5, dim=0))


@given(shape=shapes, seed=seeds)
@settings(max_examples=25, deadline=None)
def test_dominant_has_the_largest_size_and_the_sign_of_the_winner(shape, seed):
    values = normal(*shape, seed=seed)
    winner = apply("dominant", values)
    torch.testing.assert_close(winner.abs(), values.abs().amax(0))
    assert bool((values == winner).any(0).all())
    torch.testing.assert_close(apply("dominant", -values), -winner)


@given(seed=seeds, margin=st.floats(0.5, 3))
@settings(max_examples=25, deadline=None)
def test_the_shifted_geometric_mean_is_its_expansion_where_members_are_close(seed, margin):
    values = normal(3, 4, seed=seed) + 0.02 * normal(5, 3, 4, seed=seed + 1)
    mean, variance = values.mean(0), values.var(0, correction=0)
    offset = values.abs().mul(0) + values.amin((0, 2), keepdim=True).abs() + margin
    expansion = mean - variance / (2 * (mean + offset[0]))
    got = apply(f"geometric[margin={margin}]", values)
    # The next term is the third moment over three times the square of the shifted mean.
    bound = (values - mean).abs().pow(3).mean(0).amax() / margin**2 + 1e-12
    assert float((got - expansion).abs().amax()) <= float(bound)
    assert bool((got <= mean + 1e-12).all())


def test_without_a_margin_the_least_coordinate_would_collapse():
    values = torch.tensor([[[-1.0, 2.0]], [[-0.5, 2.0]]], dtype=torch.float64)
    near, far = apply("geometric[margin=1e-9]", values), apply("geometric[margin=10]", values)
    assert float(near[0, 0]) < -0.99
    torch.testing.assert_close(far, apply("arithmetic", values), rtol=0, atol=0.01)


# ------------------------------------------------------------------------------------------- rules that draw members


def test_an_expert_is_kept_along_a_trajectory_and_differs_between_examples():
    rule, count = parse_rule("moe"), 400
    state = rule.start(members=4, examples=count, generator=generator(seed=1))
    steps = [rule(torch.arange(4.0)[:, None].expand(4, count), state, step) for step in range(5)]
    assert all(torch.equal(steps[0], other) for other in steps)
    shares = torch.bincount(steps[0].long(), minlength=4) / count
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=0.09)  # four standard errors


def test_alternating_changes_between_steps_and_not_within_one():
    rule, count = parse_rule("alternating"), 400
    state = rule.start(members=2, examples=count, generator=generator(seed=1))
    values = torch.arange(2.0)[:, None].expand(2, count)
    first, again, second = (rule(values, state, step) for step in (9, 9, 8))
    assert torch.equal(first, again)
    changed = float((first != second).float().mean())
    assert changed == pytest.approx(0.5, abs=0.1)
    assert torch.equal(apply("alternating", values, (9, 8), seed=1), second)


def test_what_a_rule_gives_follows_from_its_generator():
    values = normal(5, 30, 2)
    for spec in ("moe", "alternating"):
        assert torch.equal(apply(spec, values, seed=3), apply(spec, values, seed=3))
        assert not torch.equal(apply(spec, values, seed=3), apply(spec, values, seed=4))
        with pytest.raises(ValueError, match="Generator"):
            parse_rule(spec).start(members=5, examples=30)


# ------------------------------------------------------------------------------------- where scores of normal laws end


def end_variance(sampler, rule, steps, examples=20_000):
    # Members are N(0, 1) and N(0, 4) under the VP process.
    schedule = VP(t_min=0.0)

    def member(variance):
        return lambda x, t: -x / (schedule.alpha(t).square() * variance + schedule.sigma(t).square()).to(x)[:, None]

    g = generator(seed=11)
    deterministic = sampler == "heun" and rule != "moe"  # the flow then is linear: one point tells all
    start = torch.ones(1, 1) if deterministic else torch.randn(examples, 1, generator=g)
    return float(sample_diffusion([member(1), member(4)], start, schedule, steps, sampler, rule, g).square().mean())


@pytest.mark.parametrize(
    ("sampler", "rule", "variance", "error"),
    [
        ("heun", "arithmetic", 2.0, 0.002),  # (1 * 4)^(1/2)
        ("heun", "sum", 4 * math.exp(-10.05), 0.02),  # collapse: times exp(-integral of beta)
        ("heun", "moe", 2.5, 0.04),  # the mixture, up to draws
        ("euler-maruyama", "arithmetic", 1.848, 0.035),
        ("euler-maruyama", "sum", 0.579, 0.04),
    ],
)
def test_the_flow_and_the_stochastic_process_of_an_aggregated_score_end_where_they_must(sampler, rule, variance, error):
    assert end_variance(sampler, rule, 60 if rule == "moe" else 250) == pytest.approx(variance, rel=error)


def test_densities_that_a_mean_of_scores_is_taken_for_have_other_variances():
    """Of N(0, 1) and N(0, 4): geometric mean 1.6, product 0.8, mixture 2.5; none is the 2.0 where the flow ends."""
    x = torch.linspace(-40, 40, 20001, dtype=torch.float64)
    members = torch.stack([torch.distributions.Normal(0, v**0.5).log_prob(x) for v in (1.0, 4.0)])
    for log_density, variance in (
        (members.mean(0), 2 / (1 / 1 + 1 / 4)),
        (members.sum(0), 1 / (1 / 1 + 1 / 4)),
        (members.logsumexp(0), (1 + 4) / 2),
    ):
        weights = log_density.softmax(0)
        assert float((weights * x.square()).sum()) == pytest.approx(variance, rel=1e-6)
        assert abs(variance - end_variance("heun", "arithmetic", 60)) > 0.3


def test_the_mean_of_scores_is_that_of_the_geometric_mean_of_noised_densities_at_each_time():
    """Which is why it is no score of a diffusion: noising and multiplying densities do not commute."""
    schedule, t, x = VP(), torch.tensor([0.3]), torch.tensor([[0.7]], dtype=torch.float64)
    alpha, sigma = (float(value) for value in (schedule.alpha(t), schedule.sigma(t)))
    noised = [alpha**2 * v + sigma**2 for v in (1.0, 4.0)]
    mean = torch.stack([-x / v for v in noised]).mean(0)
    torch.testing.assert_close(mean, -x / (2 / sum(1 / v for v in noised)))
    harmonic = alpha**2 * 1.6 + sigma**2  # the geometric mean of the densities, noised
    assert abs(float(mean + x / harmonic)) > 0.01


# ---------------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("arithmetical", r"did you mean 'arithmetic'"),
        ("geometric", r"geometric\[margin=1.0\]"),
        ("geometric[margin=0]", "positive"),
        ("geometric[margin=nan]", "positive"),
        ("geometric[margin=wide]", "positive"),
        ("geometric[margn=1]", "malformed"),
        ("geometric[margin]", "malformed"),
        ("median[margin=1]", "takes no margin"),
        ("median[", "malformed"),
        ("", "malformed"),
    ],
)
def test_a_bad_spec_is_refused_in_a_sentence(spec, message):
    with pytest.raises(SpecError, match=message):
        parse_rule(spec)


@pytest.mark.parametrize("spec", ALL)
def test_a_rule_is_written_as_it_is_read(spec):
    assert parse_rule(str(parse_rule(spec))) == parse_rule(spec)
