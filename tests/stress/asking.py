"""Ask the real command line, in this process, and judge its answer to a bad input."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from benchmarks import cli
from tests.stress.figures import STRESS, Tally
from tests.support.registered import forgetting

BAD_INPUTS = "bad inputs refused in a sentence"
HARMLESS = "damaged inputs that proved harmless"
USAGE = 2  # exit code of typer: an option that does not exist, or a value that it does not take


@dataclass(frozen=True)
class Answer:
    """What one command said; ``crash`` is the traceback of whatever left ``main()``, nothing in a healthy program."""

    words: Sequence[str]
    code: int
    out: str
    err: str
    crash: str


@dataclass(frozen=True)
class Box:
    """A folder for one example: ``cwd``, where the command runs, and a store that does not exist yet."""

    root: Path

    @property
    def cwd(self) -> Path:
        return self.root / "cwd"

    @property
    def store(self) -> Path:
        return self.root / "store"

    def file(self, name: str, content: bytes | str) -> Path:
        """A file that the command is to read."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    def contents(self) -> dict[str, bytes]:
        """Every file of the box, but for the notes on data that a plan may keep, and what Python compiles."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and (self.store / "data") not in path.parents and path.suffix != ".pyc"
        }


def tries(full: int, short: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How many examples: ``full`` for `tox -e stress`, ``short`` and always the same among the ordinary tests."""
    return settings(
        max_examples=full if STRESS else short,
        deadline=None,
        derandomize=not STRESS,
        phases=[Phase.explicit, Phase.generate],  # no shrinking: the first example of a traceback says enough
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def sandbox() -> Iterator[Box]:
    """A fresh box as the working folder; methods that a command registers are forgotten again."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, forgetting():
        box = Box(Path(folder))
        box.cwd.mkdir()
        os.chdir(box.cwd)
        try:
            yield box
        finally:
            os.chdir(before)


def ask(*words: str) -> Answer:
    """Run ``dbn-bench WORDS`` with streams as strict as a terminal's."""
    out, err, argv = _stream("strict"), _stream("backslashreplace"), sys.argv
    code, crash = 0, ""
    sys.argv = ["dbn-bench", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        code, crash = -1, traceback.format_exc()
    finally:
        sys.argv = argv
    return Answer(words, code, _text(out), _text(err), crash)


def _stream(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


def answered(tally: Tally, box: Box, words: Sequence[Any], names: Sequence[str] = (), refused: bool = False) -> Answer:
    """Run a command on a bad input, check its answer, and count it.

    Args:
        names: words of which a refusal must say one.
        refused: the input is known to be bad; otherwise a change that happens to be harmless may pass.
    """
    before = box.contents()
    answer = ask(*map(str, words))
    problem = judge(answer, before, box.contents(), names, refused)
    tally(HARMLESS if answer.code == 0 and not problem else BAD_INPUTS, good=not problem)
    assert not problem, f"{problem}\n{answer}"
    return answer


def judge(
    answer: Answer, before: dict[str, bytes], after: dict[str, bytes], names: Sequence[str] = (), refused: bool = False
) -> str:
    """What is wrong with an answer; nothing if it is a sentence, and what was refused left no file behind."""
    if answer.crash or "Traceback" in answer.out + answer.err:
        return f"a traceback: {answer.crash}"
    if answer.code == 0:
        return "it was accepted" if refused else ""
    if before != after:
        return f"it was refused, but files changed: {sorted(set(before.items()) ^ set(after.items()))}"
    if answer.code == USAGE:
        return ""
    sentence = answer.err.removesuffix("\n")
    if answer.code != 1 or not sentence.startswith("Error: ") or not sentence.endswith((".", "!", "?", ")")):
        return "no sentence"
    if not sentence.isprintable():
        return "the sentence has line breaks or control characters"
    if len(sentence) > 2000:
        return f"the sentence has {len(sentence)} characters"
    if names and not any(name in sentence for name in names):
        return f"the sentence names none of {names}"
    return ""
