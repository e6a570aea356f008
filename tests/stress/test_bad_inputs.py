"""Suites, specs, options and plugins that are wrong: a sentence, and no file is touched; never a traceback."""

from __future__ import annotations

import string
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cli
from tests.stress.asking import Box, answered, ask, judge, sandbox, tries
from tests.stress.figures import Tally
from tests.stress.mutations import JUNK, TEXTS, damaged, scrambled, toml

SUITE = """
name = "tiny"
title = "Tiny"
seed = 0
repetitions = 2
[data]
source = "digits"
test_fraction = 0.9
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 3
sharing = "independent"
[recipe]
epochs = 2
batch_size = 32
lr = 0.1
crop_pad = 1
[students]
epochs = 2
teachers = "online"
[latency]
batch = 8
[[methods]]
use = "de"
sizes = [1, 2, 3]
label = "DE"
[[methods]]
use = "dbn[split_at=block2]"
sizes = [3]
options = { score_network = "mini", lr = 0.003, distill = true }
"""
TREE = tomllib.loads(SUITE)
SPECS = ("dbn[steps=5,bridges=2]", "bn[split_at=block2,width=0.5]", "ed[tau=4.0]", "end2", "single", "direct[loss=kl]")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run counts work but times no network: a damaged suite may ask for one of any size."""

    def refuse(*args: Any) -> None:
        raise RuntimeError("no timing in tests")

    monkeypatch.setattr("benchmarks.work.estimate.seconds_per_pass", refuse)


def plan(box: Box, dry_run: bool, *more: str) -> list[str]:
    """Words of a command that plans ``suite.toml`` and trains nothing."""
    command = ["run", "suite.toml", "--dry-run"] if dry_run else ["status", "suite.toml"]
    return [*command, "--store", str(box.store), *more]


# Suites


@tries(500, 8)
@given(tree=damaged(TREE), dry_run=st.booleans())
def test_suites_with_wrong_keys_and_values(tally: Tally, tree: dict[str, Any], dry_run: bool) -> None:
    with sandbox() as box:
        box.file("suite.toml", toml(tree))
        answered(tally, box, plan(box, dry_run))


@tries(250, 6)
@given(content=scrambled(SUITE.encode()))
def test_suites_that_are_no_toml(tally: Tally, content: bytes) -> None:
    with sandbox() as box:
        box.file("suite.toml", content)
        answered(tally, box, plan(box, False))


@tries(60, 4)
@given(
    name=st.one_of(TEXTS.filter(lambda text: "\x00" not in text and not text.startswith("-")), st.just("x" * 300)),
    kind=st.sampled_from(["missing", "folder", "loop", "empty"]),
)
def test_suite_files_that_are_none(tally: Tally, name: str, kind: str) -> None:
    with sandbox() as box:
        if kind == "folder":
            (box.cwd / "suite.toml").mkdir()
        elif kind == "loop":
            (box.cwd / "suite.toml").symlink_to("suite.toml")
        elif kind == "empty":
            box.file("suite.toml", "")
        chosen = f"{name}.toml" if kind == "missing" else "suite.toml"
        answered(tally, box, ["status", chosen, "--store", box.store], refused=True)


def shown(value: Any) -> str:
    """As people type a value."""
    return hex(value)[:60] if isinstance(value, int) else str(value)[:60]


KEYS = ["seed", "pool.members", "data.root", "data.source", "recipe.lr", "methods", "methods.0.use", "a.b", ".", ""]


@tries(200, 4)
@given(
    key=st.one_of(st.sampled_from(KEYS), TEXTS),
    value=st.one_of(TEXTS, JUNK.map(shown), st.sampled_from(["[" * 3000, "0x" + "f" * 5000, "9" * 5000])),
)
def test_keys_set_on_the_command_line(tally: Tally, key: str, value: str) -> None:
    with sandbox() as box:
        box.file("suite.toml", SUITE)
        answered(tally, box, plan(box, False, "--set", f"{key}={value}".replace("\x00", "")))


# Specs and options


@st.composite
def bad_specs(draw: st.DrawFn) -> str:
    spec = draw(st.sampled_from(SPECS))
    alphabet = string.ascii_letters + string.digits + "[]=,.-_ \n\t'\"\\é\x1b"
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(spec)))
        new = st.one_of(
            st.text(alphabet, max_size=4), st.sampled_from(["[" * 2000, "=" * 50, ",steps=1e999", "9" * 5000])
        )
        spec = spec[:at] + draw(new) + spec[at + draw(st.integers(0, 3)) :]
    return spec


@tries(250, 6)
@given(spec=bad_specs())
def test_specs(tally: Tally, spec: str) -> None:
    with sandbox() as box:
        answered(tally, box, ["show", "--", spec])


OPTIONS = ("--only", "--max-time", "--executor", "--device", "--jobs", "--threads", "--tensorboard", "--data-root")


@tries(200, 6)
@given(option=st.sampled_from(OPTIONS), value=st.one_of(TEXTS, JUNK.map(shown)))
def test_options_of_a_run(tally: Tally, option: str, value: str) -> None:
    with sandbox() as box:
        box.file("suite.toml", SUITE)
        answered(tally, box, plan(box, True, f"{option}={value}".replace("\x00", "")))


BODIES = [
    "def check_size(self, size): raise ValueError('no')",
    "def check_size(self): pass",
    "def parts(self, size): return None",
    "def parts(self, size): return ['part']",
    "def parts(self, size): return [Part('p', members=(-1,))]",
    "def parts(self, size): return [Part('p', needs=('q',))]",
    "def parts(self, size): return [Part('p', settings={1: {2}})]",
    "def members(self, size): return 'ab'",
    "def members(self, size): raise KeyError(size)",
    "def members(self, size): return size",
    "nested = True\n    def terms(self, size): return None",
    "title = 5",
    "reference = None",
    "def summary(self): return 1",
    "class Config(Method.Config):\n        x: int = 'y'",
    "class Config(Method.Config):\n        x: int",
    "Config = dict",
    "def __init__(self): pass",
    "def __init__(self, config): 1 / 0",
]
STATEMENTS = [
    *("1 / 0", "raise SystemExit(3)", "import nowhere", "f = lambda: f()\nf()", "raise BaseException('x\\ny')"),
    *("import os; os.nowhere", "\x00", "\xff", "\t\n  x = 1", "assert False", "raise UnicodeDecodeError", ""),
    *("def f(", "register('de')(object)", "register('X y')", "register('mine')(5)", "register(5)(Method)"),
]


@tries(150, 4)
@given(
    body=st.sampled_from(BODIES),
    statement=st.one_of(st.just(""), st.sampled_from(STATEMENTS)),
    before=st.booleans(),
    command=st.sampled_from(["list", "show", "status"]),
)
def test_plugins(tally: Tally, body: str, statement: str, before: bool, command: str) -> None:
    method = f"@register('mine')\nclass Mine(Method):\n    {body}\n    def predictor(self, size, context): pass\n"
    pieces = [statement, method] if before else [method, statement]
    text = "from dbn_core import Method, Part, register\n" + "\n".join(pieces)
    with sandbox() as box:
        box.file("suite.toml", SUITE.replace('"dbn[split_at=block2]"', '"mine"').replace("options = ", "# "))
        box.file("plugin.py", text.encode("latin-1"))
        words = {"list": ["list"], "show": ["show", "mine"], "status": plan(box, False)}[command]
        answered(tally, box, [*words, "--plugin", "plugin.py"])


# The judge can fail


def test_a_traceback_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbn_core.methods.registry.parse_method", lambda name: {}[name])
    tried: list[tuple[int, int]] = []
    with sandbox() as box, pytest.raises(AssertionError, match="KeyError: 'dbn'"):
        answered(lambda what, good=1, of=1: tried.append((good, of)), box, ["show", "dbn"])
    assert tried == [(False, 1)]


def test_files_and_silence_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox() as box:
        good = ask("show", "nosuch")
        assert good.code == 1
        assert not judge(good, {}, {}, ["nosuch"], refused=True)
        assert "names none" in judge(good, {}, {}, ["other"])
        assert "files changed" in judge(good, {}, {"store/x": b""})
        assert "accepted" in judge(ask("show", "de"), {}, {}, refused=True)
        monkeypatch.setattr(cli, "application", lambda *_: lambda: exit(1))
        assert "no sentence" in judge(ask("show"), box.contents(), box.contents())
