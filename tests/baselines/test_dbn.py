"""DBN as a method: the released configuration, what its parts are taught, how they are trained, and its controls."""

import dataclasses

import pytest
import torch

from baselines.dbn import DBNConfig, training
from baselines.dbn.training import bridge_recipe, distillation_recipe, evaluation_temperature
from dbn_core.data.dataset import Split
from dbn_core.errors import SpecError
from dbn_core.methods.predictors import Tempered, start_logits
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.rng import generator
from tests.support.fitting import context, data, fit, fresh, images

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
    return parse_method("dbn", options)


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


def test_training_follows_the_papers_configuration():
    train = Split(torch.zeros(40_960, 1, 8, 8, dtype=torch.uint8), torch.zeros(40_960, dtype=torch.int64))
    fit = dataclasses.replace(context(), data=dataclasses.replace(data(), train=train))  # as many images as the paper's
    for preset, decay in (("paper", 1 - 0.99995), ("fixed", 0.99995)):
        config = dbn(preset=preset, epochs=850).config
        bridge, student = bridge_recipe(config, fit), distillation_recipe(config, fit)
        assert (bridge.epochs, student.epochs) == (800, 50)
        assert (bridge.lr, student.lr) == pytest.approx((2.5e-4, 2.5e-5))
        for recipe in (bridge, student):
            assert (recipe.optimizer, recipe.weight_decay, recipe.warmup_epochs) == ("adamw", 0, 0)
            assert (recipe.schedule, recipe.batch_size, recipe.mixup) == ("cosine", 128, 0.4)
        assert bridge.ema_decay == pytest.approx(decay, rel=1e-6, abs=1e-9)
    assert bridge_recipe(dbn(distill=False, epochs=850).config, fit).epochs == 850


@pytest.mark.parametrize("preset", ["paper", "fixed"])
def test_fit_trains_and_distils_as_the_preset_says(preset, monkeypatch):
    drawn, steps = [], []
    temperature, draw = training.random_temperature, training.draw_steps
    monkeypatch.setattr(training, "random_temperature", lambda *a: drawn.append(a[0]) or temperature(*a))
    monkeypatch.setattr(training, "draw_steps", lambda *a: steps.append(draw(*a)) or steps[-1])
    options = {"preset": preset, "epochs": 4, "batch_size": 16, "steps": 3, "distill_share": 0.25}
    multi, single = fit(canonical(dbn(**options, score_network="mini", split_at="block2")), 3).values()
    assert set(drawn) == {1 if preset == "paper" else 16}
    assert len(drawn) == (3 + 1) * 4  # epochs of four batches
    assert int(torch.cat(steps).max()) == (2 if preset == "paper" else 3)
    # The student starts from its teacher: after one short epoch at a tenth of the rate it is still close to it.
    for name, weights in single.items():
        if weights.is_floating_point() and "running" not in name:
            torch.testing.assert_close(weights, multi[name], rtol=0, atol=2e-4)


def test_a_gaussian_prior_forgets_the_source_logits():
    assert evaluation_temperature(parse_method("dbn[prior=gaussian]").config) is None
    a, b = (start_logits(torch.randn(4, 3), None, generator(seed=6)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(start_logits(a, 2.0, None), a / 2)


def test_a_flow_with_noise_or_kl_is_refused():
    for option in ("prediction=noise", "loss=kl", "sampler_noise=forward", "preset=paper"):
        with pytest.raises(SpecError, match="rectified flow needs"):
            parse_method(f"dbn[process=rectified_flow,{option}]")


def test_direct_regression_is_a_dbn_of_one_step():
    direct = parse_method("direct[loss=kl]")
    assert isinstance(direct.config, DBNConfig)
    assert [part.name for part in direct.parts(5)] == ["bridge-1of2", "bridge-2of2"]
    with pytest.raises(SpecError, match="steps"):
        parse_method("direct[steps=5]")
    with pytest.raises(SpecError, match="distill"):
        parse_method("direct[distill=true]")


def test_a_tempered_network_divides_its_logits():
    network, x = fresh(), images()
    assert torch.allclose(Tempered(network, 2.5)(x), (network(x) / 2.5).log_softmax(-1))
