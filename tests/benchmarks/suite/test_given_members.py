"""Members from weights files of a plain training script: taken as they are, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from benchmarks.cli import main
from benchmarks.python import load_predictions
from benchmarks.results.rows import analyse, load_cells
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Node, member_identity
from benchmarks.work.estimate import node_work
from benchmarks.work.make import Options, make_artefacts
from benchmarks.work.planning import plan_suite
from dbn_core import Method, register
from dbn_core.errors import SpecError
from dbn_core.methods.registry import load_plugin

NETWORK = """
from torch import nn
from dbn_core import register_network

@register_network("my-cnn")
def build(classes: int, channels: int, width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * width, classes),
    )
"""
SUITE = """
title = "Given"
repetitions = 2
[data]
source = "digits"
[network]
name = "my-cnn"
mean = [0.0]
std = [1.0]
[pool]
checkpoints = ["runs/*.pt"]
[recipe]
epochs = 3
batch_size = 32
optimizer = "adamw"
lr = 0.01
crop_pad = 0
[students]
epochs = 2
[latency]
batch = 8
repeats = 3
batch_repeats = 3
[[methods]]
use = "de"
sizes = [1, 2, 3]
[[methods]]
use = "ed"
sizes = [3]
"""


def plain_script(seed: int, width: int = 16) -> nn.Module:
    """What somebody trains who knows nothing of this project: digits, own loop, images divided by 16."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * width, 10)),
    )
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:600]
    x = torch.tensor(images[chosen], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels[chosen])
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "runs").mkdir()
    for seed in range(3):
        saved = {"epoch": 3, "model": plain_script(seed).state_dict()}
        torch.save(saved, tmp_path / f"runs/{seed}.pt")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["dbn-bench", *words, "--plugin", "net.py"])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    return call(monkeypatch, "run", "mine.toml", "--jobs", "1", *words)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_registry")
