"""Dropout and other global draws: the same numbers in any process, after a kill, and whatever was drawn before."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import Suite
from benchmarks.work.make import Options, make_artefacts
from benchmarks.work.worker import ArtefactBuilder
from dbn_core import Method, Part, register
from dbn_core.data.digits import DigitsSource
from dbn_core.errors import TrainingStoppedError
from dbn_core.methods.context import FitContext
from dbn_core.nets.spec import NetworkSpec
from dbn_core.rng import GlobalState, seeded
from dbn_core.train import loop
from dbn_core.train.monitor import Monitor, Progress
from dbn_core.train.recipe import Recipe
from tests.support.tiny import DE, HEAD

CPU = torch.device("cpu")


def draw() -> list[float]:
    numbers = [*torch.rand(2).tolist(), np.random.random(), np.random.normal()]  # noqa: NPY002 - on purpose
    return [*numbers, random.random(), random.gauss(0, 1)]


def test_the_same_axes_give_the_same_draws_and_the_outside_goes_on_undisturbed() -> None:
    def outside() -> None:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)

    outside()
    expected, initial = draw() + draw(), torch.initial_seed()
    outside()
    drawn = draw()
    inner = []
    for axes in ({"part": "a"}, {"part": "b"}, {"part": "a"}):
        with seeded(CPU, **axes):
            inner.append(draw())
            with seeded(CPU, nested=True):
                draw()
            inner.append(draw())
    with suppress(ZeroDivisionError), seeded(CPU, part="c"):
        draw()
        torch.manual_seed(5)
        _ = 1 / 0
    assert drawn + draw() == expected
    assert torch.initial_seed() == initial
    assert inner[:2] == inner[4:]
    assert inner[0] != inner[2]
    with seeded(CPU, part="a"):
        assert inner[:2] == [draw(), draw()]


def test_the_generator_of_a_cuda_device_is_lent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CPU generators in the place of those of two devices."""
    both = tuple(torch.Generator().manual_seed(seed) for seed in (1, 2))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", both)
    device, before = torch.device("cuda", 1), [generator.get_state() for generator in both]
    numbers = []
    for _ in range(2):
        with seeded(device, part="a"):
            torch.rand(1, generator=both[1])
            state = GlobalState.read(device)
            numbers.append(torch.rand(2, generator=both[1]).tolist())
            state.write(device)
            numbers.append(torch.rand(2, generator=both[1]).tolist())
    assert numbers == 4 * numbers[:1]
    assert state.tensors.keys() == {"cpu", "device"}
    assert all(torch.equal(g.get_state(), s) for g, s in zip(both, before, strict=True))


class Noisy(nn.Module):
    """A classifier of pixels with dropout that stays on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(F.dropout(images.flatten(1), 0.3))


class Curious(Monitor):
    """Validates every epoch, or never."""

    def __init__(self, validates: bool) -> None:
        self.validates = validates
        self.scores: list[dict[str, float]] = []

    def update(self, progress: Progress) -> None:
        self.scores += [progress.validation] if progress.validation else []

    def wants_validation(self) -> bool:
        return self.validates


def fit_context(**options: Any) -> FitContext:
    data, spec = DigitsSource(source="digits", test_fraction=0.9).load(), NetworkSpec(name="resnet8", channels=4)
    return FitContext(data, spec, CPU, {"test": "draws"}, recipe=Recipe(batch_size=32), student_epochs=3, **options)


def trained(context: FitContext, purpose: str = "train") -> torch.Tensor:
    network = context.initialise(Noisy())

    def step(batch: Any) -> torch.Tensor:
        return F.cross_entropy(network(batch.images), batch.labels)

    context.train(network, step, purpose=purpose, predict=lambda current, images: current(images))
    return network.linear.weight.detach().clone()


def test_validation_does_not_change_the_training_and_repeats_its_own_draws() -> None:
    watched, alone = Curious(True), Curious(False)
    weights = [trained(fit_context(monitor=monitor)) for monitor in (watched, alone, watched)]
    assert torch.equal(weights[0], weights[1])
    assert (len(watched.scores), alone.scores) == (6, [])
    assert watched.scores[:3] == watched.scores[3:]


def test_each_training_has_draws_of_its_own_wherever_it_stands() -> None:
    context = fit_context()
    first, again, other = (trained(context, purpose) for purpose in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ------------------------------------------------------------------------------------- MC dropout in the harness

MC = '[[methods]]\nuse = "mc-dropout[rate=0.5]"\nsizes = [1, 4]\n'


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("suite") / "mc.toml"
    path.write_text(HEAD.replace("epochs = 1", "epochs = 3") + DE + MC)
    return load_suite(str(path))


def make(suite: Suite, folder: Path, kinds: tuple[str, ...] = ("member", "part", "predictions")) -> dict[str, bytes]:
    """Make artefacts of these kinds; what is stored of the method, by kind."""
    bench = ArtefactBuilder(suite, Store(folder), "cpu")
    plan = plan_suite(suite, bench.store)
    for node in plan.nodes.values():
        if node.kind in kinds:
            bench.run(node)
    return contents(plan, bench.store)


def contents(plan: Plan, store: Store) -> dict[str, bytes]:
    keys = {"part": plan.cells[-1].parts[0], "predictions": plan.cells[-1].predictions}
    return {kind: store.content(kind, key) for kind, key in keys.items()}


@pytest.fixture(scope="module")
def first(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A store with everything, and what it has of the method."""
    folder = tmp_path_factory.mktemp("store")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    made = make(suite, folder, ("member", "part", "predictions", "cost"))
    assert torch.equal(torch.get_rng_state(), before)
    return folder, made


