"""Every method, in both precisions, with every kind of teachers: each trains, and half precision stays in its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Cell, Plan
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.errors import SpecError
from dbn_core.methods.registry import methods, parse_method
from dbn_core.nets.norms import FRN
from dbn_core.nets.precision import full_precision
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork, StridedDepthwise
from dbn_core.nets.spec import NetworkSpec
from tests.dbn_core.data.test_data_parquet import picture, png, write

TEACHERS = ("online", "views(2)", "views(2, unseen)")
PRECISIONS = ("fp32", "bf16")
MINI = "split_at=block2,score_network=mini"
# Of each method the ways whose arithmetic differs; a new method without an entry is tried with its defaults.
WAYS: dict[str, list[str]] = {
    "ed": ["ed", "ed[alpha=0.5,mixup=0.4,width=0.5]"],
    "end2": ["end2[prediction=dirichlet]"],
    "shared": ["shared[split_at=block1]"],
    "bn": [
        "bn[split_at=block2]",
        "bn[split_at=block2,type=2,align=true,keep=best]",
    ],
    "dbn": [
        f"dbn[{MINI}]",
        f"dbn[{MINI},preset=paper]",
        f"dbn[{MINI},sees_state=true,loss=kl]",
        f"dbn[{MINI},process=rectified_flow]",
        f"dbn[{MINI},prior=gaussian,sampler_noise=posterior,distill=false]",
        f"dbn[{MINI},perturb_input=true]",
    ],
    "direct": [f"direct[{MINI}]", f"direct[{MINI},loss=kl]"],
    "hydra": ["hydra[split_at=block2,mixup=0.4,cutmix=1]"],
    "perturbed": ["perturbed[split_at=block2]"],
    "student-bridge": [
        f"student-bridge[{MINI},source_members=1,members_per_bridge=1,joint={joint}]" for joint in ("false", "true")
    ],
}
METHODS = {name: cls for name, cls in methods().items() if cls.task == "classification"}
SPECS = {
    "frn": [spec for name, cls in METHODS.items() if not cls.needs_batchnorm for spec in WAYS.get(name, [name])],
    "batchnorm": [
        *("bn[split_at=block2]", f"dbn[{MINI}]"),
        *(name for name, cls in METHODS.items() if cls.needs_batchnorm),
    ],
}
SUITE = """
title = "Matrix"
repetitions = 1
[data]
source = "parquet"
root = "{root}"
validation_count = 12
train_limit = 24
unseen_limit = 18
[network]
name = "resnet8"
channels = 4
width = 1.0
norm = "{norm}"
[pool]
members = 3
[recipe]
epochs = 1
batch_size = 16
lr = 0.01
crop_pad = 1
precision = "{precision}"
[students]
epochs = 1
"""
# What a loss, a target or a statistic is made of; none of it keeps its meaning in half precision.
DELICATE = {"_log_softmax", "_softmax", "logsumexp", "lgamma", "digamma", "nll_loss_forward", "mse_loss", "rsqrt"}
HALVES = (torch.bfloat16, torch.float16)


class Watch(TorchDispatchMode):
    """Which operations see half-precision numbers, below autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.in_half: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(x, torch.Tensor) and x.dtype in HALVES for x in args):
            self.in_half.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class World:
    """A bench with the plan of all combinations for one precision and norm, whose artefacts are made when asked."""

    def __init__(self, folder: Path, norm: str, precision: str) -> None:
        path = self.path = folder / f"{norm}-{precision}.toml"
        entry = '[[methods]]\nuse = "{0}"\nsizes = [{1}]\nteachers = "{2}"\nlabel = "{0} {2}"\n'
        entries = [entry.format(spec, size(spec), teachers) for spec in SPECS[norm] for teachers in TEACHERS]
        path.write_text(SUITE.format(root=folder, norm=norm, precision=precision) + "".join(entries))
        suite = load_suite(str(path))
        self.bench = ArtefactBuilder(suite, Store(folder / f"{norm}-{precision}"), "cpu")
        self.plan: Plan = plan_suite(suite, self.bench.store)

    def cell(self, spec: str, teachers: str) -> Cell:
        return next(cell for cell in self.plan.cells if cell.label == f"{spec} {teachers}")

    def make(self, kind: str, key: str, watch: Watch | None = None) -> None:
        """Make an artefact after all that it needs; parts under ``watch``."""
        for need in self.plan.nodes[key].needs:
            self.make(*need, watch)
        if self.bench.store.has(kind, key):
            return
        if kind == "part" and watch is not None:
            with watch:
                self.bench.run(self.plan.nodes[key])
        else:
            self.bench.run(self.plan.nodes[key])

    def probabilities(self, cell: Cell) -> torch.Tensor:
        self.make("predictions", cell.predictions)
        return self.bench._load("predictions", cell.predictions)["test"].exp().mean(0)


def size(spec: str) -> int:
    """3 for bridges, or else the largest of 2 and 1 that the method takes."""
    if spec.startswith(("dbn", "direct")):
        return 3
    try:
        parse_method(spec).check_size(2)
    except SpecError:
        return 1
    return 2


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], World]:
    folder = tmp_path_factory.mktemp("precision")
    for name, seeds in (("train", range(60)), ("test", range(100, 112))):
        write(folder / f"{name}.parquet", seeds, images=[png(picture(seed, 8, 8)) for seed in seeds])
    return {(norm, way): World(folder, norm, way) for norm in ("frn", "batchnorm") for way in PRECISIONS}


SEVERAL_STEPS = {"cycles", "swa", "swag"}  # for any budget: they save networks on their way
DRAW = {"mc-dropout", "masksembles", "swag"}  # by the key of the node, which holds the precision


