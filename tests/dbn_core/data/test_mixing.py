"""Mixtures of two images: what the partner's share is, pixel by pixel, and that teachers see the student's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.data.augment import mixup_coefficients
from dbn_core.data.batch import make_batch
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.mixing import draw_mixtures
from dbn_core.data.views import Augmentation, Views
from dbn_core.methods.context import FitContext, freeze
from dbn_core.methods.registry import parse_method
from dbn_core.nets.spec import NetworkSpec
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe

seeds = st.integers(0, 2**32)
alphas = st.sampled_from([0.0, 0.2, 1.0, 5.0])


def split(count: int = 24, size: int = 8) -> Split:
    draw = generator(purpose="mixing")
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    return Split(images, torch.arange(count) % 4)


@given(seed=seeds, mixup=alphas, cutmix=alphas, per_example=st.booleans(), size=st.tuples(*[st.integers(1, 9)] * 2))
@settings(max_examples=40, deadline=None)
def test_the_share_is_that_of_the_partners_light(
    seed: int, mixup: float, cutmix: float, per_example: bool, size: tuple[int, int]
) -> None:
    # Of a black image and a white partner, the mean brightness is the partner's share, however they are mixed.
    mixtures = draw_mixtures(6, size, mixup, cutmix, generator(seed=seed), per_example)
    images = mixtures.apply(torch.zeros(6, 2, *size), torch.ones(6, 2, *size))
    torch.testing.assert_close(images.mean((1, 2, 3)), mixtures.lam)
    if not per_example:
        assert (images == images[0]).all()


@given(seed=seeds, height=st.integers(2, 9), width=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_cutmix_takes_each_pixel_from_one_image_and_a_rectangle_from_the_partner(
    seed: int, height: int, width: int
) -> None:
    source = generator(seed=seed)
    own, other = torch.rand(2, 5, 3, height, width, generator=source)
    mixtures = draw_mixtures(5, (height, width), 0.0, 1.0, source)
    images = mixtures.apply(own, other)
    for i in range(5):
        theirs = (images[i] == other[i]).all(0)
        assert torch.equal(images[i], torch.where(theirs, other[i], own[i]))
        rows, columns = theirs.any(1), theirs.any(0)
        assert int(theirs.sum()) == int(rows.sum() * columns.sum()) == round(float(mixtures.lam[i]) * height * width)
        for edge in (rows, columns):  # one piece
            assert int(edge.int().diff().abs().sum()) <= 2


def test_a_box_has_the_area_that_was_drawn_and_lies_anywhere() -> None:
    # With this alpha half of the image is drawn, so 11 of 16 rows and columns, unless an edge cuts the box off.
    mixtures = draw_mixtures(4000, (16, 16), 0.0, 1e5, generator(seed=0))
    assert mixtures.boxes is not None
    top, bottom, left, right = mixtures.boxes
    whole = (top > 0) & (bottom < 16) & (left > 0) & (right < 16)
    assert whole.any()
    assert ((bottom - top)[whole] == 11).all()
    assert ((right - left)[whole] == 11).all()
    rows = torch.stack([(top <= row) & (row < bottom) for row in range(16)]).float().mean(1)
    torch.testing.assert_close(rows, rows.flip(0), atol=0.1, rtol=0)


def test_both_kinds_take_turns() -> None:
    mixtures = draw_mixtures(4000, (8, 8), 1.0, 1.0, generator(seed=1))
    images = mixtures.apply(torch.zeros(4000, 1, 8, 8), torch.ones(4000, 1, 8, 8))
    flat = ((images > 0) & (images < 1)).flatten(1).all(1)
    assert stats.binomtest(int(flat.sum()), 4000).pvalue > 0.001
    assert stats.kstest(mixtures.lam[flat].double().numpy(), stats.uniform.cdf).pvalue > 0.001


@pytest.mark.parametrize("made", ["online", "views"])
def test_a_batch_has_the_labels_of_its_pixels(made: str) -> None:
    data, indices = split(), torch.arange(24)
    recipe = Recipe(crop_pad=2, mixup=0.0, cutmix=1.0)
    if made == "online":
        batch = make_batch(data, indices, recipe, True, generator(seed=1), torch.device("cpu"))
    else:
        batch = Views(data, Augmentation(2, True, 0.0, 1.0), 2, {"seed": 1}).batch(1, indices)
    assert batch.mixed is not None
    own, other = batch.mixed
    theirs = ((batch.images == other) & (own != other)).any(1)
    assert torch.equal(batch.images, torch.where(theirs[:, None], other, own))
    known = (own != other).any(1)  # where the crops are black on both, nobody can tell
    for i in range(24):
        if known[i].all() and batch.partner_labels[i] != batch.labels[i]:
            share = theirs[i].float().mean()
            expected = torch.zeros(4).index_add(0, batch.labels[i : i + 1], (1 - share)[None])
            expected[batch.partner_labels[i]] += share
            torch.testing.assert_close(batch.mixed_labels(4)[i], expected)
    assert torch.equal(batch.dominant, torch.where(batch.lam[:, :, None, None] > 0.5, other, own))


def test_views_without_cutmix_are_those_that_were_stored_before_there_was_any() -> None:
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


MIXED = "mixup=0.4,cutmix=1,crop_pad=2,flip=true"
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
    recipe, network = Recipe(epochs=2, batch_size=12, lr=0.01, crop_pad=0), NetworkSpec(name="resnet8", channels=4)
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
recipe = { epochs = 1, batch_size = 32, crop_pad = 1, cutmix = 0.5 }
students = { epochs = 1, teachers = "views(2)" }
methods = [
    { use = "ed", sizes = [2] },
    { use = "ed[mixup=0.4,cutmix=1,crop_pad=0]", sizes = [2] },
    { use = "ed[cutmix=0]", sizes = [2] },
    { use = "direct[split_at=block2,score_network=mini,members_per_bridge=2,cutmix=1,batch_size=32]", sizes = [2] },
]
"""


def test_stored_teachers_saw_the_pixels_of_the_student(tmp_path: Path) -> None:
    (tmp_path / "mixed.toml").write_text(SUITE)
    suite, store = load_suite(str(tmp_path / "mixed.toml")), Store(tmp_path / "store")
    bench, plan = ArtefactBuilder(suite, store, "cpu"), plan_suite(suite, store)
    stored = [node for node in plan.nodes.values() if node.kind == "views"]
    shown = {node.key: Recipe.model_validate(node.recipe["recipe"]) for node in stored}
    mixed = {(recipe.mixup, recipe.cutmix, recipe.crop_pad) for recipe in shown.values()}
    assert mixed == {(0.0, 0.5, 1), (0.4, 1.0, 0), (0.0, 0.0, 1), (0.4, 1.0, 1)}
    for node in plan.nodes.values():
        if node.kind in ("member", "views", "part"):  # a part is refused when its recipe is not that of its views
            bench.run(node)
    node = next(node for node in stored if (shown[node.key].cutmix, shown[node.key].crop_pad) == (1.0, 0))
    batch = bench._views(2, shown[node.key]).batch(1, torch.arange(20))
    logits = bench._load("views", node.key)["logits"][1, :20].float()
    with torch.no_grad():
        assert torch.allclose(bench.member(node.recipe["member"])(batch.images), logits, atol=0.02)
