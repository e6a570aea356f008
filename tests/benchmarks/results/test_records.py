"""What methods record while they train: from ``context.record`` to a file of results and a table of the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.report import read_results, render
from benchmarks.report.tables.formatting import to_markdown
from benchmarks.report.tables.records import recorded_tables
from benchmarks.run import RunResult
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import export_suite, import_bundle
from benchmarks.store.release import release_suite
from dbn_core.methods.registry import load_plugin
from tests.benchmarks.report.made_up import METHODS, change_meta, write_results
from tests.support import tiny

# It trains nothing, so that a run of it takes no time; two entries of it share a part.
PLUGIN = '''
import torch
from torch import nn
from dbn_core import Config, Method, Part, register

class Even(nn.Module):
    def forward(self, images):
        return torch.full((len(images), 10), 0.1, device=images.device).log()

@register("recording")
class Recording(Method):
    """Tells how it went, and predicts nothing."""

    records = {"went_*": "how it went"}

    class Config(Config):
        way: int = 1

    def parts(self, size):
        return [Part(f"part-{size}", settings={})]

    def fit(self, part, context):
        draw = float(torch.rand(1, generator=context.generator("draw")))
        context.record(went_well=draw, went_badly=float("inf"), secret=size if (size := part.name[-1]) == "3" else 7)
        return {"x": torch.ones(1)}

    def predictor(self, size, context):
        return Even()
'''
ENTRY = '[[methods]]\nuse = "recording"\nlabel = "{}"\nsizes = {}\noptions = {{ way = {} }}\n'
SUITE = (
    tiny.HEAD.replace("repetitions = 1", "repetitions = 3")
    + ENTRY.format("One", [1, 2], 1)
    + ENTRY.format("Other", [2], 2)
)


def run(folder: Path, store: str = "store", released: Path | None = None) -> RunResult:
    return tiny.run(folder, SUITE, store=folder / store, released=released)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, clean_registry_of_module: None) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("records")
    (folder / "recording.py").write_text(PLUGIN)
    load_plugin(folder / "recording.py")
    return folder, run(folder)


def records(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows" / "records.csv")


def test_every_number_of_every_cell_has_a_row(made: tuple[Path, RunResult]) -> None:
    frame = records(made[0])
    assert len(frame) == 3 * (1 + 2) * 3  # numbers, cells of a repetition, repetitions
    at = frame.set_index(["label", "size", "repetition", "name"])["value"].sort_index()
    assert at.loc["One", 2].equals(at.loc["Other", 2])  # one training
    assert at.loc["One", 1, 0, "went_well"] != at.loc["One", 1, 1, "went_well"]
    assert (at.xs("secret", level="name") == 7).all()
    assert at.xs("went_badly", level="name").isna().all()
    trainings = frame.groupby(["label", "size", "repetition"])["training"].unique().map(lambda each: each.item())
    assert trainings.loc["One", 2].equals(trainings.loc["Other", 2])
    assert trainings.loc["One"].nunique() == 6
    meta = json.loads((made[0] / "rows" / "meta.json").read_text())
    assert meta["recorded"] == {"recording": {"went_well": "how it went", "went_badly": "how it went"}}


def test_parts_that_are_not_at_hand_have_no_rows_and_leave_no_old_ones(
    made: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(made[0] / "store", tmp_path / "store")
    before, store = run(tmp_path), Store(tmp_path / "store")
    assert not before.outcome.made
    everything = records(tmp_path)
    (lost, *others) = [key for _, key in store.own("part")]
    store.sidecar_path("part", lost).unlink()  # predictions are there, so that nothing needs it
    assert not run(tmp_path).outcome.made
    pd.testing.assert_frame_equal(
        records(tmp_path), everything[everything["training"] != lost[:12]].reset_index(drop=True)
    )
    scores = (tmp_path / "rows" / "rows.csv").read_bytes()
    for key in others:
        store.sidecar_path("part", key).unlink()
    run(tmp_path)
    assert not (tmp_path / "rows" / "records.csv").exists()
    assert "recorded" not in json.loads((tmp_path / "rows" / "meta.json").read_text())
    assert (tmp_path / "rows" / "rows.csv").read_bytes() == scores


def test_they_are_released_and_carried(made: tuple[Path, RunResult], tmp_path: Path) -> None:
    folder, result = made
    known = (folder / "rows" / "records.csv").read_bytes()
    release_suite(result.plan, Store(folder / "store"), tmp_path / "released" / "records")
    assert not run(tmp_path, "empty", tmp_path / "released").outcome.made
    assert (tmp_path / "rows" / "records.csv").read_bytes() == known
    export_suite(result.plan, Store(folder / "store"), folder / "rows", tmp_path / "carried.zip")
    import_bundle(tmp_path / "carried.zip", Store(tmp_path / "elsewhere"), tmp_path / "carried")
    assert (tmp_path / "carried" / "records.csv").read_bytes() == known
    without = tmp_path / "without"
    shutil.copytree(folder / "rows", without)
    (without / "records.csv").unlink()
    export_suite(result.plan, Store(folder / "store"), without, tmp_path / "without.zip")
    import_bundle(tmp_path / "without.zip", Store(tmp_path / "elsewhere"), tmp_path / "carried", replace_rows=True)
    assert not (tmp_path / "carried" / "records.csv").exists()


# --------------------------------------------------------------------------------------------------------- the report

ED, DBN = (next(row for row in METHODS if row[0] == label) for label in ("ED", "DBN (fixed)"))
VALUES = np.array([0.01, 0.02, 0.04])


def rows_of(row: tuple, part: str, training: str, name: str, values: np.ndarray) -> list[dict[str, object]]:
    who = dict(zip(("label", "method", "family", "size"), row, strict=False))
    return [
        {**who, "repetition": r, "part": part, "training": f"{training}{r}", "name": name, "value": value}
        for r, value in enumerate(values)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of a run whose DBN recorded two numbers, one of them in two repetitions alone, and whose ED one."""
    folder = write_results(tmp_path / "rows")
    other = next(row for row in METHODS if row[0] == "DBN (paper)")
    lines = rows_of(DBN, "a", "t", "kappa", VALUES) + rows_of(other, "a", "t", "kappa", VALUES)
    lines += rows_of(DBN, "b", "u", "tiny", VALUES[:2] * 1e-12)
    lines += rows_of(ED, "c", "v", "count_of", np.array([5e6, 5e6, 5e6]))
    lines += rows_of(ED, "c", "v", "never", np.array([np.nan] * 3))
    pd.DataFrame(lines).to_csv(folder / "records.csv", index=False)
    return change_meta(folder, recorded={"dbn": {"kappa": "how <bent> a path is"}})


