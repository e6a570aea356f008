"""Stored teachers: views that a seed rebuilds, and students that cannot tell them from teachers that run online."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import build_plan
from benchmarks.work.planning import plan_suite
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.data.dataset import Split
from dbn_core.data.views import Augmentation, Views
from dbn_core.errors import SpecError
from dbn_core.methods.context import FitContext
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.spec import NetworkSpec
from dbn_core.rng import generator
from tests.dbn_core.data.test_data_parquet import picture, png, write

AXES = {"seed": 3, "data": "none"}


def split(examples: int = 20, side: int = 6) -> Split:
    images = torch.randint(1, 256, (examples, 1, side, side), generator=generator(seed=1), dtype=torch.uint8)
    return Split(images, torch.arange(examples) % 3)


def views(count: int = 4, pad: int = 2, flip: bool = True, mixup: float = 0.4, data: Split | None = None) -> Views:
    return Views(data or split(), Augmentation(pad, flip, mixup), count, AXES)


ALL = torch.arange(20)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(20)), cut=st.integers(1, 19), view=st.integers(0, 3))
def test_an_example_looks_the_same_in_whatever_batch_it_comes(order: list[int], cut: int, view: int) -> None:
    whole = views().batch(view, ALL)
    some = torch.tensor(order[:cut])
    part = views().batch(view, some)
    assert torch.equal(part.images, whole.images[some])
    assert torch.equal(part.dominant, whole.dominant[some])
    assert torch.equal(part.lam, whole.lam[some])
    assert torch.equal(part.partner_labels, whole.partner_labels[some])


def test_views_differ_come_round_and_do_not_depend_on_their_number() -> None:
    few, many = views(2), views(7)
    assert torch.equal(few.batch(1, ALL).images, many.batch(1, ALL).images)
    assert not torch.equal(many.batch(1, ALL).images, many.batch(2, ALL).images)
    assert torch.equal(few.batch(0, ALL).images, few.batch(6, ALL).images)
    assert [few.batch(epoch, ALL).view for epoch in range(4)] == [0, 1, 0, 1]


def test_a_view_is_a_mixture_of_crops_of_the_two_examples() -> None:
    data = split()
    plain, mixed = views(mixup=0.0, data=data), views(data=data)
    batch = mixed.batch(0, ALL)
    assert float(batch.lam.min()) > 0
    assert float(batch.lam.max()) < 1
    # The brightest image that its two sources allow bounds every mixture, and the mean lies between theirs.
    own = plain.batch(0, ALL)
    assert torch.equal(own.images, own.dominant)
    assert not own.lam.any()
    assert torch.equal(batch.labels, data.labels)
    unpadded = views(pad=0, flip=False, data=data).batch(0, ALL)
    images = data.images.float() / 255
    for i in range(20):
        weight = unpadded.lam[i]
        fits = [torch.allclose((1 - weight) * images[i] + weight * images[j], unpadded.images[i]) for j in range(20)]
        partner = fits.index(True)
        assert unpadded.partner_labels[i] == data.labels[partner]
        assert torch.equal(unpadded.dominant[i], images[partner] if weight > 0.5 else images[i])


def test_no_crop_no_flip_no_mixup_is_the_split_itself() -> None:
    data = split()
    batch = views(pad=0, flip=False, mixup=0.0, data=data).batch(5, ALL)
    assert torch.equal(batch.images, data.images.float() / 255)


SUITE = """
title = "Views"
repetitions = 2
[data]
source = "digits"
test_fraction = 0.9
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 4
sharing = "shared"
[recipe]
epochs = 1
batch_size = 32
crop_pad = 1
[students]
epochs = 3
teachers = "views(2)"
[[methods]]
use = "de"
sizes = [1, 2]
[[methods]]
use = "ed"
sizes = [2, 3]
[[methods]]
use = "dbn[split_at=block2,score_network=mini]"
sizes = [3]
[[methods]]
use = "direct[split_at=block2,score_network=mini,loss=kl]"
sizes = [3]
"""


def make(bench: ArtefactBuilder, kind: str, key: str) -> None:
    """Make an artefact, after all that it needs."""
    for need in plan_suite(bench.suite, bench.store).nodes[key].needs:
        make(bench, *need)
    if not bench.store.has(kind, key):
        bench.run(plan_suite(bench.suite, bench.store).nodes[key])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> ArtefactBuilder:
    folder = tmp_path_factory.mktemp("views")
    (folder / "views.toml").write_text(SUITE)
    return ArtefactBuilder(load_suite(str(folder / "views.toml")), Store(folder / "store"), "cpu")


def test_teachers_are_stored_once_for_all_methods_sizes_and_repetitions(bench: ArtefactBuilder) -> None:
    plan = plan_suite(bench.suite, bench.store)
    stored = [node for node in plan.nodes.values() if node.kind == "views"]
    # ED shows unmixed images, both bridges mixed ones: two sets, of the members that a repetition draws.
    mixed = {(node.recipe["member"], node.recipe["recipe"].get("mixup", 0.0)) for node in stored}
    assert {mixup for _, mixup in mixed} == {0.0, 0.4}
    assert len(stored) == len(mixed) <= 8
    for cell in plan.cells:
        assert len(cell.views) == (0 if cell.method.name == "de" else cell.size)


def test_stored_logits_are_the_members_on_the_rebuilt_images(bench: ArtefactBuilder) -> None:
    plan = plan_suite(bench.suite, bench.store)
    node = next(node for node in plan.nodes.values() if node.kind == "views" and "mixup" in node.recipe["recipe"])
    make(bench, "views", node.key)
    logits = bench._load("views", node.key)["logits"]
    assert logits.dtype == torch.float16
    assert logits.shape == (2, len(bench.data.train), 10)
    member, some = bench.member(node.recipe["member"]), torch.tensor([5, 0, 17])
    batch = bench._views(2, bench.suite.recipe.replace(mixup=0.4)).batch(
        3, some
    )  # the fourth epoch sees the second view
    with torch.no_grad():
        assert torch.allclose(member(batch.images), logits[1, some].float(), atol=0.02)


def test_the_mode_of_teaching_is_part_of_the_key_and_of_the_report(bench: ArtefactBuilder) -> None:
    facts = plan_suite(bench.suite, bench.store).data
    keys = []
    for teachers in ("online", "views(2)", "views(3)"):
        students = bench.suite.students.model_copy(update={"teachers": teachers})
        plan = build_plan(bench.suite.model_copy(update={"students": students}), facts)
        keys.append({cell.predictions for cell in plan.cells if cell.method.name != "de"})
        assert bool([n for n in plan.nodes.values() if n.kind == "views"]) == (teachers != "online")
    assert not keys[0] & keys[1]
    assert not keys[1] & keys[2]


def test_online_and_stored_teachers_say_the_same(bench: ArtefactBuilder) -> None:
    """A part taught by stored logits has the gradient that its teachers would give online."""
    data, members = bench.data, [Classifier(bench.suite.network, 10, 1, (0.5,), (0.5,)).eval() for _ in range(3)]
    shown = bench._views(2, bench.suite.recipe.replace(mixup=0.4))
    stored = [
        torch.stack([member(shown.batch(view, torch.arange(len(data.train))).images) for view in range(2)]).detach()
        for member in members
    ]
    context = FitContext(data, NetworkSpec(), torch.device("cpu"), {}, members=members)
    context.stored_logits = stored
    batch = shown.batch(1, torch.tensor([3, 1, 40]))
    from_store = context.teach(batch)
    assert context.teacher_passes == 0
    assert torch.allclose(from_store, context.teach_images(batch.images), atol=1e-5)
    assert context.teacher_passes == 9


def test_a_part_that_mixes_otherwise_than_it_declares_is_refused(bench: ArtefactBuilder) -> None:
    context = FitContext(bench.data, bench.suite.network, torch.device("cpu"), {}, recipe=bench.suite.recipe)
    context.stored_views = bench._views(2, bench.suite.recipe.replace(mixup=0.4))
    network = context.new_network()
    with pytest.raises(SpecError, match=r"mixup = 0.0.*0.4.*teacher_mixup"):
        context.train(network, lambda batch: network(batch.images).sum())


@pytest.mark.parametrize("teachers", ["views", "views(0)", "views(2.5)", "views(2,seen)"])
def test_teachers_that_do_not_exist_are_refused(tmp_path: Path, teachers: str) -> None:
    (tmp_path / "bad.toml").write_text(SUITE.replace("views(2)", teachers))
    with pytest.raises(SpecError, match=r"students\.teachers"):
        load_suite(str(tmp_path / "bad.toml"))


UNSEEN = """
title = "Unseen"
repetitions = 1
[data]
source = "parquet"
root = "DATA"
validation_count = 12
train_limit = 24
unseen_limit = 18
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 3
[recipe]
epochs = 1
batch_size = 8
crop_pad = 1
[students]
epochs = 2
teachers = "views(2)"
[[methods]]
use = "direct[split_at=block2,score_network=mini,loss=kl]"
sizes = [3]
[[methods]]
use = "direct[split_at=block2,score_network=mini,loss=kl]"
label = "Direct (unseen)"
sizes = [3]
teachers = "views(2, unseen)"
"""


def test_students_are_taught_on_images_that_no_member_saw(tmp_path: Path) -> None:
    for name, seeds in (("train", range(60)), ("test", range(100, 112))):
        write(tmp_path / "data" / f"{name}.parquet", seeds, images=[png(picture(seed, 8, 8)) for seed in seeds])
    (tmp_path / "unseen.toml").write_text(UNSEEN.replace("DATA", str(tmp_path / "data")))
    suite = load_suite(str(tmp_path / "unseen.toml"))
    bench, plan = ArtefactBuilder(suite, Store(tmp_path / "s"), "cpu"), plan_suite(suite, Store(tmp_path / "s"))
    seen, unseen = plan.cells
    for cell in plan.cells:
        make(bench, "part", cell.parts[0])
    assert seen.members == unseen.members
    assert seen.predictions != unseen.predictions
    assert bench.data.unseen is not None
    member = bench.member(plan.nodes[unseen.views[0]].recipe["member"])
    logits = bench._load("views", unseen.views[0])["logits"]
    shown = bench._views(2, bench.suite.recipe.replace(mixup=0.4), unseen=True)
    assert shown.split is bench.data.unseen
    with torch.no_grad():
        said = member(shown.batch(1, torch.arange(18)).images)
    assert torch.allclose(said, logits[1].float(), atol=0.02)
    passes = {cell.label: bench.store.value("part", cell.parts[0])["value"]["student_passes"] for cell in plan.cells}
    assert passes == {seen.label: 2 * 24, "Direct (unseen)": 2 * 18}


def test_unseen_images_must_be_provided(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text(SUITE.replace("views(2)", "views(2, unseen)"))
    with pytest.raises(SpecError, match=r"set \[data\] train_limit and unseen_limit"):
        load_suite(str(tmp_path / "none.toml"))
