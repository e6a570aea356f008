"""Members from weights files of a plain training script: taken as they are, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from benchmarks.cli import main
from benchmarks.suite.load import load_suite
from dbn_core.errors import SpecError

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


def plain_script(seed: int) -> nn.Module:
    """What somebody trains who knows nothing of this project: digits, own loop, images divided by 16."""
    torch.manual_seed(seed)
    width = 16
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


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["dbn-bench", "run", "mine.toml", "--plugin", "net.py", "--jobs", "1", *words])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.slow
@pytest.mark.usefixtures("clean_registry")
def test_given_members_are_taken_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
    summary = pd.read_csv("results/runs/mine/summary.csv").set_index(["family", "size"])
    assert summary.loc[("de", 3), "acc_mean"] > 0.8
    assert summary.loc[("de", 3), "nll_mean"] < summary.loc[("de", 1), "nll_mean"]
    records = [json.loads(path.read_text()) for path in Path("results/store").rglob("member/**/*.json")]
    assert len(records) == 3
    # A member's accuracy is that of the script's own network on the same images.
    assert all(record["value"]["validation_accuracy"] > 0.7 for record in records)
    assert run(monkeypatch) == 0  # nothing is made twice


@pytest.mark.slow
@pytest.mark.usefixtures("clean_registry")
def test_a_file_that_is_no_member_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    state = plain_script(0).state_dict()
    broken = {
        "is at chance on validation": {**state, "7.weight": torch.zeros(10, 64)},
        r"shape [3, 64] instead of [10, 64]": {**state, "7.weight": torch.zeros(3, 64)},
        "1 tensors are missing (7.bias)": {name: value for name, value in state.items() if name != "7.bias"},
        "has NaN or infinite values": {**state, "7.bias": torch.full((10,), torch.nan)},
    }
    for words, saved in broken.items():
        torch.save(saved, folder / "runs/1.pt")
        assert run(monkeypatch, "--set", "repetitions=1") != 0
        assert words in " ".join("".join(capfd.readouterr()).split())


def test_what_checkpoints_exclude(folder: Path) -> None:
    def refused(old: str, new: str, words: str) -> None:
        (folder / "mine.toml").write_text(SUITE.replace(old, new).replace('"my-cnn"', '"timm:resnet18"'))
        with pytest.raises(SpecError, match=words):
            load_suite("mine.toml")

    refused("[recipe]", "members = 3\n[recipe]", "remove members and sharing")
    refused("runs/*.pt", "runs/none*.pt", "there is no file 'runs/none")
    refused('"runs/*.pt"', '"runs/*.pt", "runs/0.pt"', "names a file twice")
    refused('source = "digits"', 'source = "digits"\nsplit = "repetition"', "shared pool")
