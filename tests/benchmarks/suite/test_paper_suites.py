"""The papers' suites, planned without their data, against values typed from the papers' configurations."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.dbn.training import bridge_recipe, distillation_recipe
from benchmarks.suite.builtin import available
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.suite.schema import Suite
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.folder import FolderSource
from dbn_core.data.parquet import ParquetSource
from dbn_core.methods.context import FitContext, Workspace
from dbn_core.methods.method import Method
from dbn_core.methods.registry import parse_method
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.spec import NetworkSpec
from dbn_core.train.loop import learning_rate
from dbn_core.train.recipe import Recipe
from tests.support.command import DbnBench

# Of each data set: classes, side of an image, training images, members, epochs, batch, L2, warm-up iterations.
PAPER = {
    "cifar10": SimpleNamespace(
        classes=10, side=32, train=40_960, members=9, epochs=200, batch=256, l2=1e-3, warmup=0, largest=9
    ),
    "cifar100": SimpleNamespace(
        classes=100, side=32, train=40_960, members=7, epochs=200, batch=128, l2=5e-4, warmup=5, largest=7
    ),
    "tinyimagenet": SimpleNamespace(
        classes=200, side=64, train=90_000, members=7, epochs=200, batch=128, l2=5e-4, warmup=5, largest=7
    ),
    "imagenet64": SimpleNamespace(
        classes=1000, side=64, train=1_231_167, members=7, epochs=100, batch=256, l2=1e-4, warmup=5, largest=7
    ),
}
EACH = pytest.mark.parametrize("name", PAPER)


def facts(name: str) -> DataFacts:
    paper = PAPER[name]
    counts = {"train": paper.train, "validation": 1000, "test": 1000}
    return DataFacts("0" * 64, name, 3, (paper.side,) * 2, tuple(map(str, range(paper.classes))), counts)


def plan_of(name: str) -> Plan:
    return build_plan(load_suite(name), facts(name))


def methods_of(suite: Suite) -> dict[str, tuple[tuple[int, ...], Method]]:
    return {label: (entry.sizes, method) for entry, method, label in suite.entries()}


def data_of(name: str) -> Dataset:
    """Black images, as many as a batch."""
    paper = PAPER[name]
    split = Split(torch.zeros(256, 3, paper.side, paper.side, dtype=torch.uint8), torch.zeros(256, dtype=torch.int64))
    classes = tuple(map(str, range(paper.classes)))
    return Dataset(name, name, split, split, split, classes, (0.5,) * 3, (0.2,) * 3, True)


# -------------------------------------------------------------------------------------------------------- the plans


@EACH
def test_the_plan_has_the_papers_members_and_parts(name: str) -> None:
    plan, paper = plan_of(name), PAPER[name]
    kinds = Counter(node.kind for node in plan.nodes.values())
    parts = Counter(
        (node.recipe["method"], node.recipe["part"].split("-")[0])
        for node in plan.nodes.values()
        if node.kind == "part"
    )
    students = (paper.largest - 1) // 2  # of 3, 5, 7 and, on CIFAR-10, 9 teachers
    paper_bridges = (paper.largest - 1) // 2
    fixed_bridges = 1 + 2  # of the repaired bridges, one alone and a pair
    assert kinds["member"] == paper.members
    assert parts == {
        ("ed", "student"): 3 * students,
        ("end2", "student"): 3 * students,
        ("bn", "curve"): 3 * 6,  # to six partners, shared by small and medium bridges
        ("bn", "bridge"): 3 * 6 * 2,
        ("dbn", "bridge"): 3 * (paper_bridges + fixed_bridges),
        ("dbn", "onestep"): 3 * (paper_bridges + fixed_bridges),
        **({("bn", "aligned"): 3 * 6} if name == "imagenet64" else {}),
    }
    assert set(kinds) == {"member", "part", "predictions", "cost"}, "the papers' teachers run online"


@EACH
def test_every_method_has_the_papers_sizes(name: str) -> None:
    methods, largest = methods_of(load_suite(name)), PAPER[name].largest
    odd = tuple(range(3, largest + 1, 2))
    assert {label: sizes for label, (sizes, _) in methods.items()} == {
        "DE": tuple(range(1, PAPER[name].members + 1)),
        "ED": odd,
        "END²": odd,
        "BN (medium)": (2, 3, 4, 5, 7),
        "BN (small)": (2, 3, 4, 5, 7),
        "DBN (paper)": odd,
        "DBN (blind, MSE)": (3, 5),
    }
    dbn = methods["DBN (paper)"][1]
    assert [dbn.bridges(size) for size in odd] == list(range(1, len(odd) + 1))  # type: ignore[attr-defined]


@EACH
def test_members_are_trained_by_the_papers_recipe(name: str) -> None:
    suite, paper = load_suite(name), PAPER[name]
    recipe = suite.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (paper.epochs, paper.batch, paper.l2)
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.nesterov) == ("sgd", 0.1, 0.9, False)
    assert (recipe.schedule, recipe.cosine_length, recipe.keep) == ("cosine", 1.0, "best_accuracy")
    assert (recipe.crop_pad, recipe.flip, recipe.mixup, recipe.precision) == (4, True, 0.0, "fp32")
    assert recipe.ema_decay is None
    assert round(recipe.warmup_epochs * (paper.train // paper.batch)) == paper.warmup
    assert suite.pool.sharing == "shared"
    assert suite.students.teachers == "online"


@EACH
def test_validation_comes_out_of_train_in_the_papers_numbers(name: str) -> None:
    data = load_suite(name).data
    official = {"cifar10": 50_000, "cifar100": 50_000, "tinyimagenet": 100_000, "imagenet64": 1_281_167}[name]
    assert official - data.validation_count == PAPER[name].train
    assert getattr(data, "validation_from", None) == ("tail" if name.startswith("cifar") else None)
    assert data.train_limit is data.test_limit is data.validation_fraction is None


# --------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("cifar10", 1_860_986, 270.98),
        ("cifar100", 7_433_044, 1072.11),
        ("tinyimagenet", 21_396_616, 4637.69),
        ("imagenet64", 21_798_504, 4638.10),
    ],
)
def test_the_base_network_has_the_papers_size_and_cost(name: str, params: int, macs: float) -> None:
    paper = PAPER[name]
    with torch.device("meta"):
        network = Classifier(load_suite(name).network, paper.classes, 3, (0.5,) * 3, (0.2,) * 3)
        images = torch.zeros(1, 3, paper.side, paper.side)
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    with FlopCounterMode(display=False) as counter:
        network(images)
    assert counter.get_total_flops() / 2e6 == pytest.approx(macs, abs=0.006)


@pytest.mark.parametrize(
    ("name", "features", "params", "macs"),
    [
        ("cifar10", (32, 32), 395_543, 42.69),
        ("cifar100", (64, 32), 1_547_617, 167.07),
        ("tinyimagenet", (64, 64), 3_186_117, 863.03),
        ("imagenet64", (64, 64), 8_278_222, 1079.11),
    ],
)
def test_the_score_network_has_the_papers_size_and_cost(
    name: str, features: tuple[int, int], params: int, macs: float
) -> None:
    suite = load_suite(name)
    _, method = methods_of(suite)["DBN (paper)"]
    context = Workspace(data_of(name), suite.network, torch.device("cpu"), {"test": name})
    channels, side = features
    assert context.feature_channels(method.config.split_at) == channels
    network = method.denoiser(context, method.config.steps).network.to("meta")  # type: ignore[attr-defined]
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        network(torch.zeros(2, channels, side, side), torch.zeros(2, PAPER[name].classes), torch.ones(2))
    assert counter.get_total_flops() / 4e6 == pytest.approx(macs, abs=0.006)


# ---------------------------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("name", "version", "width", "epochs", "batch", "lr", "mixup", "beta"),
    [
        ("cifar10", "v1.1.8", 1, 800, 128, 2.5e-4, 0.4, 1e-4),
        ("cifar100", "v1.1.8", 2, 800, 128, 2.5e-4, 0.4, 1e-4),
        ("tinyimagenet", "v1.1.10", 1, 250, 128, 5e-4, 0.4, 1e-3),
        ("imagenet64", "v1.1.13", 1, 250, 256, 5e-4, 0.0, 5e-3),
    ],
)
def test_bridges_are_trained_by_the_papers_recipe(
    name: str, version: str, width: int, epochs: int, batch: int, lr: float, mixup: float, beta: float
) -> None:
    suite = load_suite(name)
    _, method = methods_of(suite)["DBN (paper)"]
    config = method.config
    assert (config.preset, config.score_network, config.score_width) == ("paper", version, width)
    assert (config.beta_0, config.beta_1, config.steps, config.members_per_bridge) == (beta, beta, 5, 3)
    assert (config.temperature, config.temperature_spread, config.split_at) == (2.0, 0.4, "block1")
    assert (config.distill, config.distill_alpha) == (True, 0.5)
    context = FitContext(
        data_of(name), suite.network, torch.device("cpu"), {}, recipe=suite.recipe, student_epochs=suite.students.epochs
    )
    bridge, student = bridge_recipe(config, context), distillation_recipe(config, context)
    for recipe, length, rate in ((bridge, epochs, lr), (student, 50, lr / 10)):
        assert (recipe.epochs, recipe.batch_size, recipe.lr) == (length, batch, pytest.approx(rate))
        assert (recipe.optimizer, recipe.weight_decay, recipe.warmup_epochs) == ("adamw", 0.0, 0.0)
        assert (recipe.mixup, recipe.mixup_per, recipe.keep) == (mixup, "batch", "best_accuracy")
    fixed = methods_of(suite)["DBN (blind, MSE)"][1].config
    for option in ("score_network", "score_width", "beta_0", "lr", "batch_size", "mixup", "epochs", "distill_share"):
        assert getattr(fixed, option) == getattr(config, option)


@pytest.mark.parametrize(
    ("name", "ed", "end2"),
    [  # learning rate, epochs, batch, L2
        ("cifar10", (0.1, 200, 256, 1e-3), (0.05, 250, 128, 1e-3)),
        ("cifar100", (0.1, 200, 128, 5e-4), (0.05, 250, 128, 5e-4)),
        ("tinyimagenet", (0.1, 200, 128, 5e-4), (0.05, 250, 128, 5e-4)),
        ("imagenet64", (0.1, 100, 256, 1e-4), (0.05, 125, 256, 1e-4)),
    ],
)
def test_students_are_trained_by_the_papers_recipe(name: str, ed: tuple[Any, ...], end2: tuple[Any, ...]) -> None:
    suite = load_suite(name)
    assert suite.students.epochs == ed[1]
    for label, expected, tau in (("ED", ed, 4.0), ("END²", end2, 2.0)):
        _, method = methods_of(suite)[label]
        recipe = recorded_recipe(suite, method, name)
        assert (recipe.lr, recipe.epochs, recipe.batch_size, recipe.weight_decay) == (
            pytest.approx(expected[0]),
            *expected[1:],
        )
        assert (recipe.mixup, recipe.optimizer, method.config.tau) == (0.0, "sgd", tau)
    assert methods_of(suite)["ED"][1].config.alpha == 1.0


@pytest.mark.parametrize("name", ["ed", "end2"])
def test_a_student_can_have_a_batch_and_a_weight_decay_of_its_own(name: str) -> None:
    suite = load_suite("cifar10")
    own = recorded_recipe(suite, parse_method(f"{name}[batch_size=64,weight_decay=0.02]"), "cifar10")
    assert (own.batch_size, own.weight_decay) == (64, 0.02)
    members = recorded_recipe(suite, parse_method(name), "cifar10")
    assert (members.batch_size, members.weight_decay) == (256, 1e-3)


def recorded_recipe(suite: Suite, method: Method, name: str) -> Recipe:
    """The recipe that a method's student asks the training loop for."""
    seen: list[Recipe] = []

    class Recorder(FitContext):
        def train(self, module: Any, step: Any, recipe: Any = None, **_: Any) -> Any:
            seen.append(recipe)

    small = NetworkSpec(name="resnet8", channels=2)
    context = Recorder(
        data_of(name), small, torch.device("cpu"), {}, recipe=suite.recipe, student_epochs=suite.students.epochs
    )
    method.fit(method.parts(3)[0], context)
    return seen[0]


