"""What the README and the guide show is run as it stands."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

from benchmarks.cli import application
from benchmarks.commands.common import load_plan
from benchmarks.report.tables.formatting import dee_text
from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from dbn_core.data.sources import SOURCES
from tests.support import tiny
from tests.support.command import DbnBench

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("guide.md", "score.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README + GUIDE, re.DOTALL)


def words_of(line: str) -> list[str]:
    """What follows ``dbn-bench``."""
    return shlex.split(line, comments=True)[1:]


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


def test_the_table_is_that_of_the_committed_rows() -> None:
    summary = pd.read_csv(ROOT / "results" / "reference" / "cifar10-cpu" / "summary.csv")
    largest = summary[summary["family"] == "de"]["size"].max()
    rows = re.findall(
        r"^\| (.+?)(?:, |-)?(\d+)? \| (\d) \| ([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|$", README, re.M
    )
    assert len(rows) == 10
    for label, size, n, *cells in rows:
        [row] = summary[(summary["label"] == label) & (summary["size"] == int(size or 1))].to_dict("records")
        reference = row["family"] == "de"
        dees = [
            str(size) if reference else dee_text(*(row[f"dee_{kind}{end}"] for end in ("", "_low", "_high")), largest)
            for kind in ("raw", "cal")
        ]
        expected = [f"{100 * row['acc_mean']:.1f}", f"{row['nll_mean']:.3f}", *dees, f"{row['macs_rel']:.2f}×"]
        assert [str(row["n"]), *expected] == [n, *(cell.strip() for cell in cells)], label


SUITE = tiny.HEAD.replace("repetitions = 1", "repetitions = 2") + tiny.DE
SUITE += '[[methods]]\nuse = "logit-matching"\nsizes = [2]\n'


@pytest.mark.usefixtures("clean_registry")
def test_the_example_baseline_and_the_example_predictions_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench
) -> None:
    example = blocks("python")[0]
    assert len(example.splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    Path("logit_matching.py").write_text(example)
    Path("mine.toml").write_text(SUITE)
    assert dbn_bench("check", "logit-matching", "--plugin", "logit_matching.py").code == 0
    assert dbn_bench("run", "mine.toml", "--plugin", "logit_matching.py", "--jobs", "0").code == 0
    assert "Logit matching" in Path("reports/runs/mine/report.md").read_text()
    use_own_predictions(dbn_bench)


@pytest.mark.usefixtures("clean_registry")
def test_the_reference_table_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench) -> None:
    """Nothing of it is trained, a file is scored against it, and a baseline would train itself alone."""
    monkeypatch.setenv("DBN_RELEASED", str(ROOT / "results" / "released"))
    monkeypatch.chdir(tmp_path)
    Path("logit_matching.py").write_text(blocks("python")[0])
    (block,) = [text for text in blocks("sh") if "mine.npz" in text]
    run, score = block.splitlines()
    (block,) = [text for text in blocks("sh") if "--add" in text]
    install, check, join = block.splitlines()
    assert install == "pip install -e ."
    assert check.startswith("dbn-bench check logit-matching ")

    def said(line: str, *more: str) -> str:
        code, out, error = dbn_bench(*words_of(line), *more)
        assert code == 0, (line, error)
        return out

    assert "Nothing is left to train." in said(run, "--dry-run")
    plan, store = load_plan("cifar10-cpu", Path("results/store"), None, None, None)
    arrays = store.arrays("predictions", next(c.predictions for c in plan.cells if c.label == "ED (from source)"))
    np.savez("mine.npz", test=arrays["test"], labels=arrays["test_labels"])
    assert "Deep-ensemble equivalent, raw: 1.9" in said(score)
    assert f"and {plan.suite.repetitions} parts" in said(join, "--dry-run")


def use_own_predictions(dbn_bench: DbnBench) -> None:
    """Every line of that section, with the suite above in the place of ``digits``."""
    store = Store("results/store")
    plan = plan_suite(load_suite("mine.toml"), store)
    arrays = store.arrays("predictions", next(c.predictions for c in plan.cells if c.label == "DE" and c.size == 2))
    np.save("labels.npy", arrays["test_labels"])
    np.savez("mimo.npz", arrays["test"])
    np.savez("other.npz", arrays["test"][:1])
    (block,) = [text for text in blocks("sh") if "mimo.npz" in text]
    block = block.replace("--suite digits", "--suite mine.toml").replace("\\\n", " ")
    lines = [line for line in block.splitlines() if line and not line.startswith("#")]
    lines = [line.replace('"DE@3"', '"DE@2"') for line in lines]  # the suite above has two members
    assert len(lines) == 4
    for line in lines:
        assert dbn_bench(*words_of(line)).code == 0, line
    assert "MIMO (JAX)" in Path("reports/runs/mine/report.md").read_text()


def test_the_options_and_commands_that_are_named_exist() -> None:
    known = dict(typer.main.get_command(application()).commands.items())  # type: ignore[attr-defined]
    text = README + GUIDE
    named = set(re.findall(r"`dbn-bench (?!--)([a-z]+)", text)) | set(re.findall(r"^dbn-bench ([a-z]+)", text, re.M))
    assert {"run", "score", "compare", "simulate", "store", "check"} <= named <= set(known)
    every = [*known.values(), *(inner for group in known.values() for inner in getattr(group, "commands", {}).values())]
    options = {option for command in every for parameter in command.params for option in parameter.opts}
    options |= {"--install-completion"}
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= options


def test_the_simulation_that_is_named_runs(dbn_bench: DbnBench) -> None:
    (line,) = re.findall(r"`(dbn-bench simulate SUITE [^`]*)`", GUIDE)
    assert "Bottleneck" in dbn_bench(*words_of(line.replace("SUITE", "digits"))).out


def test_the_data_tables_are_valid() -> None:
    tables = [tomllib.loads(text)["data"] for text in blocks("toml")]
    assert {table["source"] for table in tables} == {"parquet", "folder"}
    for table in tables:
        SOURCES[table["source"]].model_validate(table)