def test_passes_differ_and_nothing_depends_on_what_was_drawn_before(
    suite: Suite, first: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, made = first
    torch.manual_seed(2)
    assert make(suite, tmp_path) == made
    store, cells = Store(folder), plan_suite(suite, Store(folder)).cells
    terms = store.arrays("predictions", cells[-1].predictions)["test"]
    assert len(terms) == 4
    assert all(np.abs(terms[i] - terms[j]).max() > 0.01 for i in range(4) for j in range(i))
    assert len({cell.predictions for cell in cells[-2:]}) == 1  # a pass is the first of four
    macs = [store.value("cost", cell.cost)["value"]["macs"] for cell in cells]
    assert macs[0] == macs[2]
    assert macs[3] - macs[2] == 3 * 16 * 10  # each further pass costs the last layer: 16 features, 10 classes


class Impatient(Monitor):
    """Stops a training in the middle of its second epoch."""

    def __init__(self) -> None:
        self.looks = 0

    def should_stop(self) -> bool:
        self.looks += 1
        return self.looks == 6  # of four steps an epoch


def test_the_same_bits_after_a_kill_in_the_middle(
    suite: Suite, first: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MONITOR_SECONDS", -1.0)
    bench = ArtefactBuilder(suite, Store(tmp_path), "cpu")
    plan = plan_suite(suite, bench.store)
    bench._monitor = Impatient()
    with pytest.raises(TrainingStoppedError):
        bench.run(plan.nodes[plan.cells[-1].parts[0]])
    assert list((tmp_path / "checkpoints").glob("*.safetensors"))
    torch.rand(3)
    assert make(suite, tmp_path) == first[1]


@pytest.mark.slow
def test_the_same_bits_in_a_worker_process(suite: Suite, first: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_suite(suite, store)
    options = Options(store.root, jobs=1, device="cpu")
    outcome = make_artefacts(plan, store, {plan.cells[-1].predictions}, options, lambda event: None)
    assert not outcome.failures
    assert contents(plan, store) == first[1]


@pytest.mark.usefixtures("clean_registry")
def test_draws_of_fit_around_a_training_do_not_depend_on_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that torch itself initialises, and noise after a training that was finished before the kill."""

    @register("around")
    class Around(Method):
        """Draws before, between and after trainings."""

        deaths = 0

        def parts(self, size: int) -> list[Part]:
            return [Part("part")]

        def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
            first = Noisy()  # never initialised by the context
            context.train(first, lambda batch: F.cross_entropy(first(batch.images), batch.labels), purpose="first")
            between = torch.randn(3)
            if Around.deaths:
                Around.deaths -= 1
                raise RuntimeError("power cut")
            return {"weight": first.linear.weight, "between": between}

        def predictor(self, size: int, context: Any) -> nn.Module:
            raise NotImplementedError

    (tmp_path / "around.toml").write_text(HEAD + DE + '[[methods]]\nuse = "around"\nsizes = [1]\n')
    suite = load_suite(str(tmp_path / "around.toml"))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    stored = []
    for deaths in (0, 1):
        bench = ArtefactBuilder(suite, Store(tmp_path / f"{deaths}"), "cpu")
        node = next(node for node in plan_suite(suite, bench.store).nodes.values() if node.kind == "part")
        Around.deaths = deaths
        if deaths:
            with pytest.raises(RuntimeError, match="power cut"):
                bench.run(node)
        bench.run(node)
        stored.append(bench.store.content("part", node.key))
    assert stored[0] == stored[1]
