"""What changes between two runs on one store: plugin files, data, the number of threads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.run import RunResult, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.work.make import Options
from benchmarks.work.planning import plan_suite
from benchmarks.work.schedule import Event
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.errors import DataError
from dbn_core.methods.registry import load_plugin
from tests.support import tiny

PLUGIN = '''
import torch
from dbn_core import Cost, Method, register

class Constant(torch.nn.Module):
    def forward(self, images):
        return torch.full((len(images), 10), 1.0).add(VALUE * torch.eye(10)[3]).log_softmax(-1)

@register("constant")
class Always(Method):
    """Says 3."""
    title = "Constant"
    def predictor(self, size, context): return Constant()
    def cost(self, size, context, counted): return Cost(1, 1)
'''
CONSTANT = '[[methods]]\nuse = "constant"\nsizes = [1]\n'
DE = '[[methods]]\nuse = "de"\nsizes = [1]\n'
FOLDER = tiny.HEAD.replace('source = "digits"\ntest_fraction = 0.9', 'source = "folder"\nroot = "ROOT"\nflip = false')


def go(folder: Path, suite: Suite, said: Callable[[str | Event], None] = lambda _: None, **options: Any) -> RunResult:
    places = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    with pytest.MonkeyPatch.context() as patch:  # nothing here is about reports
        patch.setattr("benchmarks.report.render", lambda *folders: [])
        return run_suite(suite, Options(**{"jobs": 0, "device": "cpu", **places, **options}), said)


def save_images(root: Path, shade: int) -> None:
    """Images whose sizes and times are the same for every shade, as in the layers of a container."""
    for split, count in (("train", 40), ("test", 10)):
        for label in ("ant", "bee"):
            for index in range(count):
                path = root / split / label / f"{index}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), shade + index, np.uint8)).save(path)
                os.utime(path, (1, 1))


def folder_suite(folder: Path, root: str, methods: str = DE) -> Suite:
    (folder / "images.toml").write_text(FOLDER.replace("ROOT", str(folder / root)) + methods)
    return load_suite(str(folder / "images.toml"))


# ------------------------------------------------------------------------------------------------------------- plugins


@pytest.mark.usefixtures("clean_registry")
def test_an_edited_plugin_of_the_same_version_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    (tmp_path / "edited.toml").write_text(tiny.HEAD + DE + CONSTANT)
    said: list[str | Event] = []
    for value in "13":
        file.write_text(PLUGIN.replace("VALUE", value))
        load_plugin(file)
        said.clear()
        result = go(tmp_path, load_suite(str(tmp_path / "edited.toml")), said.append, plugins=[str(file)])
    assert not result.outcome.made
    assert [line for line in said if str(line).startswith("mine.py has changed since 2 stored artefacts")]
    file.write_text(PLUGIN.replace("VALUE", "1"))
    load_plugin(file)
    go(tmp_path, load_suite(str(tmp_path / "edited.toml")), (again := []).append, plugins=[str(file)])
    assert not [line for line in again if "has changed" in str(line)]


# ---------------------------------------------------------------------------------------------------------------- data


def test_nothing_is_made_from_data_that_differ_from_those_of_the_key(tmp_path: Path) -> None:
    save_images(tmp_path / "A", 10)
    first = plan_suite(folder_suite(tmp_path, "A"), Store(tmp_path / "store")).data.fingerprint
    save_images(tmp_path / "A", 90)
    suite = folder_suite(tmp_path, "A")
    plan = plan_suite(suite, Store(tmp_path / "store"))
    assert plan.data.fingerprint == first  # names, sizes and times are as they were
    member = next(node for node in plan.nodes.values() if node.kind == "member")
    with pytest.raises(DataError, match=rf"have data (\w+), but member 1 of pool 1 was planned with data {first[:12]}"):
        ArtefactBuilder(suite, Store(tmp_path / "store"), "cpu").run(member)
    assert not Store(tmp_path / "store").has("member", member.key)
    result = go(tmp_path, folder_suite(tmp_path, "A"))  # the plan now reads the data again
    assert not result.failures
    assert result.plan.data.fingerprint != first


def test_data_that_changed_are_loaded_again_by_a_process_that_knew_them(tmp_path: Path) -> None:
    save_images(tmp_path / "A", 10)
    go(tmp_path, folder_suite(tmp_path, "A"))
    for path in (tmp_path / "A").rglob("3.bmp"):
        path.unlink()
    result = go(tmp_path, folder_suite(tmp_path, "A"))
    assert not result.failures
    predictions = result.plan.cells[0].predictions
    assert Store(tmp_path / "store").arrays("predictions", predictions)["test"].shape[1] == 18


def test_a_cost_is_not_counted_on_images_of_another_shape(tmp_path: Path) -> None:
    save_images(tmp_path / "A", 10)
    suite = folder_suite(tmp_path, "A")
    node = next(n for n in plan_suite(suite, Store(tmp_path / "store")).nodes.values() if n.kind == "cost")
    node.recipe["image"] = [3, 32, 32]
    with pytest.raises(DataError, match=r"was planned with image \[3, 32, 32\]"):
        ArtefactBuilder(suite, Store(tmp_path / "store"), "cpu").run(node)


def test_results_on_data_that_are_elsewhere_are_reported_and_that_is_said(tmp_path: Path) -> None:
    save_images(tmp_path / "A", 10)
    mark = go(tmp_path, folder_suite(tmp_path, "A")).plan.data.fingerprint
    said: list[str | Event] = []
    assert not go(tmp_path, folder_suite(tmp_path, "nowhere"), said.append).outcome.made
    sentence = f"The data are not on this machine: the store's facts are used (A, fingerprint {mark[:12]})."
    assert sentence in said
    assert sentence in json.loads((tmp_path / "rows" / "meta.json").read_text())["protocol"]


def test_damaged_data_are_never_replaced_by_others(tmp_path: Path) -> None:
    save_images(tmp_path / "A", 10)
    save_images(tmp_path / "B", 50)
    store = Store(tmp_path / "store")
    plan_suite(folder_suite(tmp_path, "A"), store)
    (tmp_path / "B" / "train" / "ant" / "3.bmp").write_bytes(b"BM, cut off")
    with pytest.raises(DataError, match=r"3\.bmp cannot be decoded"):
        plan_suite(folder_suite(tmp_path, "B"), store)


def test_one_of_two_data_sets_is_not_guessed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for root, shade in (("A", 10), ("B", 50)):
        save_images(tmp_path / root, shade)
        plan_suite(folder_suite(tmp_path, root), store)
    with pytest.raises(DataError, match="several data sets with these options"):
        plan_suite(folder_suite(tmp_path, "nowhere"), store)


def test_the_same_data_under_two_paths_stand_for_themselves_elsewhere(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    save_images(tmp_path / "A", 10)
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    for root in "AB":
        plan_suite(folder_suite(tmp_path, root), store)
    assert plan_suite(folder_suite(tmp_path, "nowhere"), store).notes


# -------------------------------------------------------------------------------------------------------------- threads


def test_artefacts_say_what_their_bits_depend_on_and_a_report_lists_a_mixture(tmp_path: Path) -> None:
    import torch

    (tmp_path / "mixed.toml").write_text(tiny.HEAD + DE)
    result = go(tmp_path, load_suite(str(tmp_path / "mixed.toml")))
    protocol = tmp_path / "rows" / "meta.json"
    store = Store(tmp_path / "store")
    for kind, key in store.own("member"):
        made = store.value(kind, key)["value"]["numerics"]
        assert (made["torch"], made["threads"], made["device"]) == (torch.__version__, 1, "cpu")
        assert made["cpu"] == torch.backends.cpu.get_cpu_capability()
    assert not [line for line in json.loads(protocol.read_text())["protocol"] if "ways" in line]
    cell = result.plan.cells[0]
    store.sidecar_path("predictions", cell.predictions).unlink()
    try:
        go(tmp_path, load_suite(str(tmp_path / "mixed.toml")), threads=2)
    finally:
        torch.set_num_threads(1)
    line = next(line for line in json.loads(protocol.read_text())["protocol"] if "ways" in line)
    assert "1 with torch" in line
    assert "2 thread(s)" in line
