"""Errors that a user can fix.  Each message names the fault and the remedy, in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Base of every error that the command line shows as one sentence, without a traceback."""


class SpecError(BenchError):
    """A method, option, suite key or network that does not exist, or a value that it does not take."""


class UnknownNameError(SpecError):
    """A suite, network or method that is not known here; a plugin or a path may be missing."""


class DataError(BenchError):
    """A data source that is missing, damaged or not in the expected layout."""


class PluginError(BenchError):
    """A plugin that does not import, or breaks the method contract."""


class TrainingDivergedError(BenchError):
    """A loss or a prediction that became NaN or infinite."""


class TrainingStoppedError(BenchError):
    """A training that was asked to stop; no failure: its checkpoint lets it go on."""


class InterruptedRunError(BenchError):
    """A signal stopped the run; finished artefacts are stored, trainings have written their checkpoints."""


class ArtefactError(BenchError):
    """A stored file that is truncated, altered or not ours."""


class StoreError(BenchError):
    """A store that cannot be read or written."""


def shown(value: object, width: int = 80) -> str:
    """``repr`` of what a user gave, cut to ``width`` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def reason(error: BaseException, width: int = 300) -> str:
    """What another library says of a failure, in one printable line of at most ``width`` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known word, or the whole list when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""
