"""Where commands write: what a user runs goes to ignored folders, committed ones are written only when asked for."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cli import application
from benchmarks.commands.common import command_line, output_dirs
from dbn_core.errors import SpecError
from tests.support.tiny import DE, HEAD

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ("results/reference/tiny", "reports/tiny")


def test_a_run_writes_where_git_looks_away_and_says_how_to_open_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(HEAD + DE, encoding="utf-8")
    shutil.copy(ROOT / ".gitignore", ".gitignore")
    subprocess.run(["git", "init", "-q"], check=True)
    said = CliRunner().invoke(application(), ["run", "tiny.toml", "--jobs=0", "--device=cpu"])
    assert said.exit_code == 0, said.output
    changed = subprocess.run(["git", "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True)
    assert changed.stdout.split() == ["??", ".gitignore", "??", "tiny.toml"]
    report = Path("reports/runs/tiny/report.html").resolve()
    assert report.is_file()
    assert said.output.rstrip().endswith(report.as_uri())

    again = CliRunner().invoke(application(), ["report", "tiny"])
    assert again.exit_code == 0, again.output
    assert not any(Path(place).exists() for place in COMMITTED)
    refused = CliRunner().invoke(application(), ["report", "tiny", "--publish"])
    assert "no result rows in 'results/reference/tiny'" in str(refused.exception)

    published = CliRunner().invoke(application(), ["run", "tiny.toml", "--jobs=0", "--device=cpu", "--publish"])
    assert published.exit_code == 0, published.output
    assert all(Path(place).is_dir() for place in COMMITTED)
    assert "dbn-bench report tiny\n" in Path("reports/tiny/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", [["--store", "/mine/store"], ["--store=/mine/store"], []])
def test_what_is_published_does_not_say_where_the_store_was(monkeypatch: pytest.MonkeyPatch, place: list[str]) -> None:
    words = ["/somewhere/bin/dbn-bench", "run", "digits", *place, "--set", "data.train_limit=4"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line(publish=True) == "dbn-bench run digits --set data.train_limit=4"
    assert command_line() == shlex.join(["dbn-bench", *words[1:]])


def test_what_is_committed_names_no_place_of_a_machine() -> None:
    for meta in (ROOT / "results/reference").glob("*/meta.json"):
        command = json.loads(meta.read_text(encoding="utf-8"))["command"]
        assert not [word for word in shlex.split(command) if Path(word.split("=")[-1]).is_absolute()], meta


def test_publishing_to_a_folder_of_ones_own_is_refused() -> None:
    with pytest.raises(SpecError, match="drop --rows and --reports"):
        output_dirs("digits", Path("mine"), None, True)
