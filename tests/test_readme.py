"""What the README shows is run as it stands."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.cli import main
from dbn_core.data import SOURCES

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


SUITE = """
title = "README"
repetitions = 2
bootstrap = 100
data = { source = "digits", test_fraction = 0.9 }
network = { name = "resnet8", channels = 4, width = 1.0 }
pool = { members = 2 }
recipe = { epochs = 1, batch_size = 32, crop_pad = 1 }
students = { epochs = 1 }
latency = { repeats = 3, batch_repeats = 3 }
methods = [{ use = "de", sizes = [1, 2] }, { use = "logit-matching", sizes = [2] }]
"""


@pytest.mark.usefixtures("clean_registry")
def test_the_example_baseline_keeps_the_contract_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    assert len(example.splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    Path("logit_matching.py").write_text(example)
    Path("mine.toml").write_text(SUITE)
    for words in (
        ["check", "logit-matching", "--plugin", "logit_matching.py"],
        ["run", "mine.toml", "--plugin", "logit_matching.py", "--jobs", "0"],
    ):
        monkeypatch.setattr(sys, "argv", ["dbn-bench", *words])
        code = exit_code()
        assert code == 0, capsys.readouterr()
    assert "Logit matching" in Path("reports/mine/report.md").read_text()


def exit_code() -> int:
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_data_tables_are_valid() -> None:
    tables = [tomllib.loads(text)["data"] for text in blocks("toml")]
    assert {table["source"] for table in tables} == {"parquet", "folder"}
    for table in tables:
        SOURCES[table["source"]].model_validate(table)


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).resolve().parent.parent / link).exists(), link
