"""Read a suite: its TOML file, with the changes that the command line asks for.  Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmarks.environment import computes_bf16
from benchmarks.published import published_for
from benchmarks.suite.builtin import available
from benchmarks.suite.schema import Suite
from benchmarks.suite.specs import (
    LatencySpec,
    MethodEntry,
    PoolSpec,
    PublishedSpec,
    ShiftSpec,
    StudentSpec,
    TuningSpec,
)
from dbn_core.data.sources import SOURCES
from dbn_core.errors import SpecError, UnknownNameError, did_you_mean, shown
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.nets.spec import near_key
from dbn_core.train.recipe import Recipe


def load_suite(name: str, overrides: Mapping[str, Any] | None = None, bf16: bool | None = None) -> Suite:
    """Load a built-in suite by name, or a TOML file by path; ``precision = "auto"`` becomes bf16 or fp32.

    Args:
        overrides: dotted keys to change, for example ``{"data.root": "/data", "repetitions": 5}``.
        bf16: whether ``auto`` becomes bf16; None: whether this machine's processor computes in it.

    Raises:
        SpecError: no such suite, not TOML, or an unknown key or invalid value.
        ArtefactError: the files of the published figures that the suite names are damaged.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = available()
        if name not in known:
            raise UnknownNameError(
                f"Unknown suite '{name}'{did_you_mean(name, known)}; your own suite is a path to a .toml file."
            )
        path = known[name]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"Suite file '{path}' does not exist: check the path.") from None
    except OSError as error:
        raise SpecError(f"Suite file '{path}' cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:  # broken TOML, broken UTF-8, numbers of thousands of digits
        raise SpecError(f"Suite file '{path}' is not valid TOML: {str(error).rstrip('.')}.") from error
    return suite_from(content, path, overrides, bf16)


def suite_from(
    content: dict[str, Any], path: Path, overrides: Mapping[str, Any] | None = None, bf16: bool | None = None
) -> Suite:
    """As :func:`load_suite`, from the content of a file; ``path`` names the suite, and the file in errors."""
    set_keys(content, overrides or {}, path)
    _resolve_precision(content, computes_bf16() if bf16 is None else bf16)
    content.setdefault("name", path.stem)
    _check_integers(content, path)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        foreign = _foreign_keys(error, content, overrides or {})
        raise SpecError(f"Suite '{path.name}': {foreign or _sentence(error, content)}") from error
    if suite.published:
        published_for(suite.published.data)  # an unknown data set is an error here, not when the report is rendered
    return suite


def _resolve_precision(content: dict[str, Any], bf16: bool | None) -> None:
    """Replace ``precision = "auto"`` before planning, so that keys and workers on other machines agree."""
    entries = content.get("methods")
    for table in (content.get("recipe"), content.get("students"), *(entries if isinstance(entries, list) else ())):
        if isinstance(table, dict) and table.get("precision") == "auto":
            table["precision"] = "bf16" if bf16 else "fp32"


def set_keys(content: dict[str, Any], overrides: Mapping[str, Any], path: Path) -> None:
    """Change the content of a suite file in place: dotted keys and their values.

    Raises:
        SpecError: a key lies in what is no table.
    """
    for dotted, value in overrides.items():
        *tables, last = dotted.split(".")
        place = content
        for key in tables:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                remedy = "edit a copy of the file" + (
                    ", or add a method with other options by --add 'NAME[option=value]@SIZE'"
                    if key == "methods"
                    else ""
                )
                raise SpecError(f"Suite '{path.name}': '{key}' is not a table, so '{dotted}' cannot be set: {remedy}.")
        place[last] = value


def _check_integers(value: Any, path: Path) -> None:
    """Refuse integers of more than 64 bits: Python reads them, but TOML and JSON readers do not."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_integers(inner, path)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SpecError(f"Suite '{path.name}' holds an integer of more than 64 bits: write a smaller one.")


def _foreign_keys(error: ValidationError, content: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """A sentence if ``--set network.name`` leaves keys of the file's own network behind; else nothing."""
    extra = [".".join(map(str, p["loc"])) for p in error.errors() if p["type"] == "extra_forbidden"]
    keys = [key.removeprefix("network.") for key in extra if key.startswith("network.") and key not in overrides]
    if "network.name" not in overrides or not keys:
        return ""
    name = content["network"]["name"]
    return (
        f"the keys {', '.join(keys)} of its [network] are those of another network than '{name}': set '{name}' in a "
        "copy of the file, without these keys (docs/networks.md)."
    )


def _sentence(error: ValidationError, content: Mapping[str, Any]) -> str:
    """The most telling problem of a validation, as a sentence."""
    problems = sorted(
        error.errors(), key=lambda problem: problem["loc"][:1] != ("task",)
    )  # a wrong task causes further problems
    # A misspelt key is also a missing one, and the misspelling explains more.
    extra = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    first = problems[0] if problems[0]["loc"][:1] == ("task",) else extra
    loc = [str(piece) for piece in first["loc"]]
    key, where = (loc[-1] if loc else ""), ".".join(loc[:-1])
    place = f"[{where}]" if where else "the top level"
    if first["type"] == "extra_forbidden":
        if loc[:-1] == ["network"] and content.get("task", "classification") == "classification":
            return f"unknown key '{key}' in [network]{near_key(str(content['network'].get('name')), key)}."
        return f"unknown key '{key}' in {place}{did_you_mean(key, _known_keys(loc[:-1]))}."
    if first["type"] == "missing":
        return f"the key '{key}' is missing in {place}."
    if first["type"] == "union_tag_invalid":
        given = str(first["ctx"]["tag"])
        return f"unknown data source '{given}'{did_you_mean(given, SOURCES)}."
    if first["type"] == "union_tag_not_found":
        return f"[data] needs a source{did_you_mean('', SOURCES)}."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{'.'.join(loc)}' is {shown(first['input'])}: {message}." if loc else f"{message}."


def _known_keys(loc: list[str]) -> Iterable[str]:
    tables: dict[str, type[BaseModel]] = {
        "pool": PoolSpec,
        "recipe": Recipe,
        "students": StudentSpec,
        "latency": LatencySpec,
        "shift": ShiftSpec,
        "published": PublishedSpec,
        "methods": MethodEntry,
        "tuning": TuningSpec,
    }
    if not loc:
        return Suite.model_fields
    if loc[0] == "data":
        return SOURCES[loc[1]].model_fields if len(loc) > 1 and loc[1] in SOURCES else ["source"]
    return tables[loc[0]].model_fields if loc[0] in tables else ()


def with_methods(suite: Suite, added: Sequence[str]) -> Suite:
    """The suite with further methods and sizes; existing entries keep their labels.

    Args:
        added: ``METHOD@SIZE``, the method as a spec with its options, for example ``ed[lr_scale=1]@3``.

    Raises:
        SpecError: malformed, or no such method.
    """
    if not added:
        return suite
    entries = [entry.model_copy(update={"label": label}) for entry, _, label in suite.entries()]
    known = {
        canonical(method): index
        for index, (entry, method, _) in enumerate(suite.entries())
        if suite.teachers(entry) == suite.students.teachers
    }
    for text in added:
        use, size = added_method(text)
        index = known.setdefault(canonical(parse_method(use)), len(entries))
        if index == len(entries):
            entries.append(MethodEntry(use=use, sizes=(size,)))
        elif size not in entries[index].sizes:
            entries[index] = entries[index].model_copy(update={"sizes": (*entries[index].sizes, size)})
    return suite.model_copy(update={"methods": tuple(entries)})


def added_method(text: str) -> tuple[str, int]:
    """Spec and size of a ``METHOD@SIZE``; raises SpecError when it is malformed."""
    match = re.fullmatch(r"(.+)@([1-9]\d{0,2})", text.strip())
    if not match:
        raise SpecError(f"--add {text}: write METHOD@SIZE, for example 'ed@3' or 'ed[lr_scale=1]@3'.")
    return match[1], int(match[2])