@pytest.mark.parametrize(
    ("name", "at", "mixup", "curve", "bridge", "batch", "nesterov", "curve_l2"),
    [
        ("cifar10", "block12", 0.4, 200, 200, 128, False, 1e-3),
        ("cifar100", "block12", 0.4, 200, 200, 128, False, 5e-4),
        ("tinyimagenet", "block13", 0.4, 200, 100, 256, True, 5e-4),
        ("imagenet64", "block13", 0.0, 100, 100, 512, False, 1e-5),
    ],
)
def test_bridge_networks_have_the_papers_options(
    name: str, at: str, mixup: float, curve: int, bridge: int, batch: int, nesterov: bool, curve_l2: float
) -> None:
    methods = methods_of(load_suite(name))
    for label, width in (("BN (medium)", 1.0), ("BN (small)", 0.5)):
        config = methods[label][1].config
        assert (config.type, config.split_at, config.width, config.mixup) == (1, at, width, mixup)
        assert (config.curve_epochs, config.epochs, config.lr_scale) == (curve, bridge, 1.0)
        assert (config.warmup_epochs, config.nesterov, config.batch_size) == (5.0, nesterov, batch)
        assert (config.bridge_weight_decay, config.curve_weight_decay, config.keep) == (0.0, curve_l2, "best")
        assert config.align == (name == "imagenet64")


