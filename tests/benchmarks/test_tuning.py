"""How the settings of a method were chosen: stated in the suite, part of no key, printed beside the results."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report import read_results, render
from benchmarks.report.tables.main import tuning_table
from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from tests.support.tiny import DE, ED, HEAD

ROWS = Path(__file__).resolve().parents[2] / "results" / "reference" / "cifar10-small"
STATED = 'tuning = { settings = 4, on = "validation", varied = "learning rate" }\n'


def write(folder: Path, *pieces: str) -> str:
    file = folder / "tiny.toml"
    file.write_text("".join(pieces), encoding="utf-8")
    return str(file)


def test_a_statement_changes_no_key(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plain = plan_suite(load_suite(write(tmp_path, HEAD, DE, ED)), store)
    stated = plan_suite(load_suite(write(tmp_path, HEAD, DE, ED, STATED)), store)
    assert stated.suite.methods[1].tuning is not None
    assert list(plain.nodes) == list(stated.nodes)


def test_the_report_says_what_is_stated_and_what_is_not(tmp_path: Path) -> None:
    rows = shutil.copytree(ROWS, tmp_path / "rows")
    meta = json.loads((rows / "meta.json").read_text(encoding="utf-8"))
    labels = [label for label in meta["options"] if label not in ("DE", *meta["controls"])]
    meta["tuning"] = dict.fromkeys(labels)
    meta["tuning"][labels[0]] = {"settings": 4, "on": "validation", "varied": "learning rate"}
    meta["tuning"][labels[1]] = {"on": "test"}
    (rows / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    results = read_results(rows)
    table = tuning_table(results)
    assert table is not None
    lines = {row[0].text: [cell.text for cell in row[1:]] for block in table.blocks for row in block.rows}
    assert lines[labels[0]] == ["4", "validation", "learning rate"]
    assert lines[labels[1]] == ["not recorded", "test (!)", ""]
    assert lines[labels[2]] == ["not recorded", "", ""]
    assert "DE" not in lines
    render(rows, tmp_path / "report")
    for name in ("report.md", "report.html"):
        assert "How the settings of each method were chosen" in (tmp_path / "report" / name).read_text(encoding="utf-8")

    meta["tuning"] = dict.fromkeys(labels)  # a table of nothing but "not recorded" says nothing
    (rows / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    assert tuning_table(read_results(rows)) is None

    del meta["tuning"]
    (rows / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    assert tuning_table(read_results(rows)) is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tinyimagenet", "imagenet64"])
def test_suites_of_the_papers_say_that_their_settings_are_the_papers(name: str) -> None:
    for entry, method, label in load_suite(name).entries():
        stated = entry.tuning and (entry.tuning.settings, entry.tuning.on)
        assert stated == ((1, "paper") if method.competes else None), label


def tune(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> pd.DataFrame:
    table = folder / "rates.csv"
    where = ["--repetitions", "1", "--jobs", "0", "--store", str(folder / "store"), "--table", str(table)]
    monkeypatch.setattr(sys, "argv", ["tune.py", *words, *where])
    runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "tune.py"), run_name="__main__")
    return pd.read_csv(table)


def test_a_key_of_the_suite_is_varied_for_members_and_each_size_counts_its_own_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write(tmp_path, HEAD, DE, ED)
    rows = tune(monkeypatch, tmp_path, suite, "--vary", "recipe.lr=0.01,0.1", "--label", "DE").set_index(
        ["recipe.lr", "size"]
    )
    assert len(rows) == 4
    for rate in ("0.01", "0.1"):
        store = Store(tmp_path / "store")
        plan = plan_suite(load_suite(suite, {"recipe.lr": rate}), store)
        for cell in (cell for cell in plan.cells if cell.label == "DE"):
            arrays = store.arrays("predictions", cell.predictions)
            probabilities = np.exp(arrays["validation"][: cell.size].astype(float)).mean(0)
            nll = -np.log(probabilities[np.arange(len(probabilities)), arrays["validation_labels"]]).mean()
            assert rows.loc[(float(rate), cell.size), "validation_nll"] == pytest.approx(nll, abs=1e-5)


def test_the_tuning_script_tries_as_many_values_for_each_method_and_reads_validation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write(tmp_path, HEAD, DE, ED)
    rows = tune(monkeypatch, tmp_path, suite, "--vary", "lr_scale=0.5,1.0", "--label", "ED")
    assert rows["lr_scale"].tolist() == [0.5, 1.0]
    assert (rows["chosen"] == "x").tolist() == (rows["validation_nll"] == rows["validation_nll"].min()).tolist()
    # The suite's own rate is one of them: its predictions are there, and give the same number.
    store = Store(tmp_path / "store")
    cell = next(cell for cell in plan_suite(load_suite(suite), store).cells if cell.label == "ED")
    arrays = store.arrays("predictions", cell.predictions)
    probabilities = np.exp(arrays["validation"].astype(float)).mean(0)
    nll = -np.log(probabilities[np.arange(len(probabilities)), arrays["validation_labels"]]).mean()
    assert rows["validation_nll"][1] == pytest.approx(nll, abs=1e-5)
