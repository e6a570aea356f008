"""``dbn-bench check`` over plugins: its sentences and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.cli import main

PLUGIN = '''
from dbn_core import Method, Mixture, register

@register("mine")
class Mine(Method):
    """One member."""
    reference = "Author, 2000"
    {constructor}
    def members(self, size): return (0,)
    def predictor(self, size, context): return {predictor}
'''


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("constructor", "predictor", "code", "words"),
    [
        ("title = 'Mine'", "Mixture([context.members[0]])", 0, "keeps the contract"),
        ("title = 'Mine'", "undefined", 1, "NameError: name 'undefined' is not defined"),
        ("def __init__(self): pass", "None", 1, "let __init__ take the config alone"),
    ],
    ids=["good", "crashes", "cannot be built"],
)
def test_the_command_ends_in_sentences_and_the_right_code(
    tmp_path: Any, monkeypatch: Any, capfd: Any, constructor: str, predictor: str, code: int, words: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.replace("{constructor}", constructor).replace("{predictor}", predictor))
    monkeypatch.setattr(sys, "argv", ["dbn-bench", "check", "mine", "--plugin", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    shown = "".join(capfd.readouterr())
    assert (end.value.code or 0) == code, shown
    assert words in shown
    assert "Traceback" not in shown
