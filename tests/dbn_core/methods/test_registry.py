from __future__ import annotations

from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbn_core.errors import PluginError, SpecError
from dbn_core.methods.registry import (
    ENTRY_POINT_GROUP,
    canonical,
    load_plugin,
    load_same,
    loaded,
    methods,
    parse_method,
    plugin_of,
)

PLUGIN = """
from dbn_core import Config, Mixture, Method, register

@register("{name}")
class Mine(Method):
    \"\"\"One member.\"\"\"
    def members(self, size): return (0,)
    def predictor(self, size, context): return Mixture([context.members[0]])
"""


def plugin(folder: Path, name: str = "mine", text: str = PLUGIN) -> Path:
    file = folder / "plugin.py"
    file.write_text(text.replace("{name}", name))
    return file


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        ("dbn", "dbn"),
        ("dbn[]", "dbn"),
        ("dbn[steps=5]", "dbn"),  # a default is left out
        (" dbn[ steps = 3 , members_per_bridge=5]", "dbn[members_per_bridge=5,steps=3]"),
        ("dbn[preset=paper]", "dbn[preset=paper]"),
        ("dbn[preset=paper,ema=reversed]", "dbn[preset=paper]"),  # what the preset says anyway
        ("dbn[ema=standard]", "dbn"),
        ("dbn[ema=reversed]", "dbn[ema=reversed]"),
        ("dbn[distill=no]", "dbn[distill=false]"),
        ("dbn[lr=0.00050]", "dbn[lr=0.0005]"),
    ],
)
def test_specs_with_one_meaning_have_one_form(spec: str, form: str) -> None:
    assert canonical(parse_method(spec)) == form
    assert canonical(parse_method(form)) == form


@given(
    steps=st.integers(1, 30),
    lr=st.floats(1e-6, 1.0),
    preset=st.sampled_from(["paper", "fixed"]),
    distill=st.booleans(),
    sees_state=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_the_canonical_form_means_the_method(
    steps: int, lr: float, preset: str, distill: bool, sees_state: bool
) -> None:
    options = {"steps": steps, "lr": lr, "preset": preset, "distill": distill, "sees_state": sees_state}
    method = parse_method("dbn", options)
    assert parse_method(canonical(method)).config == method.config


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dnb", ["Unknown method 'dnb'", "'dbn'"]),
        ("dbn[step=5]", ["no option 'step'", "'steps'"]),
        ("dbn[steps=many]", ["'steps'", "'many'"]),
        ("dbn[steps]", ["option=value"]),
        ("dbn[steps=1,steps=2]", ["twice"]),
        ("dbn[", ["malformed"]),
        ("", ["malformed"]),
        ("dbn[preset=papre]", ["preset", "papre"]),
    ],
)
def test_a_wrong_spec_is_named_with_its_remedy(spec: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_method(spec)
    for word in words:
        assert word in str(caught.value)


@given(st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_text_is_more_than_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        parse_method(text)


@pytest.mark.usefixtures("clean_registry")
def test_a_plugin_file_becomes_a_method(tmp_path: Path) -> None:
    load_plugin(plugin(tmp_path))
    assert canonical(parse_method("mine")) == "mine"
    load_plugin(tmp_path / "plugin.py")  # a second time changes nothing


EDITED = PLUGIN.replace("    def members", "    version = 2\n    def members")


@pytest.mark.usefixtures("clean_registry")
def test_an_edited_plugin_file_is_imported_again(tmp_path: Path) -> None:
    file = plugin(tmp_path, text=PLUGIN + "    value = 1\n")
    load_plugin(file)
    first = plugin_of("mine")
    plugin(tmp_path, text=PLUGIN + "    value = 2\n")  # of the same size, in the same second
    load_plugin(file)
    assert methods()["mine"].value == 2  # type: ignore[attr-defined]
    assert plugin_of("mine") != first
    plugin(tmp_path, text=PLUGIN.replace("{name}", "other"))
    load_plugin(file)
    assert "other" in methods()
    assert "mine" not in methods()


@pytest.mark.usefixtures("clean_registry")
def test_a_plugin_file_that_is_mended_is_imported(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="NameError"):
        load_plugin(plugin(tmp_path, text=PLUGIN + "nothing_of_this_name\n"))
    assert "mine" not in methods()
    load_plugin(plugin(tmp_path))
    assert "mine" in methods()


@pytest.mark.usefixtures("clean_registry")
def test_another_process_must_find_the_same_plugin_file(tmp_path: Path) -> None:
    file = plugin(tmp_path)
    wanted = loaded([file])
    load_same(wanted)
    assert set(wanted) >= {"dbn-bench", str(file)}
    plugin(tmp_path, text=EDITED)
    load_same(wanted)  # what is imported is what was wanted
    assert methods()["mine"].version == 1
    load_plugin(file)
    assert methods()["mine"].version == 2
    with pytest.raises(PluginError, match=r"plugin\.py' on .* is not the one that the run began with"):
        load_same(wanted)


def test_another_process_must_have_the_same_version() -> None:
    wanted = loaded()
    load_same(wanted | {"not installed here": "1.0"})
    with pytest.raises(PluginError, match=r"has imported dbn-bench .* and the run dbn-bench 0\.0\.1: install the same"):
        load_same(wanted | {"dbn-bench": "dbn-bench 0.0.1"})


@pytest.mark.usefixtures("clean_registry")
def test_a_plugin_file_inherits_no_future_of_ours(tmp_path: Path) -> None:
    load_plugin(plugin(tmp_path, text=PLUGIN + "    def other(self, size: int): ...\n"))
    assert methods()["mine"].other.__annotations__ == {"size": int}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("clean_registry")
def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="already taken by baselines"):
        load_plugin(plugin(tmp_path, "dbn"))


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "registers no method"),
        ("raise SystemExit(3)", "SystemExit"),
        (PLUGIN.replace("(Method)", ""), "not a subclass of dbn_core.Method"),
        (PLUGIN.replace('@register("{name}")', "@register"), r"write @register\('my-method'\)"),
        (PLUGIN + "    class Config: x = 1\n", "not a subclass of dbn_core.Config"),
        (PLUGIN.replace("(Method):", "(Method):\n    class Config(Config): x: int"), "option 'x' has no default"),
    ],
)
def test_a_broken_plugin_is_shown(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        load_plugin(plugin(tmp_path, text=text))


@pytest.mark.usefixtures("clean_registry")
def test_a_constructor_that_fails_is_one_sentence(tmp_path: Path) -> None:
    load_plugin(plugin(tmp_path, text=PLUGIN + "    def __init__(self): pass\n"))
    with pytest.raises(PluginError, match="let __init__ take the config alone"):
        parse_method("mine")


@pytest.mark.usefixtures("clean_registry")
def test_an_entry_point_without_a_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = EntryPoint("empty", "wave", ENTRY_POINT_GROUP)  # a module that registers nothing
    monkeypatch.setattr("dbn_core.methods.registry.entry_points", lambda group: [empty])
    with pytest.raises(PluginError, match=r"Entry point 'empty' \(wave\) registers no method"):
        methods()
