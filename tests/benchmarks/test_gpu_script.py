"""The script that measures a GPU, on the CPU, with tiny networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.perf import gpu
from dbn_core.nets.spec import NetworkSpec

TINY = NetworkSpec(name="resnet8", channels=2, width=1.0, norm="batchnorm", bias=False)


def test_every_section_has_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NETWORKS", {gpu.SIDE_BY_SIDE: TINY, "ResNet-32 x2, FRN": TINY})
    monkeypatch.setattr(gpu, "BATCH", 2)
    monkeypatch.setattr(gpu, "CALLS", 1)
    monkeypatch.setattr(gpu, "matrix_rate", lambda *_: 1e9)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)  # put back
    sections = [
        (title, columns, lambda device, own=measure, small=small: own(device, small))
        for (title, columns, measure), small in zip(gpu.SECTIONS, (16, 2, None, (3,)), strict=True)
        if small  # trainings side by side take processes of their own
    ]
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path / "gpu.md")])
    gpu.main()
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| copy |" in table
    assert table.count("| bf16 | eager |") == 2
    # A DE-3 has three times the multiply-adds of one network.
    ensembles = [line for line in table.splitlines() if "| DE-3 |" in line]
    assert len(ensembles) == 2
    assert all(line.endswith("| 3.00 |") for line in ensembles)
