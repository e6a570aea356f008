from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.suite.builtin import available
from benchmarks.suite.load import load_suite
from dbn_core.errors import BenchError, SpecError

GOOD = """
title = "T"
[data]
source = "digits"
[network]
name = "resnet8"
[pool]
members = 4
[recipe]
epochs = 2
[students]
epochs = 2
[[methods]]
use = "de"
sizes = [1, 2]
"""


def load(folder: Path, text: str):
    file = folder / "mine.toml"
    file.write_text(text)
    suite = load_suite(str(file))
    suite.entries()
    return suite


def test_every_built_in_suite_is_valid() -> None:
    assert {"digits", "smoke"} <= set(available())
    for name in available():
        assert load_suite(name).entries()


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    suite = load(tmp_path, GOOD)
    assert suite.name == "mine"
    assert suite.methods[0].sizes == (1, 2)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sizes = [1, 2]", "sizes = [1, 2]\n[[methods]]\nuse = 'ed'\nsizes = [2]\nrepetitions = { 3 = 1 }", ["size 3"]),
        ('title = "T"', 'tilte = "T"', ["'tilte'", "'title'"]),
        ('title = "T"', 'title = "T"\nbootstrap = 100', ["unknown key 'bootstrap'", "the top level"]),
        ("epochs = 2\n[students]", "epoch = 2\n[students]", ["'epoch'", "[recipe]", "'epochs'"]),
        ('source = "digits"', 'source = "digit"', ["data source 'digit'", "'digits'"]),
        ('source = "digits"', "", ["needs a source"]),
        ('"resnet8"', '"resnet9"', ["resnet9", "6n+2"]),
        ("members = 4", "members = 1", ["needs 2 members", "has 1"]),
        ('use = "de"', 'use = "dee"', ["'dee'", "'de'"]),
        ('use = "de"', 'use = "dbn"', ["members_per_bridge"]),
        ('use = "de"', 'use = "de"\ncontrol = true', ["'de'", "reference", "control = true"]),
        ('use = "de"', 'use = "de"\noption = {}', ["'option'", "'options'"]),
        ('use = "de"', 'use = "ed"\noptions = { tua = 1 }', ["'tua'", "'tau'"]),
        ("sizes = [1, 2]", "sizes = []", ["sizes"]),
        ('title = "T"', "title = T", ["TOML"]),
        ('title = "T"', r'title = "\u001b[31mT"', ["'title'", "do not print"]),
        ('use = "de"', 'use = "de"\nlabel = "D\\u202eE"', ["label", "do not print"]),
        ("[[methods]]", '[[methods]]\nuse = "de"\nsizes = [3]\n[[methods]]', ["twice"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_remedy(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(SpecError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(SpecError, match="did you mean 'digits'"):
        load_suite("digit")
    with pytest.raises(SpecError, match="does not exist"):
        load_suite("nowhere/mine.toml")


def test_overrides_change_one_key(tmp_path: Path) -> None:
    assert load_suite("digits", {"repetitions": 7, "recipe.epochs": 3}).recipe.epochs == 3
    with pytest.raises(SpecError, match="'epochz'"):
        load_suite("digits", {"recipe.epochz": 3})
    with pytest.raises(SpecError, match="not a table"):
        load_suite("digits", {"title.epochs": 3})


@given(st.integers(0, len(GOOD)), st.text(max_size=12), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_no_damage_to_a_suite_is_more_than_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, at: int, text: str, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "mine.toml").write_bytes((GOOD[:at] + text + GOOD[at + cut :]).encode("utf-8", "surrogatepass"))
    with suppress(BenchError):
        load_suite(str(folder / "mine.toml")).entries()


@pytest.mark.parametrize(("computes", "precision"), [(True, "bf16"), (False, "fp32"), (None, "fp32")])
def test_auto_is_bf16_where_the_processor_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computes: bool | None, precision: str
) -> None:
    text = GOOD.replace("epochs = 2", 'epochs = 2\nprecision = "auto"').replace("use =", 'precision = "auto"\nuse =')
    monkeypatch.setattr("benchmarks.suite.load.computes_bf16", lambda: computes)
    suite = load(tmp_path, text)
    # Nothing is left of it, so that keys are those of the precision that is meant.
    assert suite == load(tmp_path, text.replace("auto", precision))
    assert suite.recipe.precision == suite.students.precision == suite.methods[0].precision == precision
