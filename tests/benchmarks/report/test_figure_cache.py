"""Figures that stand are left alone; what is missing, altered or out of date is drawn again."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from benchmarks.report import render
from benchmarks.report.figures import cache
from benchmarks.report.figures.figures import FIGURES, RC, save_figure
from benchmarks.report.figures.style import styles
from benchmarks.report.load import read_results
from dbn_core.errors import StoreError
from tests.benchmarks.report.made_up import METHODS, change_meta, write_results

ROWS = Path(__file__).resolve().parents[3] / "results/reference/digits-views"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "out"
    render(ROWS, folder)
    for path in files(folder):  # long ago, so that whatever is written later shows
        os.utime(path, (1, 1))
    return folder


@pytest.fixture
def report(rendered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(rendered, tmp_path / "out")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def touched(folder: Path) -> set[str]:
    return {path.name for path in files(folder) if path.stat().st_mtime != 1}


def same_bytes(first: Path, second: Path) -> bool:
    names = [path.relative_to(first) for path in files(first)]
    return names == [path.relative_to(second) for path in files(second)] and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )


def test_an_unchanged_report_is_not_touched(report: Path, rendered: Path) -> None:
    written = render(ROWS, report)
    assert {*written} | {report / cache.CACHE} == {*files(report)}
    assert not touched(report)
    assert same_bytes(report, rendered)


@pytest.mark.parametrize(
    ("name", "harm"),
    [("figures/reliability.png", "deleted"), ("figures/acc_vs_size.pdf", "damaged"), ("report.html", "damaged")],
)
def test_what_is_deleted_or_damaged_is_made_again_alone(report: Path, rendered: Path, name: str, harm: str) -> None:
    path = report / name
    if harm == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    render(ROWS, report)
    assert same_bytes(report, rendered)
    assert path.name in touched(report)
    assert touched(report) <= {path.with_suffix(end).name for end in (".png", ".pdf", ".html")}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within it no file can grow beyond ``size`` bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def with_another_number(folder: Path) -> Path:
    text = (folder / "rows.csv").read_text()
    first = next(line for line in text.splitlines() if ",acc," in line)
    (folder / "rows.csv").write_text(text.replace(first, first.rpartition(",")[0] + ",0.5", 1))
    return folder


@pytest.mark.parametrize("full", ["tables/main.csv", "report.html"])
def test_a_full_disk_leaves_every_file_old_or_new(report: Path, tmp_path: Path, full: str) -> None:
    rows = with_another_number(shutil.copytree(ROWS, tmp_path / "rows"))
    change_meta(rows, description="Another description.")
    if full.startswith("tables"):
        summary = (rows / "summary.csv").read_text()
        (rows / "summary.csv").write_text(summary.replace(",best", ",tied"))
    old = {path.relative_to(report): path.read_bytes() for path in files(report)}
    with (
        largest_file(len(old[Path(full)]) - 1000),
        pytest.raises(StoreError, match=f"Cannot write .*{Path(full).name}"),
    ):
        render(rows, report)
    left = {path.relative_to(report): path.read_bytes() for path in files(report)}
    render(rows, report)
    assert left.keys() == old.keys()
    assert all(content in (old[name], (report / name).read_bytes()) for name, content in left.items())


def test_a_figure_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"old")
    figure = Figure()
    figure.subplots()
    with largest_file(1000), pytest.raises(StoreError, match=r"Cannot write .*one\.png"):
        save_figure(figure, tmp_path, "one")
    assert {path.name: path.read_bytes() for path in files(tmp_path)} == {"one.png": b"old"}


def in_a_process(code: str, cores: int) -> str:
    """What a process prints that has no other threads."""
    # Nothing here draws: without Matplotlib the process starts at once.
    begin = "import sys, types\nsys.modules['benchmarks.report.figures.figures'] = types.ModuleType('figures')\n"
    begin += f"import os\nos.cpu_count = lambda: {cores}\nfrom pathlib import Path\n"
    ran = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=True)
    assert not ran.stderr
    return ran.stdout


def test_figures_have_the_same_bytes_whenever_they_are_drawn(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "rows", METHODS[:13]))
    for folder, names in (
        ("a", ["acc_vs_size", "reliability", "dee_vs_flops"]),
        ("b", ["dee_vs_flops", "acc_vs_size"]),
    ):
        with matplotlib.rc_context(RC):
            for name in names:
                save_figure(FIGURES[name](results, styles(results)), tmp_path / folder, name)
    for path in files(tmp_path / "b"):
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name
        assert b"CreationDate" not in path.read_bytes()


def test_what_a_fork_did_not_draw_is_drawn_in_its_place(tmp_path: Path) -> None:
    code = f"""
from benchmarks.report.figures import cache
folder, parent = Path({str(tmp_path)!r}), os.getpid()
def draw(names):
    if os.getpid() != parent and "b" in names:
        os._exit(9)
    for name in names:
        for end in ("png", "pdf"):
            (folder / "figures" / f"{{name}}.{{end}}").write_text(f"{{name}} {{os.getpid() == parent}}")
drawn = cache.draw_missing(folder, ["a", "b", "c"], "key", draw)
print([drawn[name][f"{{name}}.png"].decode() for name in "abc"])
"""
    serial = sys.platform != "linux"
    assert in_a_process(code, cores=3) == f"{['a True', 'b True', f'c {serial}']}\n"


def test_a_damaged_cache_is_none(report: Path, rendered: Path) -> None:
    for content in ("", "[[]]", '{"figures": 3}'):
        (report / cache.CACHE).write_text(content)
        render(ROWS, report)
        assert same_bytes(report, rendered), content


def test_other_numbers_are_drawn_and_a_later_date_is_not(report: Path, tmp_path: Path) -> None:
    rows = change_meta(shutil.copytree(ROWS, tmp_path / "rows"), date="2001-01-01", seconds=7, made=3)
    render(rows, report)
    assert touched(report) == {"report.html", "report.md"}
    render(with_another_number(rows), report)
    assert "acc_vs_size.png" in touched(report)


@pytest.mark.parametrize("what", ["package", "code"])
def test_other_code_draws_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    room = shutil.copytree(
        Path(cache.__file__).parents[1], tmp_path / "report", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(cache, "__file__", str(room / "figures/cache.py"))
    before = cache.key_of(["matplotlib"], b"numbers")
    assert cache.key_of(["matplotlib"], b"numbers") == before
    if what == "package":
        monkeypatch.setattr(cache, "version", lambda package: "0")
    else:
        (room / "figures/dee.py").write_bytes((room / "figures/dee.py").read_bytes() + b"\n")
    assert cache.key_of(["matplotlib"], b"numbers") != before


def test_a_report_that_stands_needs_no_matplotlib(report: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from benchmarks.report import render
from benchmarks.report.page import explorer
explorer.chart_html = lambda results: '<div id="explore-figure"></div>'
render(Path({str(ROWS)!r}), Path({str(report)!r}))
assert not {{'matplotlib', 'seaborn', 'scipy', 'torch'}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not touched(report)
