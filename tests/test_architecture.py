"""The layout that the packages promise: who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import typer

from benchmarks.cli import COMMANDS, application
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.work.planning import plan_suite

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dbn_core", "baselines", "benchmarks")  # each may import those before it
# The rooms of the harness; each may import those of the levels before its own.
LEVELS = (
    {"entries", "environment", "published", "statistics"},
    {"suite"},
    {"store"},
    {"work", "results", "report"},
    {"claims", "contract", "export"},
    {"run"},
    {"commands"},
    {"cli", "python"},
)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def imported(name: str) -> set[str]:
    """Our modules that a module imports: also inside its functions, for its types, and by a name in a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0])  # "module" or "module:Class"
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(MODULES)) or {node.module}
    return found & set(MODULES) - {name}


IMPORTS = {name: imported(name) for name in MODULES}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package: str) -> None:
    # The generative wing of the core is above the rest of it.
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    ours = [name for name in MODULES if name.split(".")[0] == package]
    assert ours
    assert not [(name, other) for name in ours for other in IMPORTS[name] if other.split(".")[0] in later]


def test_nothing_outside_the_generative_wing_imports_it() -> None:
    wing = ("dbn_core.generative", "baselines.generative")
    users = {
        (name, other)
        for name in MODULES
        for other in IMPORTS[name]
        if other.startswith(wing) and not name.startswith((*wing, "benchmarks.perf"))
    }
    assert users == {("baselines", "baselines.generative")}  # adds the wing's methods to the table


def test_every_room_of_the_harness_has_a_level_and_says_what_it_is_for() -> None:
    rooms = {name.split(".")[1] for name in MODULES if name.startswith("benchmarks.")} - {"perf"}
    assert rooms == set().union(*LEVELS)
    for room in rooms:
        text = ast.get_docstring(ast.parse(MODULES[f"benchmarks.{room}"].read_text(encoding="utf-8")))
        assert text, room
        if MODULES[f"benchmarks.{room}"].name == "__init__.py":
            assert "Change things here when" in text, room
            assert "Imports" in text, room


def test_rooms_of_the_harness_import_lower_levels_alone() -> None:
    level = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}
    for name in MODULES:
        _, *room = name.split(".")[:2]
        if not name.startswith("benchmarks.") or room == ["perf"]:
            continue
        for other in IMPORTS[name]:
            _, *its = other.split(".")[:2]
            if other.startswith("benchmarks.") and its != room:
                assert level[its[0]] < level[room[0]], f"{name} imports {other}"


def test_no_module_imports_itself_by_a_detour() -> None:
    # The public names of dbn_core, and of a report, stand in an __init__ that imports what is below it.
    graph = {name: {other for other in others if other in IMPORTS} for name, others in IMPORTS.items()}
    for name, file in MODULES.items():
        if file.name == "__init__.py":
            graph[name] = set()
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "code",
    [
        "from dbn_core.methods.registry import methods; methods()",
        "from benchmarks.suite.load import load_suite; load_suite('digits').entries()",
        "import benchmarks.results.rows, benchmarks.report, benchmarks.claims.page, benchmarks.cli; "
        "benchmarks.cli.application()",
    ],
    ids=["registry", "suite", "report"],
)
def test_listing_planning_and_reporting_do_not_import_torch(code: str) -> None:
    program = f"{code}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["list"], ["show", "dbn"], ["status", "paper"]], ids=" ".join)
def test_commands_that_look_up_import_no_more_than_they_need(words: list[str], tmp_path: Path) -> None:
    suite = (ROOT / "benchmarks/suites/smoke.toml").read_text(encoding="utf-8")
    (tmp_path / "paper.toml").write_text(suite, encoding="utf-8")
    if words[0] == "status":  # of a store that knows the data already
        words = ["status", str(tmp_path / "paper.toml"), "--store", str(tmp_path)]
        plan_suite(load_suite(str(tmp_path / "paper.toml")), Store(tmp_path))
    heavy = {"torch", "pandas", "matplotlib", "seaborn", "scipy", "sklearn", "numpy", "pyarrow", "filelock"}
    program = (
        f"import sys; sys.argv = ['dbn-bench', *{words!r}]\nfrom benchmarks.cli import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code, ended.code\n"
        f"print('imported:', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.endswith("imported: []\n"), done.stdout + done.stderr


def test_the_command_line_has_every_command_whichever_is_built() -> None:
    every = typer.main.get_command(application())
    assert list(every.commands) == list(COMMANDS)  # type: ignore[attr-defined]
    for name in COMMANDS:
        one = typer.main.get_command(application(name))
        assert list(one.commands) == [name]  # type: ignore[attr-defined]
        assert [p.name for p in one.commands[name].params] == [p.name for p in every.commands[name].params]  # type: ignore[attr-defined]


def test_no_two_public_classes_or_functions_have_one_name() -> None:
    """A command's function has the name of the command, which a function of the library may have as well."""
    places: dict[str, list[str]] = {}
    for name, file in MODULES.items():
        if not name.startswith(("benchmarks.commands", "benchmarks.perf")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
