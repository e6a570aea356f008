"""Half precision is where the recipe asks for it, and neither in statistics nor in what networks return.

`tests/benchmarks/contract/test_built_ins.py` trains every method in both precisions.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import Suite
from benchmarks.work.planning import plan_suite
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.nets.norms import FRN
from dbn_core.nets.precision import full_precision
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork, StridedDepthwise
from dbn_core.nets.spec import NetworkSpec
from tests.benchmarks.contract.test_built_ins import DELICATE, Watch
from tests.support.tiny import HEAD

ED = '[[methods]]\nuse = "ed"\nsizes = [2]\nteachers = "views(2)"\n'


def planned(folder: Path, **changes: str) -> tuple[Suite, Plan]:
    (folder / "tiny.toml").write_text(HEAD + ED)
    suite = load_suite(str(folder / "tiny.toml"), {name.replace("_", "."): value for name, value in changes.items()})
    return suite, plan_suite(suite, Store(folder / "store"))


def kinds_in_half(folder: Path, **changes: str) -> set[str]:
    """Which kinds of artefacts are made by convolutions in half precision."""
    suite, plan = planned(folder, **changes)
    bench, found = ArtefactBuilder(suite, Store(folder / "store"), "cpu"), set()
    for node in plan.nodes.values():
        if node.kind in ("member", "views", "part") and not bench.store.has(node.kind, node.key):
            with Watch() as watch:
                bench.run(node)
            assert not watch.in_half & DELICATE
            found |= {node.kind} if "convolution" in watch.in_half else set()
    return found


def test_members_stored_teachers_and_students_have_the_precision_of_their_recipe(tmp_path: Path) -> None:
    assert kinds_in_half(tmp_path, recipe_precision="fp32") == set()
    assert kinds_in_half(tmp_path, recipe_precision="bf16") == {"member", "views", "part"}
    # Members stay, students do not; nor do logits of one precision teach the other.
    assert kinds_in_half(tmp_path, recipe_precision="fp32", students_precision="bf16") == {"views", "part"}


def test_an_entry_has_the_last_word_on_its_precision(tmp_path: Path) -> None:
    _, half = planned(tmp_path, recipe_precision="bf16")
    mixed, other = planned(tmp_path, recipe_precision="bf16", students_precision="fp32")
    assert other.members == half.members
    assert not {cell.parts for cell in other.cells} & {cell.parts for cell in half.cells}
    entries = tuple(entry.model_copy(update={"precision": "bf16"}) for entry in mixed.methods)
    each = plan_suite(mixed.model_copy(update={"methods": entries}), Store(tmp_path / "store"))
    assert set(each.nodes) == set(half.nodes)


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