@EACH
def test_every_ablation_is_ready_to_use(name: str, tmp_path: Path) -> None:
    text = available()[name].read_text(encoding="utf-8")
    head, marker, ablations = text.partition("# Ablations:")
    taken = re.sub(r"^# (?=\[\[methods\]\]|use = |label = |sizes = |options = )", "", ablations, flags=re.MULTILINE)
    file = tmp_path / f"{name}.toml"
    file.write_text(head + marker + taken, encoding="utf-8")
    plan = build_plan(load_suite(str(file)), facts(name))
    more = len({cell.label for cell in plan.cells}) - len({cell.label for cell in plan_of(name).cells})
    assert more == ablations.count("# [[methods]]") >= 8


# ------------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10", ["cifar-10-batches-py", "--download", "--data-root"]),
        ("cifar100", ["cifar-100-python", "--download", "--data-root"]),
        (
            "tinyimagenet",
            ["tiny-imagenet-200.zip", "train/<class>/images/*.JPEG", "val_annotations.txt", "--data-root"],
        ),
        ("imagenet64", ["imagenet-1k-64x64", "train-*.parquet", "validation-*.parquet", "--data-root"]),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["status", "--data-root=."]])
def test_missing_data_are_one_sentence_with_files_and_source(
    name: str,
    words: list[str],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    dbn_bench: DbnBench,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = dbn_bench(command[0], name, *command[1:])
    assert code == 1
    assert error.startswith("Error: ")
    for word in [*words, str(tmp_path)]:
        assert word in error


def test_how_to_get_the_data_does_not_change_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"")
    sources = [FolderSource(root=tmp_path, obtain=obtain) for obtain in (None, "Ask.")]
    assert sources[0].identity() == sources[1].identity()
    (tmp_path / "train.parquet").write_bytes(b"")
    files = [ParquetSource(root=tmp_path, obtain=obtain) for obtain in (None, "Ask.")]
    assert files[0].identity() == files[1].identity()


