"""Several bridges as one prediction: what the levels and rules have in common, and where they differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, build_plan
from benchmarks.suite.schema import Suite
from dbn_core.bridge.combine import Joint
from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.sampler import sample
from dbn_core.bridge.schedule import step_variances
from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import RULES, parse_rule
from dbn_core.measure.deploy import deployable
from dbn_core.measure.runtimes import export_program
from dbn_core.methods.predictors import BridgedSource, JointBridges, PooledBridges
from dbn_core.methods.registry import parse_method
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork
from dbn_core.nets.spec import NetworkSpec
from dbn_core.seeds import generator

SPECS = ["geometric[margin=1.0]" if name == "geometric" else name for name in RULES if name != "mean-predictions"]
SPECS[SPECS.index("guidance")] = "guidance[scale=1.3]"
ONE_OF_ONE = [spec for spec in SPECS if not spec.startswith(("alternating", "guidance"))]


def alive(module: Any, seed: int) -> Any:
    initialise_(module, generator(seed=seed))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 1.5, generator(seed=seed, of="variance"))
    return module.eval().requires_grad_(False)


def bridges(count: int, steps: int = 1, same: bool = False) -> BridgedSource:
    """Score networks that see the logits, and so the state that they share or do not share."""
    source = alive(Classifier(NetworkSpec(name="resnet8", channels=4, width=1.0), 5, 1, (0.5,), (0.5,)), 0)
    denoisers = []
    for index in range(count):
        network = alive(ScoreNetwork(4, 5, "mini", logit_branch="live"), 1 if same else index + 1)
        nn.init.normal_(network.out.weight, 0, 0.4, generator(seed=index * (not same), of="last layer"))
        denoisers.append(Denoiser(network, step_variances(steps, 1e-4, 1e-4)))
    return BridgedSource(source, "block1", denoisers, 2.0).eval().requires_grad_(False)


IMAGES = torch.rand(6, 1, 8, 8, generator=generator(seed=3))


def test_in_one_step_the_mean_of_scores_is_the_mean_of_logits() -> None:
    three = bridges(3)
    terms = three(IMAGES)
    logits = terms.mean(0).log_softmax(-1)
    torch.testing.assert_close(JointBridges(three, parse_rule("arithmetic"))(IMAGES), logits)
    torch.testing.assert_close(PooledBridges(three, 0.0)(IMAGES), logits)
    # ... and the normalised geometric mean of probabilities, which another order is not.
    product = terms.exp().prod(0) ** (1 / 3)
    torch.testing.assert_close(logits.exp(), product / product.sum(-1, keepdim=True))
    torch.testing.assert_close(PooledBridges(three, 1.0)(IMAGES).exp(), terms.exp().mean(0))
    assert not torch.allclose(logits.exp(), terms.exp().mean(0), atol=1e-3)


def test_in_one_step_the_sum_of_scores_goes_as_many_times_as_far_as_the_mean_of_logits() -> None:
    three = bridges(3)
    torch.testing.assert_close(
        JointBridges(three, parse_rule("sum"))(IMAGES),
        PooledBridges(three, 0.0, guidance=3.0)(IMAGES),
        atol=1e-5,
        rtol=1e-5,
    )
    torch.testing.assert_close(
        JointBridges(three, parse_rule("guidance[scale=1.4]"))(IMAGES), PooledBridges(three, 0.0, guidance=1.4)(IMAGES)
    )
    start, end = (torch.stack(side).mean(0) for side in zip(*three.walks(IMAGES), strict=True))
    expected = (start + 1.4 * (end - start)).log_softmax(-1)
    torch.testing.assert_close(PooledBridges(three, 0.0, guidance=1.4)(IMAGES), expected)


def test_in_more_steps_levels_differ_by_the_state_that_bridges_share() -> None:
    three = bridges(3, steps=4)
    joint, pooled = JointBridges(three, parse_rule("arithmetic"))(IMAGES), PooledBridges(three, 0.0)(IMAGES)
    assert not torch.allclose(joint, pooled, atol=1e-3)
    # Networks that do not look at the state go the same ways together and apart.
    moves = [torch.randn(6, 5, generator=generator(seed=seed)) for seed in (1, 2)]

    class Says(nn.Module):
        def __init__(self, move: torch.Tensor) -> None:
            super().__init__()
            self.move = move

        def forward(self, *_: Any) -> torch.Tensor:
            return self.move

    blind = [Denoiser(Says(move), step_variances(4, 0.1, 0.7)) for move in moves]
    rule, z = parse_rule("arithmetic"), torch.randn(6, 5, generator=generator(seed=9))
    together = sample(Joint(blind, rule, rule.start(2, 6)), None, z)
    torch.testing.assert_close(together, torch.stack([sample(denoiser, None, z) for denoiser in blind]).mean(0))


@pytest.mark.parametrize("spec", ONE_OF_ONE)
@pytest.mark.parametrize("count", [1, 3])
def test_bridges_that_agree_move_as_one(spec: str, count: int) -> None:
    if (spec, count) == ("sum", 3):
        pytest.skip("a sum of three is three times one")
    alike = bridges(count, steps=3, same=True)
    torch.testing.assert_close(JointBridges(alike, parse_rule(spec))(IMAGES), alike(IMAGES)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in ("moe", "alternating")])
def test_the_order_of_bridges_is_nothing_to_a_rule_without_draws(spec: str) -> None:
    three = bridges(3, steps=2)
    before = JointBridges(three, parse_rule(spec))(IMAGES)
    three.denoisers = nn.ModuleList(reversed(list(three.denoisers)))
    torch.testing.assert_close(JointBridges(three, parse_rule(spec))(IMAGES), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["dominant", "median", "geometric[margin=1.0]"])
def test_rules_that_may_shift_all_classes_give_centred_logits(spec: str) -> None:
    denoisers, rule = list(bridges(3).denoisers), parse_rule(spec)
    z = torch.randn(6, 5, generator=generator(seed=2))
    features = torch.rand(6, 4, 8, 8, generator=generator(seed=4))
    estimate = Joint(denoisers, rule, rule.start(3, 6))(features, z, 1)  # type: ignore[arg-type]
    torch.testing.assert_close(estimate.mean(-1), torch.zeros(6), atol=1e-6, rtol=0)


def test_a_mixture_of_experts_follows_one_bridge_all_the_way() -> None:
    three = bridges(3, steps=3)
    terms, mixed = three(IMAGES), JointBridges(three, parse_rule("moe"))
    first = mixed(IMAGES)
    assert torch.equal(first, mixed(IMAGES))
    distance = (terms - first).abs().amax(-1)  # [3, 6]
    assert float(distance.amin(0).max()) < 1e-4
    assert len(distance.argmin(0).unique()) > 1
    other = JointBridges(three, parse_rule("alternating"))(IMAGES)
    assert float((terms - other).abs().amax(-1).amin(0).max()) > 1e-3


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0])
def test_a_pool_of_order_between_0_and_1_is_never_worse_than_its_mean_bridge(order: float) -> None:
    three = bridges(3)
    terms = three(IMAGES)
    pooled = PooledBridges(three, order)(IMAGES)
    for label in range(5):  # for each class as the true one
        assert bool((-pooled[:, label] <= -terms[:, :, label].mean(0) + 1e-6).all())


@pytest.mark.parametrize("order", [2.0, -1.0])
def test_outside_of_it_a_pool_can_be_worse(order: float) -> None:
    worse = 0
    for seed in range(20):
        terms = (3 * torch.randn(3, 50, 5, generator=generator(seed=seed))).log_softmax(-1)

        class Given(nn.Module):
            def __init__(self, terms: torch.Tensor) -> None:
                super().__init__()
                self.terms = terms

            def walks(self, _: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
                return [(term, term) for term in self.terms]

        pooled = PooledBridges(Given(terms), order)(IMAGES)  # type: ignore[arg-type]
        worse += int((-pooled > -terms.mean(0) + 1e-6).sum())
    assert worse


@pytest.mark.parametrize("spec", ["arithmetic", "median", "alternating"])
def test_the_deployable_form_of_joint_bridges_is_the_same_function(spec: str) -> None:
    plain = JointBridges(bridges(2, steps=2), parse_rule(spec)).eval().requires_grad_(False)
    folded = deployable(plain, IMAGES[:3])
    assert folded is not plain
    torch.testing.assert_close(folded(IMAGES), plain(IMAGES), atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------------------------- the method


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("rule=median", "rule is read where combine=score"),
        ("order=0.5,combine=logit", "order is read where combine=probability"),
        ("guidance=1.2", "guidance is read where combine=logit"),
        ("combine=score,rule=medien", "did you mean 'median'"),
        ("combine=score,rule=geometric", "needs its margin"),
        ("combine=score,rule=mean-predictions", "combine=logit"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_method(f"dbn[{options}]")


def test_a_rule_that_needs_several_bridges_is_refused_where_there_is_one() -> None:
    method = parse_method("dbn[combine=score,rule=alternating]")
    method.check_size(5)
    with pytest.raises(SpecError, match="alternating needs 2 bridges"):
        method.check_size(3)
    parse_method("dbn[combine=score,rule=alternating,replicas=2]").check_size(3)


def test_replicas_are_further_parts_with_the_same_target() -> None:
    method = parse_method("dbn[replicas=3]")
    parts = method.parts(5)
    students = [part for part in parts if part.name.startswith("onestep")]
    assert len({part.name for part in parts}) == 12
    assert [part.members for part in students] == [(0, 1, 2)] * 3 + [(0, 3, 4)] * 3
    for part in students:
        assert method.target_weights(part).tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert [part for part in parts if "r" not in part.name.split("-")[1]] == list(parse_method("dbn").parts(5))


def test_comparing_levels_and_rules_costs_no_training() -> None:
    suite = load_suite("smoke").model_dump(mode="json") | {"methods": []}
    suite["pool"]["members"] = 5
    for options in ({}, {"combine": "logit"}, {"combine": "score", "rule": "dominant"}, {"order": 0.5}):
        label = str(options)
        suite["methods"].append({"use": "dbn", "sizes": [5], "label": label, "options": {"at": "block2"} | options})
    facts = DataFacts("0", "D", 1, (8, 8), tuple("abc"), {"train": 64, "validation": 8, "test": 8})
    plan = build_plan(Suite.model_validate(suite), facts)
    assert len({cell.parts for cell in plan.cells}) == 2  # of its two repetitions
    assert len({cell.predictions for cell in plan.cells}) == 8


def test_joint_bridges_are_exported_for_any_number_of_images() -> None:
    plain = JointBridges(bridges(2), parse_rule("dominant")).eval().requires_grad_(False)
    program = export_program(deployable(plain, IMAGES), IMAGES).module()
    for images in (IMAGES, IMAGES[:2]):
        torch.testing.assert_close(program(images), plain(images), atol=1e-4, rtol=0)
