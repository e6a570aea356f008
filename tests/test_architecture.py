"""The layout that the packages promise: who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "dbn_core": {"dbn_core"},
    "baselines": {"dbn_core", "baselines"},
    "benchmarks": {"dbn_core", "baselines", "benchmarks"},
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        foreign = (imported(file) & set(ALLOWED)) - ALLOWED[package]
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


@pytest.mark.parametrize(
    "code",
    [
        "from dbn_core.registry import methods; methods()",
        "from benchmarks.suite.schema import load_suite; load_suite('digits').entries()",
        "import benchmarks.results.rows, benchmarks.report, benchmarks.cli",
    ],
    ids=["registry", "suite", "report"],
)
def test_listing_planning_and_reporting_do_not_import_torch(code: str) -> None:
    program = f"{code}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
