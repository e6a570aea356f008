"""Mixup: views stay as they were stored, and teachers see the student's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.methods.context import FitContext, freeze
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.augment import mixup_coefficients
from dbn_core.data.views import Augmentation, Views
from dbn_core.nets.spec import NetworkSpec
from dbn_core.methods.registry import parse_method
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe


def split(count: int = 24, size: int = 8) -> Split:
    draw = generator(purpose="mixing")
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    return Split(images, torch.arange(count) % 4)


def test_views_are_those_that_were_stored() -> None:
    data, axes = split(), {"seed": 1}
    draw = generator(**axes, purpose="view", view=0, augmentation={"crop_pad": 2, "flip": True, "mixup": 0.4})
    torch.randint(0, 5, (2, 24, 1), generator=draw)
    torch.rand(24, generator=draw)
    lam = mixup_coefficients(24, 0.4, draw, per_example=True)
    batch = Views(data, Augmentation(2, True, 0.4), 2, axes).batch(0, torch.arange(24))
    assert torch.equal(batch.lam[:, 0], lam)
    assert torch.equal(batch.partner_labels, data.labels[torch.randperm(24, generator=draw)])


def watch(network: Any, into: list[torch.Tensor]) -> Any:
    """The network, which now notes the images that it is shown; not those in which a gradient is sought."""

    def note(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if not inputs[0].requires_grad:
            into.append(inputs[0].detach().clone())

    network.blocks[0].register_forward_pre_hook(note)
    return network


MIXED = "mixup=0.4"
MINI = "split_at=block2,score_network=mini"


@pytest.mark.parametrize(
    "spec",
    [
        f"ed[{MIXED}]",
        f"end2[{MIXED}]",
        f"hydra[split_at=block2,{MIXED}]",
        f"perturbed[split_at=block2,{MIXED}]",
        f"direct[{MINI},{MIXED},batch_size=12]",
    ],
)
def test_teachers_see_the_pixels_of_the_student(spec: str) -> None:
    data = split()
    dataset = Dataset("random", "random", data, data, data, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, False)
    recipe, network = Recipe(epochs=2, batch_size=12, lr=0.01, crop_pad=2, flip=True), NetworkSpec(name="resnet8", channels=4)
    context = FitContext(dataset, network, torch.device("cpu"), {}, recipe=recipe, student_epochs=2)
    method, make = parse_method(spec), context.new_network
    (part,) = method.parts(3)
    context.members = [freeze(make(f"member {m}")) for m in part.members]
    students: list[torch.Tensor] = []
    if spec.startswith("direct"):  # its student reads features of the source
        watch(context.members[0], students)
    context.new_network = lambda *a, **k: watch(make(*a, **k), students)  # type: ignore[method-assign]
    teachers: list[list[torch.Tensor]] = [[], []]
    for member, images in zip(context.members[1:], teachers, strict=True):
        watch(member, images)
    method.fit(part, context)
    for teacher in teachers:
        assert len(students) == len(teacher) == 4
        assert all(torch.equal(a, b) for a, b in zip(students, teacher, strict=True))
    assert len(torch.stack(students).unique(dim=0)) == 4


SUITE = """
title = "Mixed"
repetitions = 1
data = { source = "digits", test_fraction = 0.9 }
network = { name = "resnet8", channels = 4, width = 1.0 }
pool = { members = 2 }
recipe = { epochs = 1, batch_size = 32, crop_pad = 1, mixup = 0.5 }
students = { epochs = 1, teachers = "views(2)" }
methods = [
    { use = "ed", sizes = [2] },
    { use = "ed[mixup=1]", sizes = [2] },
    { use = "direct[split_at=block2,score_network=mini,members_per_bridge=2,loss=kl,batch_size=32]", sizes = [2] },
]
"""


def test_stored_teachers_saw_the_pixels_of_the_student(tmp_path: Path) -> None:
    (tmp_path / "mixed.toml").write_text(SUITE)
    suite, store = load_suite(str(tmp_path / "mixed.toml")), Store(tmp_path / "store")
    bench, plan = ArtefactBuilder(suite, store, "cpu"), plan_suite(suite, store)
    stored = [node for node in plan.nodes.values() if node.kind == "views"]
    shown = {node.key: Recipe.model_validate(node.recipe["recipe"]) for node in stored}
    assert {(recipe.mixup, recipe.crop_pad) for recipe in shown.values()} == {(0.0, 1), (0.4, 1), (1.0, 1)}
    for node in plan.nodes.values():
        if node.kind in ("member", "views", "part"):  # a part is refused when its recipe is not that of its views
            bench.run(node)
    node = next(node for node in stored if shown[node.key].mixup == 1)
    batch = bench._views(2, shown[node.key]).batch(1, torch.arange(20))
    logits = bench._load("views", node.key)["logits"][1, :20].float()
    with torch.no_grad():
        assert torch.allclose(bench.member(node.recipe["member"])(batch.images), logits, atol=0.02)
