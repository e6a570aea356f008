"""B-DENSE on bridges: branches against closed forms, the plain distillation, and the bridge's own law."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.dbn.branches import partial_ensembles, path_states
from baselines.dbn.training import BridgeTraining, Ends
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.bridge.branches import (
    branch_fractions,
    branch_loss,
    branch_states,
    branch_steps,
    branched,
    curvature,
    exported,
    growing_weights,
)
from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.distill import step_distillation_loss
from dbn_core.bridge.process import bridge_mean_std, target_logits
from dbn_core.bridge.sampler import trajectory
from dbn_core.bridge.schedule import step_variances
from dbn_core.errors import SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.methods.context import FitContext
from dbn_core.methods.registry import parse_method
from dbn_core.nets.init import initialise_
from dbn_core.nets.score import ScoreNetwork
from dbn_core.rng import generator
from tests.support.fitting import context, fit, fresh, images, predictor

FEATURES = torch.zeros(0)
rates = st.floats(1e-3, 2.0)


def draw(*shape: int, purpose: str = "z") -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed=0, purpose=purpose), dtype=torch.float64)


class Linear(nn.Module):
    """A network linear in Z, in the form that is widened: out(Z - goal), one scalar times the identity at first."""

    def __init__(self, goal: torch.Tensor, slope: float) -> None:
        super().__init__()
        self.goal = goal
        self.out = nn.Linear(len(goal), len(goal)).double()
        with torch.no_grad():
            self.out.weight.copy_(slope * torch.eye(len(goal)).double())
            self.out.bias.zero_()

    def forward(self, features: Any, z: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        return self.out(z - self.goal)


def score_denoiser(steps: int = 1, seed: int = 0) -> Denoiser:
    network = ScoreNetwork(4, 5, "mini")
    initialise_(network, generator(seed=seed))
    return Denoiser(network, step_variances(steps, 1e-4, 1e-4)).eval()


# ---------------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_widened_head_starts_as_copies_and_its_export_answers_as_its_last_branch(count: int) -> None:
    plain = score_denoiser()
    student = branched(plain, count)
    features, z, tau = torch.randn(3, 4, 8, 8), torch.randn(3, 5), torch.ones(3)
    with torch.no_grad():
        answers = student.network.branches(features, z, tau)
        assert answers.shape == (3, count, 5)
        for k in range(count):
            torch.testing.assert_close(answers[:, k], plain.network(features, z, tau))
        student.network.network.out.weight.add_(torch.randn(5 * count, student.network.network.out.in_features))
        student.network.network.out.bias.add_(torch.randn(5 * count))
        alone = exported(student)
        torch.testing.assert_close(alone(features, z, 1), student(features, z, 1))
        torch.testing.assert_close(alone.network(features, z, tau), student.network.branches(features, z, tau)[:, -1])
    shapes = [{k: v.shape for k, v in denoiser.state_dict().items()} for denoiser in (plain, alone)]
    assert shapes[0] == shapes[1]


# ------------------------------------------------------------------------------------------- weights, ways, targets


@given(count=st.integers(1, 9), growth=st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_weights_grow_by_one_factor_and_always_sum_to_one(count: int, growth: float) -> None:
    weights = growing_weights(count, growth).double()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    for before, after in pairwise(weights):
        if min(float(before), float(after)) > 1e-30:
            assert math.log(after / before) == pytest.approx(growth / count, abs=1e-4)


def test_branches_aim_at_evenly_spaced_states() -> None:
    assert branch_steps(4, 4) == [3, 2, 1, 0]
    assert branch_steps(12, 3) == [8, 4, 0]
    with pytest.raises(ValueError, match="do not divide"):
        branch_steps(5, 2)


@given(beta_0=rates, beta_1=rates, count=st.integers(1, 4), stride=st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_an_oracle_puts_every_branch_on_the_mean_of_the_bridge(
    beta_0: float, beta_1: float, count: int, stride: int
) -> None:
    """The bridge from Z_N to Z_0 as equation (3) has it, for any clock."""
    variances, z_0, z_1 = step_variances(count * stride, beta_0, beta_1), draw(2, 4), draw(2, 4, purpose="end")
    student = branched(Denoiser(Linear(z_0[0], 0.0), step_variances(1, beta_0, beta_1)), count)
    student.network.branches = lambda h, z, tau: (z - z_0)[:, None].expand(-1, count, -1)  # type: ignore[method-assign]
    states = branch_states(student, FEATURES, z_1, branch_fractions(variances, count))
    for k, index in enumerate(branch_steps(count * stride, count)):
        mean, _ = bridge_mean_std(z_0, z_1, torch.tensor([index]), variances)
        torch.testing.assert_close(states[:, k], mean, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("slope", [0.1, 0.3, 1.0])
def test_a_linear_teacher_has_a_path_in_closed_form_and_its_student_an_optimum_without_loss(slope: float) -> None:
    # Z_{n-1} - goal = (1 - slope / N) (Z_n - goal): displacement (n / N) slope (Z - goal), a_n = 1 / n.
    steps, goal, z = 4, draw(3, purpose="goal"), draw(6, 3)
    variances = step_variances(steps, 1e-4, 1e-4)
    teacher = Denoiser(Linear(goal, slope), variances)
    with torch.no_grad():
        states = trajectory(teacher, FEATURES, z)
    for done, state in enumerate(states):
        torch.testing.assert_close(state, goal + (1 - slope / steps) ** done * (z - goal))
    ideal = [1 - (1 - slope / steps) ** k for k in range(1, steps + 1)]
    student = branched(Denoiser(Linear(goal, slope), step_variances(1, 1e-4, 1e-4)), steps)
    fractions = branch_fractions(variances, steps)
    with torch.no_grad():
        for k, move in enumerate(ideal):
            student.network.network.out.weight[3 * k : 3 * k + 3] = move / fractions[k] * torch.eye(3).double()
        outputs = student.network.branches(FEATURES, z, torch.ones(6))
    targets = torch.stack(states[1:], 1)
    for kind in ("mse", "kl"):
        loss = branch_loss(
            outputs, torch.ones(6, 1).double(), z, targets, z, fractions, growing_weights(steps), 1.0, kind
        )
        assert float(loss) == pytest.approx(0, abs=1e-12)
    # kappa by hand: from the closed form, all examples alike.
    off = [abs(ideal[k - 1] - k / steps * ideal[-1]) for k in range(1, steps + 1)]
    assert curvature(states, variances) == pytest.approx(max(off) / ideal[-1], rel=1e-9)


def test_a_path_that_turns_has_the_curvature_that_one_can_see() -> None:
    corner = [torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])]
    assert curvature(corner, step_variances(2, 1.0, 1.0)) == pytest.approx(0.5)  # half the diagonal off its middle
    assert math.isnan(curvature([torch.zeros(0, 2)] * 3, step_variances(2, 1.0, 1.0)))


# ---------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("prediction", ["noise", "displacement"])
@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_one_branch_is_the_plain_distillation_to_the_bit(prediction: Any, loss: Any) -> None:
    z_1, z_c, z_0, output = (draw(7, 10, purpose=name).float() for name in "abcd")
    student = Denoiser(nn.Identity(), step_variances(1, 0.02, 0.02), prediction)
    student.raw = lambda features, z, n: output  # type: ignore[method-assign]
    plain = step_distillation_loss(student, FEATURES, z_1, z_c, z_0, 0.3, loss)
    scale = student.scale(torch.ones(7, dtype=torch.long), z_1)
    fractions, weights = branch_fractions(step_variances(5, 0.02, 0.02), 1), growing_weights(1, 2.0)
    ours = branch_loss(output[:, None], scale, z_1, z_c[:, None], z_0, fractions, weights, 0.3, loss)
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_the_loss_is_the_weighted_sum_of_distances_in_the_networks_unit(loss: Any) -> None:
    z, targets, z_0, outputs = (
        draw(4, 5),
        draw(4, 3, 5, purpose="x"),
        draw(4, 5, purpose="0"),
        draw(4, 3, 5, purpose="o"),
    )
    scale, weights, ways = torch.full((4, 1), 0.5).double(), torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.25, 0.5, 1])

    def apart(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if loss == "kl":
            p = target.softmax(-1)
            return (p * (p.log() - state.softmax(-1).log())).sum(-1)
        return ((state - target) / 0.5).square().sum(-1)

    states = [z - float(a) * 0.5 * outputs[:, k] for k, a in enumerate(ways)]
    distances = [apart(states[k], targets[:, k]).mean() for k in range(len(weights))]
    distances[-1] = 0.7 * distances[-1] + 0.3 * apart(states[-1], z_0).mean()
    expected = sum(float(w) * gap for w, gap in zip(weights, distances, strict=True))
    got = branch_loss(outputs, scale, z, targets, z_0, ways, weights, 0.7, loss)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


# ---------------------------------------------------------------------------------------------------- training


def dbn(options: str) -> str:
    return f"dbn[batch_size=16,score_network=mini,split_at=block2,epochs=4,distill_share=0.5,{options}]"


@pytest.mark.parametrize("preset", ["preset=paper", "prior=gaussian"])
def test_training_one_branch_is_the_plain_distillation_to_the_bit(preset: str) -> None:
    plain, branch = (
        fit(dbn(f"steps=4,{preset}{more}"), 3, axes="any") for more in ("", ",distill=branches,branches=1")
    )
    assert plain.keys() == {"bridge-1", "onestep-1"}
    for name, tensor in plain["onestep-1"].items():
        assert torch.equal(branch["branches-1"][name], tensor), name
    assert any(not torch.equal(v, plain["bridge-1"][k]) for k, v in plain["onestep-1"].items())


@pytest.mark.parametrize(
    ("options", "size", "records"),
    [
        ("steps=4", 3, {"kappa", "branch_1_mse", "branch_2_mse", "branch_3_mse", "branch_4_mse"}),
        ("steps=4,branches=2", 3, {"kappa", "branch_1_mse", "branch_2_mse"}),
        ("members_per_bridge=4,branch_targets=members", 4, {"kappa"}),
    ],
    ids=["path", "half-path", "members"],
)
def test_every_variant_records_and_predicts_at_the_cost_of_a_plain_student(
    options: str, size: int, records: set[str]
) -> None:
    contexts: list[FitContext] = []
    spec, plain = dbn(f"distill=branches,{options}"), dbn("members_per_bridge=4" if size == 4 else "steps=4")
    parts = fit(spec, size, contexts=contexts)
    assert set(contexts[1].records) == records
    assert all(value is not None and value >= 0 for value in contexts[1].records.values())
    assert ArtefactBuilder._training_value(contexts[1])["records"] == contexts[1].records
    assert sum(log.epochs for log in contexts[1].logs) == 2  # as many updates for any number of branches
    (single,) = (state for name, state in parts.items() if name.startswith("branches"))
    alike = [predictor(spec, size, parts), predictor(plain, size, {parse_method(plain).parts(size)[1].name: single})]
    assert torch.equal(*(each(images()) for each in alike))
    assert len({measure_cost(each, images(1)) for each in alike}) == 1


def test_plain_distillation_records_its_teachers_curvature_too() -> None:
    contexts: list[FitContext] = []
    fit(dbn("steps=2"), 3, contexts=contexts)
    assert set(contexts[1].records) == {"kappa", "branch_1_mse"}


def ends(count: int = 12) -> Ends:
    shown = draw(4, count, 4, purpose="members").float()
    return Ends(FEATURES, shown, shown[0], target_logits(shown), draw(count, 4, purpose="1").float())


def trainer(options: str, weights: torch.Tensor | None = None) -> BridgeTraining:
    return BridgeTraining(parse_method(dbn(f"distill=branches,{options}")).config, context(members=[fresh()]), weights)


def test_the_targets_are_the_teachers_states() -> None:
    goal, batch, training = torch.tensor([1.0, 0, -1, 0]), ends(4), trainer("steps=8,branches=2")
    teacher = Denoiser(Linear(goal, 0.8).float(), step_variances(8, 1e-4, 1e-4))
    start = training.start_at_mean_temperature(batch.source)
    for k, index in enumerate([4, 0]):
        expected = goal + 0.9 ** (8 - index) * (start - goal)
        torch.testing.assert_close(path_states(training, teacher, batch)[:, k], expected)


def test_partial_ensembles_are_those_of_the_first_members() -> None:
    batch, weights = ends(), torch.tensor([0.1, 0.3, 0.3, 0.3])
    for given_weights in (None, weights):
        training = trainer("members_per_bridge=4,branch_targets=members", given_weights)
        targets = partial_ensembles(training, batch)
        assert torch.equal(targets[:, -1], batch.z_0)
        for k in (0, 1):
            w = (torch.full((4,), 0.25) if given_weights is None else given_weights)[: k + 2]
            mean = (w[:, None, None] * batch.member_logits[: k + 2].softmax(-1)).sum(0) / w.sum()
            torch.testing.assert_close(targets[:, k].softmax(-1), mean)


# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("distill=branch", "true, false or branches"),
        ("branches=2", "distill=branches"),
        ("distill=branches,branches=2", "steps=5 is no multiple"),
        ("distill=branches,branch_weights=1:2", "2 weights for 5 branches"),
        ("distill=branches,branch_weights=1:2:x:1:1", "such as 1:2:4"),
        ("distill=branches,branch_weights=1:1:1:1:1,branch_growth=1", "give one of them"),
        ("distill=branches,branch_targets=members,branches=3", "members_per_bridge of 4 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_remedy(options: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_method(f"dbn[{options}]")


def test_weights_can_be_given() -> None:
    config = parse_method("dbn[distill=branches,steps=4,branch_weights=1:1:2:4]").config
    assert config.branch_weight_list == [0.125, 0.125, 0.25, 0.5]
    assert config.branch_count == 4


def test_students_share_the_bridge_that_they_are_distilled_from() -> None:
    plain, branch = (parse_method(f"dbn[steps=4,{o}]").parts(3) for o in ("distill=true", "distill=branches"))
    assert plain[0] == branch[0]
    assert plain[1] != branch[1]


def test_records_are_numbers() -> None:
    where = context()
    where.record(a=torch.tensor(0.5), b=float("nan"), c=3)
    assert where.records == {"a": 0.5, "b": None, "c": 3.0}
    with pytest.raises(SpecError, match="takes a number"):
        where.record(d="many")
