"""Networks of other libraries and of plugins in a suite: what is refused beforehand, and a run from end to end."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import load_member, load_predictions, load_results
from benchmarks.suite.load import load_suite
from dbn_core.errors import SpecError
from dbn_core.nets.spec import ModuleSpec
from dbn_core.tables import TABLES
from tests.support import tiny
from tests.support.command import DbnBench
from tests.support.registered import forgetting

HEAD = tiny.HEAD.replace("channels = 4\nwidth = 1.0\n", "OPTIONS\n") + tiny.DE
BRIDGES = """
[[methods]]
use = "ed"
sizes = [2]
[[methods]]
use = "dbn"
sizes = [2]
options = {{ members_per_bridge = 2, score_network = "mini", split_at = "{at}", batch_size = 64 }}
"""
PLUGIN = """
from torch import nn
from dbn_core import register_network

@register_network("small-cnn")
class SmallCNN(nn.Sequential):
    def __init__(self, classes: int, channels: int, width: int = 8) -> None:
        first = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        super().__init__(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
"""


def suite(folder: Path, network: str, options: str = "", methods: str = "") -> Path:
    path = folder / "own.toml"
    path.write_text(HEAD.replace("resnet8", network).replace("OPTIONS", options) + methods)
    return path


@pytest.mark.parametrize(
    ("network", "options", "methods", "words"),
    [
        ("smal-cnn", "options = { width = 4 }", "", "unknown network 'smal-cnn'.*--plugin FILE"),
        ("resnet9", "", "", "unknown network 'resnet9'"),
        ("timm:resnet18", "width = 2.0", "", "unknown key 'width' in .network"),
        ("timm:resnet18", "", "[[methods]]\nuse = 'bn'\nsizes = [2]\n", "bn cuts networks after a block.*use a ResNet"),
        (
            "timm:resnet18",
            "",
            "[[methods]]\nuse = 'ed'\nsizes = [2]\noptions = { width = 0.5 }\n",
            "ed: 'timm:resnet18' has one width",
        ),
    ],
)
def test_what_does_not_work_is_said_beforehand(
    tmp_path: Path, network: str, options: str, methods: str, words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        load_suite(str(suite(tmp_path, network, options, methods))).entries()


def test_keys_of_another_network_and_lists_are_named_with_a_remedy(tmp_path: Path) -> None:
    path = str(suite(tmp_path, "resnet8", "channels = 4\nwidth = 1.0"))
    for changed, words in (
        ({"network.name": "timm:resnet18"}, "the keys channels, width of its .network. .*copy of the file"),
        ({"network": {"name": "timm:resnet18"}, "network.depth": 2}, "did you mean 'options.depth'"),
        ({"methods.0.options.x": 1}, "--add 'NAME.option=value.@SIZE'"),
    ):
        with pytest.raises(SpecError, match=words):
            load_suite(path, changed)


@pytest.mark.usefixtures("clean_registry")
def test_a_plugin_s_network_after_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/cnn.py").write_text(PLUGIN)
    file, plugin = suite(tmp_path / "mine", "small-cnn"), ("--plugin", "mine/cnn.py")
    file.write_text('name = "renamed"' + file.read_text())
    command = ("run", "mine/own.toml", *plugin, "--jobs", 0, "--device", "cpu")
    assert dbn_bench(*command).code == 0
    for words in (("report", "renamed"), ("report", "mine/own.toml")):
        assert dbn_bench(*words).code == 0
    assert list(load_results("mine/own.toml")["size"]) == list(load_results("renamed")["size"]) == [1, 2]
    assert load_predictions("mine/own.toml", "DE@2", plugins="mine/cnn.py").log_probs.shape[0] == 2
    assert load_member("mine/own.toml", plugins=["mine/cnn.py"]).classes == 10
    with forgetting():
        for table in TABLES:
            table.entries = {name: entry for name, entry in table.entries.items() if name != "small-cnn"}
        for words in (("mine/own.toml", "DE@1"), ("renamed", "DE@1", *plugin)):
            said = dbn_bench("export", *words)
            assert (
                "Unknown suite 'renamed'" in said.err or "unknown network 'small-cnn': if a file of yours" in said.err
            )
            assert re.search(r"are of `.*run mine/own.toml --plugin mine/cnn.py .*`: give the same file and", said.err)
    Path("mine/cnn.py").write_text(PLUGIN + "\n")
    assert "give --suite SUITE" in dbn_bench("compare", "DE@1", "DE@2").err
    compare = ("compare", "DE@1", "DE@2", "--suite", "mine/own.toml", *plugin)
    assert "mine/cnn.py has changed since the run whose rows are in 'results/runs/renamed'" in dbn_bench(*compare).err


def test_a_network_of_a_library_is_part_of_keys(tmp_path: Path) -> None:
    first = load_suite(str(suite(tmp_path, "timm:resnet18"))).network
    second = load_suite(str(suite(tmp_path, "timm:resnet18", "input_size = 32"))).network
    assert isinstance(first, ModuleSpec)
    assert first.key() == {"name": "timm:resnet18"}
    assert second.key() == {"name": "timm:resnet18", "input_size": 32}


@pytest.mark.slow
@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("network", "jobs", "options", "at"),
    [
        ("small-cnn", 1, "options = { width = 8 }", "0"),
        (
            "timm:convnext_atto",
            0,
            "input_size = 32\noptions = { depths = [1, 1, 1, 1], dims = [8, 16, 24, 32] }",
            "stages.0",
        ),
    ],
)
def test_members_a_student_and_a_bridge_on_a_network_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench, network: str, jobs: int, options: str, at: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn.py").write_text(PLUGIN)
    suite(tmp_path, network, options, BRIDGES.format(at=at))
    assert dbn_bench("run", "own.toml", "--plugin", "cnn.py", "--jobs", jobs).code == 0
    summary = pd.read_csv("results/runs/own/summary.csv").set_index(["family", "size"])
    assert {("de", 1), ("de", 2), ("ed", 2), ("dbn", 2)} <= set(summary.index)
    assert summary.loc[("ed", 2), "macs_rel"] == 1.0
    assert summary.loc[("de", 2), "macs_rel"] == 2.0
    assert summary.loc[("dbn", 2), "macs_rel"] > 1.0
