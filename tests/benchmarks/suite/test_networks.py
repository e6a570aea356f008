"""Networks of other libraries and of plugins in a suite: what is refused beforehand, and a run from end to end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.suite.load import load_suite
from dbn_core.errors import SpecError
from dbn_core.nets.spec import ModuleSpec
from tests.support import tiny
from tests.support.command import DbnBench

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
