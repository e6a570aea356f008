"""The script that measures a GPU, on the CPU: it keeps what it has, goes on with the rest, and makes a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.perf import gpu
from dbn_core.nets.spec import NetworkSpec

TINY = NetworkSpec(name="resnet8", channels=2, width=1.0, norm="batchnorm", bias=False)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NETWORKS", {"tiny": TINY})
    monkeypatch.setattr(gpu, "BATCH", 2)
    monkeypatch.setattr(gpu, "CALLS", 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)  # put back


def run(monkeypatch: pytest.MonkeyPatch, out: Path, pieces: dict[str, Callable[[], Iterator[dict[str, Any]]]]) -> str:
    monkeypatch.setattr(gpu, "pieces", lambda device, compiled: pieces)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(out)])
    gpu.main()
    return out.with_suffix(".md").read_text()


def test_what_is_measured_is_kept_and_the_rest_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, out = torch.device("cpu"), tmp_path / "perf" / "gpu.jsonl"

    def fails() -> Iterator[dict[str, Any]]:
        raise RuntimeError("out of memory")
        yield {}

    ceilings = {"ceilings": lambda: gpu.ceilings(device, 16)}
    first = run(monkeypatch, out, ceilings | {"training | tiny | fp32 | eager": fails})
    assert "| copy |" in first
    assert "| tiny |" not in first
    trained = {
        f"training | tiny | {precision} | eager": lambda p=precision: gpu.training("tiny", p, "eager", device, 2, 1)
        for precision in ("fp32", "bf16")
    }
    predicted = {"prediction | tiny | 3": lambda: gpu.prediction("tiny", 3, device)}
    table = run(monkeypatch, out, {"ceilings": fails} | trained | predicted)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["piece"] for row in rows] == ["ceilings"] * 3 + list(trained) + list(predicted) * 3
    assert all(row.get("images_per_s", row.get("ms", 1)) > 0 for row in rows)
    assert "| tiny | fp32 | eager |" in table
    assert "| 1.00 |" in table
    # A DE-3 has three times the multiply-adds of one network.
    (line,) = (line for line in table.splitlines() if "| DE-3 |" in line)
    assert line.endswith("| 3.00 |")
    assert run(monkeypatch, out, {"ceilings": fails} | trained | predicted) == table


def test_every_piece_of_the_list_is_told_apart() -> None:
    names = list(gpu.pieces(torch.device("cpu"), compiled=True))
    assert len(set(names)) == len(names)
    assert sum(name.startswith("training") for name in names) == 4
