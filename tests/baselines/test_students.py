"""Students beyond plain ED: patient ones, heads, perturbed images, no teachers, and bridges that start from one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Plan, build_plan
from dbn_core.data.perturbation import diversified
from dbn_core.distillation import ed_loss
from dbn_core.errors import SpecError
from dbn_core.methods.context import FitContext
from dbn_core.methods.registry import canonical, methods, parse_method
from dbn_core.methods.student import ImageOptions
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe
from dbn_core.train.statistics import batch_statistics
from tests.benchmarks.suite.test_keys import FACTS
from tests.support.fitting import RECIPE_PLAIN, context, data, fit, fresh, images, predictor, trained

seeds = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed=seed), dtype=torch.float64)


def plan(folder: Path, entries: str, members: int = 8) -> Plan:
    (folder / "mine.toml").write_text(
        'title = "Students"\nrepetitions = 1\n[data]\nsource = "digits"\n[network]\nname = "resnet8"\n[pool]\n'
        f"members = {members}\n[recipe]\nepochs = 2\n[students]\nepochs = 2\n{entries}"
    )
    return build_plan(load_suite(str(folder / "mine.toml")), FACTS)


# --------------------------------------------------------------------------------------------- averages of weights


@pytest.mark.parametrize("method", ["ed", "end2", "hydra[split_at=block2]", "distil[teacher=de]"])
def test_an_averaged_student_is_the_mean_of_students_of_each_length(method: str) -> None:
    def student(**options: int) -> torch.Tensor:
        """Weights, of trainings whose first epochs are the same."""
        opened = method[:-1] + "," if method.endswith("]") else method + "["
        spec = opened + ",".join(f"{name}={value}" for name, value in options.items()) + "]"
        (state,) = fit(spec, 2, recipe=RECIPE_PLAIN).values()
        return torch.cat([tensor.flatten().double() for name, tensor in sorted(state.items()) if "count" not in name])

    ends = [student(epochs=epochs, averaged_epochs=1) for epochs in (1, 2, 3)]
    assert not torch.allclose(ends[1], ends[2], atol=1e-4)
    torch.testing.assert_close(student(epochs=3, averaged_epochs=3), torch.stack(ends).mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(student(epochs=3, averaged_epochs=2), torch.stack(ends[1:]).mean(0), atol=1e-6, rtol=0)
    with pytest.raises(SpecError, match="averaged_epochs is 4 of 3 epochs"):
        student(epochs=3, averaged_epochs=4)
    with pytest.raises(SpecError, match="averaged_epochs is 3 of 2 epochs"):  # those of the suite
        student(averaged_epochs=3)


def test_an_averaged_student_has_statistics_of_its_own_weights() -> None:
    averaged = fit("ed[epochs=2,averaged_epochs=2]", 2, norm="batchnorm", recipe=RECIPE_PLAIN)["student"]
    network = fresh("batchnorm")
    network.load_state_dict(averaged)
    found = batch_statistics(network, data().train.images.float() / 255)  # neither cropped nor mirrored here
    assert found
    for name, statistic in found.items():
        torch.testing.assert_close(statistic, averaged[name], atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- options


PATIENT = """
[[methods]]
use = "ed"
label = "Patient ED"
sizes = [8]
teachers = "views(30)"
options = { tau = 1, epochs = 60, mixup = 0.4, cutmix = 1.0, lr_scale = 2, width = 2.0 }
[[methods]]
use = "ensemble-of-singles"
label = "The same without teachers"
sizes = [1, 4]
options = { epochs = 60, mixup = 0.4, cutmix = 1.0, lr_scale = 2, width = 2.0 }
"""


def test_patient_distillation_and_its_control_are_entries_of_a_suite(tmp_path: Path) -> None:
    made = plan(tmp_path, PATIENT)
    patient, *alone = made.cells
    views = [made.nodes[key].recipe for key in patient.views]
    assert len(views) == 8
    assert {(r["count"], r["recipe"]["mixup"], r["recipe"]["cutmix"]) for r in views} == {(30, 0.4, 1.0)}
    assert [len(cell.parts) for cell in alone] == [1, 4]
    assert set(alone[0].parts) < set(alone[1].parts)
    assert not any(cell.members or cell.views for cell in alone)


@pytest.mark.parametrize("name", [n for n, cls in methods().items() if issubclass(cls.Config, ImageOptions)])
def test_options_of_images_are_in_the_recipe_and_in_what_teachers_are_shown(name: str) -> None:
    options = {"crop_pad": 3, "flip": False, "cutmix": 0.7}
    method = parse_method(name, options)
    assert method.config.augmentation() == options
    assert parse_method(name).config.augmentation() == {}
    for part in method.parts(3):
        if part.teacher_mixup is not None:
            shown = part.teacher_recipe(Recipe(crop_pad=1, cutmix=0.0, mixup=0.9))
            assert (shown.crop_pad, shown.flip, shown.cutmix) == (3, False, 0.7)
            assert shown.mixup == part.teacher_mixup


# ----------------------------------------------------------------------------------------------------------- heads


@given(seed=seeds, members=st.integers(2, 4), tau=st.floats(0.5, 5))
@settings(max_examples=25, deadline=None)
def test_the_loss_of_hydra_is_the_mean_of_its_heads(seed: int, members: int, tau: float) -> None:
    hydra = parse_method("hydra", {"tau": tau})
    heads, teachers = 2 * normal(members, 3, 5, seed=seed), 3 * normal(members, 3, 5, seed=seed + 1)
    total = 0.0
    for head, teacher in zip(heads, teachers, strict=True):
        for z, target in zip(head.tolist(), teacher.tolist(), strict=True):
            p, q = ([math.exp(x / tau) for x in row] for row in (target, z))
            total -= tau**2 * sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q, strict=True))
    assert float(hydra.loss(heads.log_softmax(-1), teachers)) == pytest.approx(total / (3 * members), rel=1e-9)


def test_a_head_learns_from_its_own_teacher_and_one_head_alone_from_all() -> None:
    hydra, teachers = parse_method("hydra"), 3 * normal(3, 4, 5, seed=1)
    gradients = []
    for shift in (0.0, 2.0):
        heads = normal(3, 4, 5).requires_grad_()
        moved = teachers + shift * normal(3, 4, 5, seed=2) * torch.tensor([0, 1, 0])[:, None, None]
        gradients.append(torch.autograd.grad(hydra.loss(heads, moved), heads)[0])
    changed = (gradients[0] - gradients[1]).abs().amax((1, 2)) > 1e-6
    assert changed.tolist() == [False, True, False]
    one = normal(1, 4, 5)
    assert hydra.loss(one, teachers) == ed_loss(one[0], teachers, 4.0)


@pytest.mark.parametrize("at", ["block1", "block3"])
def test_heads_start_apart_and_share_the_body(at: str) -> None:
    where = context()
    student = parse_method(f"hydra[split_at={at}]").student(3, where).eval()
    terms = student(images(2))
    assert terms.shape == (3, 2, 4)
    assert len(terms.unique(dim=0)) == 3
    owned = sum(p.numel() for p in {id(p): p for p in student.parameters()}.values())
    body, head = (sum(p.numel() for p in half.parameters()) for half in where.new_network().split(at))
    assert owned == body + 3 * head


# ------------------------------------------------------------------------------------------------------- perturbed


class Linear(nn.Module):
    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.matrix


@given(seed=seeds, tau=st.floats(0.5, 4))
@settings(max_examples=25, deadline=None)
def test_a_perturbation_is_the_gradient_of_a_linear_network_in_closed_form(seed: int, tau: float) -> None:
    images, matrix = normal(4, 1, 2, 3, seed=seed), normal(6, 5, seed=seed + 1)
    weights = normal(4, 5, seed=seed + 2)
    p = ((images.flatten(1) @ matrix) / tau).softmax(-1)
    gradient = (p * (weights - (p * weights).sum(1, keepdim=True))) @ matrix.T / tau
    expected = 0.01 * gradient / gradient.square().mean(1, keepdim=True).sqrt()
    expected *= p.amax(1, keepdim=True)
    moved = diversified(images, Linear(matrix), weights, 0.01, tau)
    torch.testing.assert_close((moved - images).flatten(1), expected, rtol=1e-6, atol=1e-9)


def test_a_saturated_network_moves_nothing_or_as_far_as_asked() -> None:
    images = torch.rand(3, 1, 2, 3, generator=generator(seed=0))
    for factor in (20.0, 80.0, 1e4):  # gradients from small to none at all in float32
        matrix = factor * normal(6, 5, seed=1).float()
        change = diversified(images, Linear(matrix), normal(3, 5).float(), 0.01, 1.0) - images
        length = change.square().mean((1, 2, 3)).sqrt() / Linear(matrix)(images).softmax(-1).amax(1)
        assert torch.isfinite(change).all()
        assert all(x == 0 or x == pytest.approx(0.01, rel=1e-3) for x in length.tolist())


# --------------------------------------------------------------------------------------------------------- bridges


SHARED = """
[[methods]]
use = "ed[epochs=4,mixup=0.4,cutmix=1]"
sizes = [2]
[[methods]]
use = "student-bridge[epochs=4,mixup=0.4,cutmix=1,bridge_mixup=0]"
sizes = [4, 6]
[[methods]]
use = "student-bridge[epochs=5]"
sizes = [4]
[[methods]]
use = "student-bridge[epochs=4,mixup=0.4,cutmix=1,joint=true]"
sizes = [4]
"""


@pytest.mark.parametrize("teachers", ["online", "views(2)"])
def test_a_bridge_and_an_ed_entry_share_their_student(tmp_path: Path, teachers: str) -> None:
    made = plan(tmp_path, SHARED.replace("sizes", f'teachers = "{teachers}"\nsizes'))
    ed, four, six, other, joint = made.cells
    (student,) = ed.parts
    assert student == four.parts[0] == six.parts[0] == joint.parts[0] != other.parts[0]
    assert four.parts == six.parts[:2]
    source, first, second = (made.nodes[key] for key in six.parts)
    pool = [made.members[0, position] for position in range(6)]
    assert [node.payload["members"] for node in (source, first, second)] == [pool[:2], pool[2:4], pool[4:]]
    assert joint.parts[1] not in {first.key, second.key}


@pytest.mark.parametrize(
    ("options", "size", "groups"),
    [
        ({"source_members": 3, "members_per_bridge": 1}, 5, [(3,), (4,)]),
        ({"source_members": 3, "members_per_bridge": 5, "bridge_from": 0}, 5, [(0, 1, 2, 3, 4)]),
        ({"source_members": 2, "members_per_bridge": 2, "bridge_from": 1}, 5, [(1, 2), (3, 4)]),
    ],
)
def test_who_teaches_a_bridge(options: dict[str, int], size: int, groups: list[tuple[int, ...]]) -> None:
    method = parse_method("student-bridge", options)
    method.check_size(size)
    student, *bridges = method.parts(size)
    assert student.members == tuple(range(options["source_members"]))
    assert [part.members for part in bridges] == groups
    (_, joint) = parse_method("student-bridge", {**options, "joint": True}).parts(size)
    assert set(joint.members) == {*student.members, *(m for group in groups for m in group)}


BRIDGE = "student-bridge[split_at=block2,score_network=mini,source_members=1,members_per_bridge=1"


def member(seed: int, norm: str) -> Classifier:
    return fresh(norm, seed=seed)


@pytest.mark.parametrize("start", ["random", "source"])
def test_where_a_student_starts(start: str) -> None:
    state = fit(f"ed[start={start},lr_scale=1e-12,epochs=1]", 2, member=member)["student"]
    source = {name: tensor for name, tensor in member(0, "frn").state_dict().items() if name.endswith("weight")}
    near = all(torch.allclose(state[name], tensor, atol=1e-6) for name, tensor in source.items())
    assert near == (start == "source")


def test_a_frozen_source_is_the_student_and_a_joint_one_goes_on_from_it() -> None:
    parts, x = fit(BRIDGE + "]", 3, member=member), images()
    student = fresh()
    student.load_state_dict(parts["student"])
    terms = predictor(BRIDGE + "]", 3, parts)(x)
    torch.testing.assert_close(terms[0], student(x).log_softmax(-1))
    assert len(terms.unique(dim=0)) == 3
    joint = fit(BRIDGE + ",joint=true]", 3, member=member)
    assert all(torch.equal(joint["student"][k], v) for k, v in parts["student"].items())
    assert predictor(BRIDGE + ",joint=true]", 3, joint)(x).shape == terms.shape
    assert any(not torch.equal(joint["joint"][f"source.{k}"], v) for k, v in parts["student"].items())


def test_a_bridge_nears_its_teacher() -> None:
    # One bridge from a student of member 0 to member 1: long trained, it is nearer to that than the student is.
    def loud(seed: int, norm: str) -> Classifier:
        network = member(seed, norm)
        network.head.linear.weight.mul_(2)  # untrained members all say nearly the same
        return network

    options = ",mixup=0,bridge_mixup=0,bridge_lr=0.02,bridge_epochs=45,batch_size=16,crop_pad=0]"
    x = data().train.images / 255
    source, bridge = predictor(BRIDGE + options, 2, fit(BRIDGE + options, 2, member=loud, recipe=RECIPE_PLAIN))(x)
    target = loud(1, "frn")(x).log_softmax(-1)
    gap = [float((target.exp() * (target - term)).sum(-1).mean()) for term in (source, bridge)]
    assert gap[1] < 0.5 * gap[0]


@pytest.mark.parametrize(("method", "heads"), [("ed", 1), ("end2", 1), ("hydra[split_at=block2]", 2), ("distil", 1)])
def test_a_student_may_begin_as_the_source(method: str, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, source = canonical(parse_method(method, {"start": "source"})), trained(0, "frn")
    trained(1, "frn")
    monkeypatch.setattr(FitContext, "train", lambda *given, **named: None)
    terms = predictor(spec, 2, fit(spec, 2))(images())
    expected = source(images()).log_softmax(-1).expand(heads, -1, -1)
    torch.testing.assert_close(terms, expected)
    with pytest.raises(SpecError, match="drop width or start"):
        parse_method("hydra[start=source,width=0.5]")