def test_imagenet64_tests_on_official_validation_and_holds_its_own_out_of_train(tmp_path: Path) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    def write(split: str, greys: list[int], labels: list[int]) -> None:
        cells = []
        for grey in greys:
            buffer = io.BytesIO()
            Image.new("RGB", (64, 64), (grey,) * 3).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        (tmp_path / "data").mkdir(exist_ok=True)
        table = pa.table({"image": cells, "label": labels})
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")

    write("train", [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1])
    write("validation", [101, 102], [0, 1])
    write("test", [201], [-1])
    data = load_suite("imagenet64").data.model_copy(update={"root": tmp_path, "validation_count": 2}).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 2, "test": 2}
    assert data.validation.images.max() < 10
    assert sorted(data.test.images.amax((1, 2, 3)).tolist()) == [101, 102]


def test_a_longer_cosine_stops_on_its_way() -> None:
    recipe = Recipe(lr=0.4, cosine_length=2.0)
    rates = [learning_rate(step, 100, 0, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(0.4)
    assert rates[50] == pytest.approx(0.4 * (2 + 2**0.5) / 4)
    assert rates[100] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(100, 100, 0, Recipe(lr=0.4)) == pytest.approx(0.0)
    assert learning_rate(110, 200, 20, Recipe(lr=0.4)) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="cosine_length"):
        Recipe(cosine_length=0.5)