def ways_to_teach(spec: str) -> tuple[str, ...]:
    """All of them where members teach a part of the method, otherwise the first."""
    parts = parse_method(spec).parts(size(spec))
    return TEACHERS if any(part.teacher_mixup is not None for part in parts) else TEACHERS[:1]


COMBINATIONS = [("frn", spec, teachers) for spec in SPECS["frn"] for teachers in ways_to_teach(spec)]
COMBINATIONS += [("batchnorm", spec, TEACHERS[1]) for spec in SPECS["batchnorm"]]


@pytest.mark.parametrize(("norm", "spec", "teachers"), COMBINATIONS)
def test_a_method_trains_in_both_precisions(
    worlds: dict[tuple[str, str], World], norm: str, spec: str, teachers: str
) -> None:
    half, full = worlds[norm, "bf16"], worlds[norm, "fp32"]
    cell, watch = half.cell(spec, teachers), Watch()
    half.make("predictions", cell.predictions, watch)
    assert not watch.in_half & DELICATE
    for part in cell.parts:
        state = half.bench._load("part", part)
        assert {tensor.dtype for tensor in state.values()} <= {torch.float32, torch.float64, torch.int64}
        logs = half.bench.store.value("part", part)["value"]["logs"]
        assert all(math.isfinite(log["loss"]) for log in logs)
        assert spec in SEVERAL_STEPS or all(log["steps"] == 1 for log in logs)
    assert half.bench._load("predictions", cell.predictions)["test"].dtype == torch.float32
    # The same step from the same start: what half precision changes is rounding.
    gap = half.probabilities(cell) - full.probabilities(full.cell(spec, teachers))
    # The Gaussian's covariance is inverted, which magnifies rounding.
    assert spec in DRAW or gap.abs().max() < (0.1 if spec == "gaussian" else 0.05)


def test_half_precision_is_where_the_recipe_asks_for_it(worlds: dict[tuple[str, str], World]) -> None:
    for precision in PRECISIONS:
        world, watch = worlds["frn", precision], Watch()
        part = world.plan.nodes[world.cell("ed", "online").parts[0]]
        for need in part.needs:
            world.make(*need)
        with watch:
            world.bench.run(part)
        assert ("convolution" in watch.in_half) == (precision == "bf16")


def test_strided_depthwise_convolutions_stay_in_float32() -> None:
    network = ScoreNetwork(8, 4, "mini")
    network.reset(torch.Generator().manual_seed(0))
    layers = [layer for layer in network.modules() if isinstance(layer, StridedDepthwise)]
    assert len(layers) == 1
    x = torch.randn(2, layers[0].in_channels, 6, 6)
    plain = torch.nn.Conv2d.forward(layers[0], x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layers[0](x), plain)
        assert layers[0](x.bfloat16()).dtype == torch.float32
    assert torch.equal(layers[0](x), plain)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_views_are_looked_at_as_by_teachers_that_run_online(
    worlds: dict[tuple[str, str], World], precision: str
) -> None:
    world, watch = worlds["frn", precision], Watch()
    (part,) = world.cell("ed", "views(2)").parts
    key = next(key for kind, key in world.plan.nodes[part].needs if kind == "views")
    for need in world.plan.nodes[key].needs:
        world.make(*need)
    with watch:
        world.bench.run(world.plan.nodes[key])
    assert ("convolution" in watch.in_half) == (precision == "bf16")
    assert not watch.in_half & DELICATE
    mixed = load_suite(str(world.path), {"students.precision": {"bf16": "fp32", "fp32": "bf16"}[precision]})
    assert key not in plan_suite(mixed, world.bench.store).nodes, "logits of one precision do not teach the other"


def test_students_may_have_a_precision_of_their_own(worlds: dict[tuple[str, str], World]) -> None:
    half, watch = worlds["frn", "bf16"], Watch()
    mixed = load_suite(str(half.path), {"students.precision": "fp32"})
    plan, cell = plan_suite(mixed, half.bench.store), half.cell("ed", "online")
    taught = next(other for other in plan.cells if other.label == cell.label)
    assert plan.members == half.plan.members, "the pool is the same"
    assert taught.parts != cell.parts
    for need in plan.nodes[taught.parts[0]].needs:
        half.make(*need)
    with watch:
        ArtefactBuilder(mixed, half.bench.store, "cpu").run(plan.nodes[taught.parts[0]])
    assert not watch.in_half
    same = load_suite(str(half.path), {"students.precision": "bf16"})
    assert set(plan_suite(same, half.bench.store).nodes) == set(half.plan.nodes)
    entries = [entry.model_copy(update={"precision": "bf16"}) for entry in mixed.methods]
    each = mixed.model_copy(update={"methods": tuple(entries)})
    assert set(plan_suite(each, half.bench.store).nodes) == set(half.plan.nodes), "an entry has the last word"


def test_norm_statistics_of_half_precision_maps_are_those_of_their_exact_values() -> None:
    x = torch.randn(3, 5, 16, 16).bfloat16()
    layer = FRN(5)
    torch.testing.assert_close(layer(x), layer(x.float()), rtol=0, atol=0)
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_full_precision_widens_and_never_narrows(dtype: torch.dtype) -> None:
    x = torch.tensor([1 / 3, 7.0], dtype=dtype)
    wide = full_precision(x)
    assert wide.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(wide.double(), x.double())


def test_networks_give_full_precision_under_autocast() -> None:
    classifier = Classifier(NetworkSpec(name="resnet8", channels=4, width=1.0), 3, 1, (0.5,), (0.5,))
    score = ScoreNetwork(4, 3, "mini", sees_state=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(torch.rand(2, 1, 8, 8))
        change = score(torch.rand(2, 4, 8, 8), logits, torch.rand(2))
    assert (logits.dtype, change.dtype) == (torch.float32, torch.float32)