def test_from_files_of_a_plain_script_to_an_exported_student(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.toml").unlink()
    words = ["--network", "my-cnn", "--data", "digits", "--members", "runs/*.pt", "--students", "2"]
    assert call(monkeypatch, "new", "mine", *words, "--set", "network.mean=[0.0]", "--set", "network.std=[1.0]") == 0
    # As a user edits the file: how the script trained, and a short run.
    edited = (folder / "mine.toml").read_text()
    for old, new in {'"sgd"': '"adamw"', "lr = 0.1": "lr = 0.01", "repetitions = 3": "repetitions = 2"}.items():
        assert old in edited
        edited = edited.replace(old, new)
    (folder / "mine.toml").write_text(edited)
    assert run(monkeypatch) == 0
    summary = pd.read_csv("results/runs/mine/summary.csv").set_index(["label", "size"])
    assert summary.loc[("DE", 3), "acc_mean"] > 0.8
    assert summary.loc[("DE", 3), "nll_mean"] < summary.loc[("DE", 1), "nll_mean"]
    assert summary.loc[("ED", 3), "acc_mean"] > 0.8
    records = [json.loads(path.read_text()) for path in Path("results/store").rglob("member/**/*.json")]
    assert len(records) == 3
    assert all(record["value"]["validation_accuracy"] > 0.7 for record in records)
    assert run(monkeypatch) == 0  # nothing is made twice
    assert call(monkeypatch, "export", "mine.toml", "ED@3", "--out", "student") == 0
    assert json.loads(Path("student/preprocessing.json").read_text())["normalisation"]["std"] == [1.0]
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    runtime = pytest.importorskip("onnxruntime")
    [log_probs] = runtime.InferenceSession("student/model.onnx").run(["log_probs"], {"images": pixels})
    assert (log_probs.argmax(1) == labels).mean() > 0.8


@pytest.mark.usefixtures("clean_registry")
def test_a_file_that_is_no_member_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What `run` says; tests/benchmarks/commands/test_new.py has every kind of wrong file."""
    state = plain_script(0).state_dict()
    torch.save({**state, "7.weight": torch.zeros(3, 64)}, folder / "runs/0.pt")
    torch.save({**state, "7.weight": torch.zeros(10, 64)}, folder / "runs/1.pt")
    assert run(monkeypatch, "--set", "repetitions=1", "--only", "de", "--jobs", "0") == 1
    said = "".join(capfd.readouterr())
    assert "shape [3, 64] instead of [10, 64]" in said
    assert "at chance on validation" in said


@pytest.mark.usefixtures("clean_registry")
def test_the_report_claims_nothing_about_the_training_of_given_members(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--set", "repetitions=1", "--only", "de", "--jobs", "0"]
    assert run(monkeypatch, *words) == 0
    meta = json.loads(Path("results/runs/mine/meta.json").read_text())
    assert meta["budget"][0].startswith("Members: 3 given weights files. How they were trained is not known")
    assert "ADAMW" not in str(meta["budget"])
    assert "members:" not in str(meta["budget"])
    assert "Validation comes out of train." in meta["protocol"]


def test_what_checkpoints_exclude(folder: Path) -> None:
    def refused(old: str, new: str, words: str) -> None:
        (folder / "mine.toml").write_text(SUITE.replace(old, new).replace('"my-cnn"', '"timm:resnet18"'))
        with pytest.raises(SpecError, match=words):
            load_suite("mine.toml")

    refused("[recipe]", "members = 3\n[recipe]", "remove members and sharing")
    refused("runs/*.pt", "runs/none*.pt", "there is no file 'runs/none")
    refused('"runs/*.pt"', '"runs/*.pt", "runs/0.pt"', "names a file twice")
    refused('source = "digits"', 'source = "digits"\nsplit = "repetition"', "shared pool")


WIDE = '{ name = "my-cnn", options = { width = 24 } }'
MIXED = SUITE.replace('["runs/*.pt"]', f'["runs/[01].pt", {{ path = "runs/wide.pt", network = {WIDE} }}]')
# Students of a network that no member has.
OTHER: dict[str, Any] = {
    "network.options": {"width": 8},
    "pool.checkpoints": [{"path": "runs/[01].pt", "network": "my-cnn"}],
}


@pytest.fixture
def mixed(folder: Path, clean_registry: None) -> Path:
    load_plugin("net.py")
    (folder / "mine.toml").write_text(MIXED)
    torch.save(plain_script(7, width=24).state_dict(), "runs/wide.pt")
    return folder


def test_the_source_of_a_mixed_pool_has_the_network_of_students(mixed: Path) -> None:
    suite = load_suite("mine.toml", {"repetitions": 4})
    assert [suite.network_of(index).key().get("options") for index in range(3)] == [None, None, {"width": 24}]
    assert all(suite.network_of(index).mean == (0.0,) for index in range(3))  # that of [network]
    assert suite.sources == [0, 1]
    orders = [[member_identity(suite, repetition, place)[1] for place in range(3)] for repetition in range(4)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert {order[0] for order in orders} == {0, 1}
    assert load_suite("mine.toml", {**OTHER, "methods": [{"use": "de", "sizes": [2]}]}).sources == [0, 1]


def test_what_a_mixed_pool_needs_is_said_when_the_suite_is_loaded(mixed: Path) -> None:
    def refused(use: str, words: str, **changes: Any) -> None:
        table = {"use": use, "sizes": [2]}
        suite = load_suite("mine.toml", {"methods": [{"use": "de", "sizes": [1]}, table], **changes})
        with pytest.raises(SpecError, match=words):
            suite.entries()

    class Plugin(Method):
        """Says nothing."""

        def predictor(self, size: int, context: Any) -> nn.Module:
            return nn.Identity()

    register("plugin")(Plugin)
    refused("plugin", 'plugin does not say .* same_network = "none" in its class')
    refused("dbn[members_per_bridge=2,split_at=0]", "dbn copies or takes apart its source", **OTHER)
    refused("ed[start=source]", "ed copies or takes apart its source.*give members of 'my-cnn.width=8.'", **OTHER)
    built_in = {
        "network": {"name": "resnet8"},
        "pool.checkpoints": ["runs/0.pt", {"path": "runs/1.pt", "network": "wrn10-1"}],
    }
    refused("bn[split_at=block2]", "bn needs members of one network", **built_in)
    for use in ("ed[start=source]", "end2", "ts", "de-logits", "dbn[members_per_bridge=2,split_at=0]"):
        sizes = [1] if use == "ts" else [2]
        load_suite("mine.toml", {"methods": [{"use": use, "sizes": sizes}]}).entries()
    for entry, words in (
        ({"path": "runs/0.pt", "network": "my-cnm"}, "unknown network 'my-cnm'"),
        ({"path": "runs/0.pt", "network": {"name": "my-cnn", "widht": 3}}, "the network of .*0.pt: 'widht'"),
        ({"path": "runs/0.pt", "netwrok": "my-cnn"}, "unknown key 'netwrok'"),
    ):
        with pytest.raises(SpecError, match=words):
            load_suite("mine.toml", {"pool.checkpoints": [entry, "runs/1.pt"]})


def test_members_of_two_networks_are_run_taught_from_and_counted(mixed: Path) -> None:
    methods = "".join(f'[[methods]]\nuse = "{use}"\nsizes = [3]\n' for use in ("end2", "de-logits"))
    (mixed / "mine.toml").write_text(MIXED.replace("epochs = 2", "epochs = 1") + methods)
    suite, options = load_suite("mine.toml"), Options(Path("store"), executor="inline", jobs=0)
    store = options.open_store()
    plan = plan_suite(suite, store)
    outcome = make_artefacts(
        plan, store, {key for cell in plan.cells for key in cell.results}, options, lambda event: None
    )
    assert not outcome.failures
    summary = analyse(plan, load_cells(plan, store)[0], store, {}).summary.set_index(["family", "size"])
    narrow, wide = (params(plain_script(0, width)) for width in (16, 24))
    # DE-2 is a narrow source and either of the others.
    orders = [[member_identity(suite, repetition, place)[1] for place in range(3)] for repetition in range(2)]
    assert summary.loc[("de", 1), "params"] == narrow
    assert summary.loc[("de", 2), "params"] == narrow + sum([narrow, narrow, wide][order[1]] for order in orders) / 2
    assert summary.loc[("de", 3), "params"] == 2 * narrow + wide == summary.loc[("de-logits", 3), "params"]
    assert summary.loc[("ed", 3), "params"] == summary.loc[("end2", 3), "params"] == narrow
    assert summary.loc[("ed", 3), "macs_rel"] == 1.0
    # The wide member's predictions are those of its own network outside of the suite.
    predictions = load_predictions("mine.toml", "DE@3", store=Path("store"))
    network = plain_script(7, width=24)
    with torch.no_grad():
        expected = network(suite.data.load().test.images / 255).log_softmax(-1)
    assert np.allclose(predictions.log_probs[orders[0].index(2)], expected, atol=1e-4)
    # In an estimate, a pass of the wide member is more than one of a student.
    [member] = [node.key for node in plan.nodes.values() if node.payload.get("file", "").endswith("wide.pt")]
    views = Node("views", "", "", {"count": 1, "member": member}, (), {})
    assert node_work(plan, views).forward > 1.2 * node_work(plan, views).teacher_passes


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