def test_a_table_for_each_method_has_means_with_t_intervals(folder: Path) -> None:
    dbn, ed = recorded_tables(read_results(folder))
    assert (dbn.method, ed.method) == ("dbn", "ed")
    assert dbn.table.header == ["Method", "Size", "Training", "kappa", "tiny"]
    (shared, alone), (counted,) = dbn.table.blocks[0].rows, ed.table.blocks[0].rows
    half = stats.t.ppf(0.975, 2) * VALUES.std(ddof=1) / np.sqrt(3)
    assert [cell.text for cell in shared] == [
        *("DBN (fixed) and 1 more", "3", "a"),
        f"{VALUES.mean():.3f} ± {half:.3f}",
        "–",
    ]
    # The mean of 0.01 and 0.02 times 1e-12; half of an interval of two is 12.706 times half of their distance.
    assert alone[4].text == "1.5e-14 ± 6.4e-14 (2 of 3)"
    assert [cell.text for cell in counted[3:]] == ["5e+06 ± 0", "not finite"]
    assert dbn.meanings == ["kappa: how <bent> a path is."]
    assert ed.meanings == []


def test_both_pages_show_them_and_are_as_before_without(folder: Path, tmp_path: Path) -> None:
    render(folder, tmp_path / "with")
    page, text = ((tmp_path / "with" / f"report.{end}").read_text() for end in ("html", "md"))
    assert "how &lt;bent&gt; a path is" in page
    assert "how &lt;bent> a path is" in text
    for one in recorded_tables(read_results(folder)):
        assert to_markdown(one.table) in text
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "with" / "tables" / "records.csv"), pd.read_csv(folder / "records.csv")
    )
    (folder / "records.csv").unlink()
    render(folder, tmp_path / "with")
    for end, whole in (("html", page), ("md", text)):
        without = (tmp_path / "with" / f"report.{end}").read_text()
        assert "Recorded" not in without
        assert "Recorded in training" in whole
