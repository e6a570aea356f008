"""Speed of the harness around the trainings: start-up, reports, stored runs, the store, scores.

The goals on two quiet cores: 0.3 s for a command that looks up, 4 s for a report, 5 s for a stored run of digits, 3 s
and 4 GiB for the scores.  Each command is a process of its own, as a person starts it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.store.artefacts import Store

ROOT = Path(__file__).resolve().parents[2]
MEMBERS, EXAMPLES, CLASSES, VALIDATION = 8, 50_000, 1_000, 5_000


def bench(*words: str | Path) -> None:
    line = [sys.executable, "-m", "benchmarks.cli", *map(str, words)]
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a run of `smoke` that has been made."""
    folder = tmp_path_factory.mktemp("smoke")
    places = [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]
    # Wider than the suite's own: a convolution of four channels crashes in some builds of torch.
    words = ["smoke", *places, "--set", "network.channels=8"]
    bench("run", *words)
    return words


@pytest.mark.parametrize("words", [("list",), ("show", "dbn")], ids=" ".join)
def test_looking_up(benchmark: Any, words: tuple[str, ...]) -> None:
    benchmark.pedantic(bench, words, rounds=10, warmup_rounds=1)


def test_status(benchmark: Any, stored: list[str]) -> None:
    words = [word for word in stored if not word.startswith(("--rows", "--reports"))]
    benchmark.pedantic(bench, ("status", *words), rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("before", ["nothing", "the same report"])
def test_report(benchmark: Any, tmp_path: Path, before: str) -> None:
    words = ("report", "digits", "--rows", ROOT / "results/reference/digits", "--reports", tmp_path)
    bench(*words)

    def setup() -> None:
        if before == "nothing":
            shutil.rmtree(tmp_path / "digits")

    benchmark.pedantic(bench, words, setup=setup, rounds=3)


def test_stored_run(benchmark: Any, stored: list[str]) -> None:
    benchmark.pedantic(bench, ("run", *stored), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("what", ["write", "read"])
def test_store(benchmark: Any, tmp_path: Path, what: str) -> None:
    """An artefact of 16 MiB, a large network: written to the disk for good, or read and its checksum compared."""
    store, content = Store(tmp_path), save({"weights": np.ones(1 << 22, np.float32)})

    def put() -> None:
        store.put("part", "a" * 64, {}, content)

    put()
    benchmark.extra_info["bytes"] = 2 * len(content)
    benchmark.pedantic(put if what == "write" else lambda: store.arrays("part", "a" * 64), rounds=20, warmup_rounds=2)


SCORES = f"""
import resource, time
import numpy as np
from dbn_core.tasks.class_scores import score_arrays

rng = np.random.default_rng(0)
def predictions(n):
    log_probs = np.empty(({MEMBERS}, n, {CLASSES}), np.float32)
    for member in log_probs:
        for block in np.array_split(member, -(-n // 1000)):
            rng.standard_normal(dtype=np.float32, out=block)
            block -= np.log(np.exp(block).sum(1, keepdims=True))
    return log_probs

arrays = dict(test=predictions({EXAMPLES}), test_labels=rng.integers(0, {CLASSES}, {EXAMPLES}))
arrays |= dict(validation=predictions({VALIDATION}), validation_labels=rng.integers(0, {CLASSES}, {VALIDATION}))
started = time.perf_counter()
score_arrays(arrays)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_scores_of_a_large_ensemble(benchmark: Any) -> None:
    """Of 8 members, 50,000 examples and 1,000 classes; the time of the process, with its random predictions.

    ``extra_info`` has what the scores alone took, in seconds, and the peak of the process's memory, in GiB.
    """

    def score() -> None:
        done = subprocess.run([sys.executable, "-c", SCORES], cwd=ROOT, check=True, capture_output=True, text=True)
        seconds, peak_kib = map(float, done.stdout.split())
        benchmark.extra_info |= {"scores_s": round(seconds, 2), "peak_gib": round(peak_kib / 2**20, 2)}

    benchmark.pedantic(score, rounds=1)
