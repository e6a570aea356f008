"""The smallest suite that trains, for tests of what surrounds the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.run import RunResult

HEAD = """
title = "Tiny"
repetitions = 1
[data]
source = "digits"
test_fraction = 0.9
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 2
[recipe]
epochs = 1
batch_size = 32
crop_pad = 0
[students]
epochs = 1
[latency]
repeats = 3
batch_repeats = 3
batch = 4
"""
DE = '[[methods]]\nuse = "de"\nsizes = [1, 2]\n'
ED = '[[methods]]\nuse = "ed"\nsizes = [2]\n'
TS = '[[methods]]\nuse = "ts"\nsizes = [1]\n'


def run(folder: Path, text: str = HEAD + DE + ED, added: Sequence[str] = (), **options: Any) -> RunResult:
    """Run a suite, and methods added to it, in a folder and in this process; nothing may fail."""
    from benchmarks.run import run_suite
    from benchmarks.store.rows import source_of
    from benchmarks.suite.load import load_suite, with_methods
    from benchmarks.work.make import Options

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.toml"
    file.write_text(text)
    places = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    chosen = Options(**{"jobs": 0, "device": "cpu", "source": source_of(str(file), {}), **places, **options})
    result = run_suite(with_methods(load_suite(str(file)), added), chosen, lambda event: None)
    assert not result.failures
    return result
