"""Strategies that damage a good input: values of the wrong kind, keys that do not belong, bytes that went wrong."""

from __future__ import annotations

import copy
import json
import math
from datetime import date
from typing import Any

from hypothesis import strategies as st

_ODD = ["", " ", "\x00", "\x1b[31m", "a\nb", "..", "../x", "/", "~nobody/x", "Ω", "\u202e", "x" * 5000, "[red]", "nan"]
TEXTS = st.one_of(st.sampled_from([*_ODD, "None"]), st.text(max_size=12))
# What a careless or hostile file may hold where a number, a word or a table belongs.
JUNK = st.one_of(
    st.sampled_from([0, -1, 1, 2, 10**12, -(10**12), 2**63, 10**400, 0.0, -0.5, 1e-300, 1e308, math.nan, math.inf]),
    st.sampled_from(
        [16**5000, 10.5, -math.inf, True, False, [], {}, [[]], [1, "x"], {"a": 1}, [{}], [None], None, date(2024, 1, 1)]
    ),
    TEXTS,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in a tree of dicts and lists, the root left out."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in steps for place in [(*path, key), *_places(inner, (*path, key))]]


@st.composite
def damaged(draw: st.DrawFn, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with one or two things removed, renamed, replaced, doubled, wrapped, or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        if not (places := _places(tree)):
            break
        *way, last = draw(st.sampled_from(places))
        holder = tree
        for step in way:
            holder = holder[step]
        _damage(draw, holder, last)
    return tree


def _damage(draw: st.DrawFn, holder: Any, key: Any) -> None:
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "double", "wrap", "add"]))
    if how == "replace":
        holder[key] = copy.deepcopy(draw(JUNK))
    elif how == "remove":
        del holder[key]
    elif how == "wrap":
        holder[key] = draw(st.sampled_from([[holder[key]], {"value": holder[key]}, str(holder[key])]))
    elif how == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif isinstance(holder, dict):
        name = draw(st.sampled_from([f"{key}x", f"{key}"[:-1], f"{key}".upper(), "", "ключ", "__proto__", "x" * 300]))
        holder[name] = holder.pop(key) if how == "rename" else copy.deepcopy(draw(JUNK))


_PIECES = [b"", b"\x00", b"\xff\xfe", b'"', b"'''", b"\n[", b"]]", b"=", b"[" * 3000, b"9" * 5000]


@st.composite
def scrambled(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut short, overwritten, doubled in part, or with something else put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        new = draw(st.one_of(st.binary(max_size=8), st.sampled_from(_PIECES), st.just(content[start:end] * 2)))
        content = content[:start] + new + content[end:] if draw(st.integers(0, 4)) else content[:start]
    return content


def toml(value: dict[str, Any]) -> str:
    """A tree as TOML, everything inline."""
    return "".join(f"{_word(key)} = {_toml(inner)}\n" for key, inner in value.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, bool):
        return str(value).lower()
    # Decimal numbers of more than 4300 digits cannot be written.  None makes a syntax error, as it should.
    return hex(value) if isinstance(value, int) and value > 10**100 else str(value)


def _word(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
