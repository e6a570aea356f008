"""``run --lite``: an added method is tried on what the full suite has, and never ranked or published."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.cli import main
from benchmarks.suite.lite import TRUST, lite_suite
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, build_plan
from dbn_core.errors import SpecError
from tests.support.tiny import DE, HEAD, TS

SMALL = 1_000  # training images, so few that the limit of images does not matter
FACTS = DataFacts("data", "Data", 3, (32, 32), tuple("abcdefghij"), {"train": 100, "validation": 10, "test": 10})


def test_what_does_not_depend_on_the_budget_is_that_of_the_full_suite() -> None:
    full = load_suite("cifar10-cpu")
    lite = lite_suite(full, ["end2@3", "end2@5"], SMALL)
    assert (lite.name, lite.repetitions) == ("cifar10-cpu-lite", 1)
    assert (lite.students.epochs, lite.students.teachers) == (6, "views(1)")
    assert lite.students.precision == full.students.precision
    plan, whole = build_plan(lite, FACTS), build_plan(full, FACTS)
    assert {(cell.label, cell.size) for cell in plan.cells} == {
        *(("DE", size) for size in range(1, 9)),
        *(("END² (lite)", size) for size in (3, 5)),
    }
    of_full = {kind: {key for key, node in whole.nodes.items() if node.kind == kind} for kind in ("member", "part")}
    assert {key for key, node in plan.nodes.items() if node.kind == "member"} <= of_full["member"]
    assert not {key for key, node in plan.nodes.items() if node.kind == "part"} & of_full["part"]
    references = {cell.predictions for cell in plan.cells if cell.is_reference}
    assert references <= {cell.predictions for cell in whole.cells if cell.is_reference}
    smaller = build_plan(lite_suite(full, ["end2@3"], SMALL, all_sizes=False), FACTS)
    assert max(cell.size for cell in smaller.cells) == 3
    assert sum(node.kind == "member" for node in smaller.nodes.values()) == 3


@pytest.mark.parametrize(
    ("added", "used"),
    [
        ("ed@3", "ed"),  # its epochs follow the suite's
        ("ed[epochs=48]@3", "ed[epochs=4]"),
        ("ed[epochs=2,lr_scale=0.5]@3", "ed[epochs=1,lr_scale=0.5]"),
        ("ed[averaged_epochs=8,epochs=10]@3", "ed[averaged_epochs=1,epochs=1]"),
        ("bn[warmup_epochs=5]@2", "bn[curve_epochs=6,warmup_epochs=0.5]"),  # else the members' epochs
        ("swa@1", "swa[epochs=1]"),
        ("student-bridge[source_members=1,bridge_epochs=9]@3", "student-bridge[bridge_epochs=2,source_members=1]"),
        ("dbn[preset=paper,split_at=block2,epochs=300]@3", "dbn[epochs=30,preset=paper,split_at=block2]"),
    ],
)
def test_a_method_has_a_tenth_of_its_own_epochs(added: str, used: str) -> None:
    entry = lite_suite(load_suite("cifar10-cpu"), [added], SMALL).methods[-1]
    assert entry.use == used
    assert entry.label
    assert entry.label.endswith(" (lite)")


def test_large_sets_are_seen_no_more_often_than_50_000_images_take() -> None:
    full, added = load_suite("cifar10-cpu"), ["ed[epochs=48]@3", "end2@3"]
    epochs = {images: lite_suite(full, added, images) for images in (8_000, 25_000, 45_000, 1_281_167)}
    assert {images: lite.students.epochs for images, lite in epochs.items()} == {
        8_000: 6, 25_000: 2, 45_000: 1, 1_281_167: 1,
    }  # fmt: skip
    assert [entry.use for entry in epochs[25_000].methods[-2:]] == ["ed[epochs=2]", "end2"]


def test_what_cannot_be_tried_is_said() -> None:
    for suite, added, words in (
        ("digits", [], "give --add METHOD@SIZE"),
        ("digits", ["ed"], "write METHOD@SIZE"),
        ("mixture2d", ["score-ensemble@2"], "for suites that classify"),
    ):
        with pytest.raises(SpecError, match=words):
            lite_suite(load_suite(suite), added, SMALL)


def test_a_lite_run_has_rows_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(HEAD.replace("repetitions = 1", "repetitions = 2") + DE + TS)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["dbn-bench", "run", "tiny.toml", "--add=ed@2", "--jobs=0", *words])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert run("--lite", "--publish") == 1
    assert "never published" in capsys.readouterr().err
    assert run("--lite") == 0
    said = capsys.readouterr().out
    assert TRUST in said
    assert "Timing" not in said
    assert "temperature" not in said  # the suite's other methods are left alone
    summary = pd.read_csv("results/runs/tiny-lite/summary.csv", keep_default_na=False)
    assert [*zip(summary["label"], summary["size"], strict=True)] == [("DE", 1), ("DE", 2), ("ED (lite)", 2)]
    assert set(summary["n"]) == {1}
    assert set(summary.filter(like="_mark").to_numpy().flat) == {""}
    report = re.sub(r"\s+", " ", Path("reports/runs/tiny-lite/report.md").read_text())
    assert TRUST in report
    assert "has the best" not in report
    assert not Path("results/runs/tiny").exists()
    # The rows of a full run are not replaced, wherever they are.
    shutil.copytree("results/runs/tiny-lite", "full")
    meta = Path("full/meta.json")
    meta.write_text(meta.read_text().replace(' lite"', '"').replace("Tiny (lite)", "Tiny"))
    assert run("--lite", "--rows=full") == 1
    assert "are of another suite" in capsys.readouterr().err
