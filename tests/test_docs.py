"""The documentation: its example runs, and its generated pages are complete.  `tox -e docs` builds the site."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.suite.builtin import available
from benchmarks.suite.draft import Choices, draft
from dbn_core.methods.registry import methods
from dbn_core.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]


def imported(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _what_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what other tests of this process register."""
    for table in TABLES:
        own = {
            name: entry
            for name, entry in table.entries.items()
            if (entry if isinstance(entry, str) else entry.__module__).startswith(("dbn_core", "baselines"))
        }
        monkeypatch.setattr(table, "entries", own)


def test_every_key_of_a_suite_file_has_a_type_and_a_meaning() -> None:
    page = imported("docs/generate.py").suite_page()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", page, re.M)
    assert {"repetitions", "validation_fraction", "width", "members", "lr", "epochs", "batch", "use", "varied"} <= {
        name for name, *_ in rows
    }
    assert [name for name, *cells in rows if not all(cells)] == []
    assert '| `sharing` | `"independent"` or `"shared"` | `"independent"` |' in page


def test_the_lists_name_every_method_suite_and_command() -> None:
    generate = imported("docs/generate.py")
    assert set(re.findall(r"^### ([\w-]+) ", generate.methods_page(), re.M)) == set(methods())
    assert set(re.findall(r"^## ([\w-]+)$", generate.suites_page(), re.M)) == set(available())
    assert {"run", "score", "store gc"} <= set(re.findall(r"^## (.*)$", generate.commands_page(), re.M))


def test_every_linked_file_exists_or_is_generated() -> None:
    made = imported("docs/generate.py").REFERENCES
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert link in made or (page.parent / link).exists(), (page.name, link)


def test_the_site_has_the_script_of_the_leaderboard_and_fetches_nothing() -> None:
    [name] = re.findall(r"^extra_javascript: \[(.*)\]$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    script = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|import|fetch", script)
    heads = re.findall(r"^\| Method .*", (ROOT / "reports/README.md").read_text(encoding="utf-8"), re.M)
    [marks] = re.findall(r'includes\("([^"]+)"\)', script)
    assert heads
    assert all(marks in head for head in heads)


def test_the_page_on_distillation_shows_what_new_writes() -> None:
    page = (ROOT / "docs" / "distil.md").read_text(encoding="utf-8")
    [shown] = tomllib.loads("\n".join(re.findall(r"^```toml\n(.*?)```", page, re.M | re.DOTALL)))["methods"]
    assert shown in draft(Choices("mine", "torchvision:resnet18", {"source": "folder"}, 8, 30))["methods"]


@pytest.mark.slow
def test_the_example_trains_an_ensemble_a_student_and_a_bridge(capsys: pytest.CaptureFixture[str]) -> None:
    assert len((ROOT / "examples" / "train_dbn.py").read_text(encoding="utf-8").splitlines()) <= 150
    imported("examples/train_dbn.py").main()
    rows = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]
    accuracy = {name: float(value) for name, value, _ in rows}
    nll = {name: float(value) for name, _, value in rows}
    members = [nll[f"member {number}"] for number in (1, 2, 3)]
    assert nll["DE-3"] < min(members)
    assert nll["DBN, 1 step"] < max(members)
    assert abs(nll["DBN, 1 step"] - nll["DBN, 5 steps"]) < 0.05
    assert min(accuracy.values()) > 85
