"""The one registry of methods, and the spec strings that address them.

A method is found among the built-ins (package ``baselines``), in the entry-point group ``dbn_bench.methods``, and in
files named with ``--plugin``.  A plugin that fails to import is an error that shows the reason, never a missing name.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dbn_core.errors import BenchError, PluginError, SpecError, did_you_mean, shown
from dbn_core.method import Config, Method

ENTRY_POINT_GROUP = "dbn_bench.methods"
BUILT_IN_PACKAGE = "baselines"

_METHODS: dict[str, type[Method]] = {}
_LOADED: set[str] = set()  # plugin files and entry points already imported
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SPEC = re.compile(r"(?P<name>[^\[\]]+?)\s*(\[(?P<options>.*)\])?")

M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method known as ``name`` (lower case, digits, hyphens).

    Raises:
        PluginError: the name is malformed or taken by another class, or the class is no method with options that all
            have defaults.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(f"Method name '{name}' must be lower-case letters and digits, with hyphens between words.")

    def decorate(cls: M) -> M:
        _check_class(name, cls)
        known = _METHODS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise PluginError(
                f"Method name '{name}' is already taken by {known.__module__}.{known.__qualname__}: "
                f"choose another name for {cls.__module__}.{cls.__qualname__}."
            )
        cls.name = name
        cls.title = cls.title or name
        _METHODS[name] = cls
        return cls

    return decorate


def _check_class(name: str, cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise PluginError(f"Method '{name}' is no subclass of dbn_core.Method: derive the class from it.")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, Config)):
        raise PluginError(f"Method '{name}': its Config is no subclass of dbn_core.Config: derive it from that.")
    try:
        words = (cls.title, cls.reference, cls.summary())
    except Exception as error:
        raise PluginError(f"Method '{name}': its summary() fails ({error}): leave it out, or mend it.") from error
    if not all(isinstance(word, str) for word in words):
        raise PluginError(f"Method '{name}': title, reference and summary() must be text.")
    records = cls.records
    if not (isinstance(records, Mapping) and all(isinstance(word, str) for item in records.items() for word in item)):
        raise PluginError(f"Method '{name}': records must map names of recorded numbers to what they mean, as text.")
    required = [option for option, field in cls.Config.model_fields.items() if field.is_required()]
    if required:
        raise PluginError(f"Method '{name}': option '{required[0]}' has no default: give it the paper's value.")
    try:
        cls.Config()
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise PluginError(f"Method '{name}': its default options are refused ({message}): mend them.") from error


def load_plugin(path: str | Path) -> None:
    """Import one plugin file; the methods it registers become known.

    Raises:
        PluginError: the file is missing, fails to import, or registers nothing.
    """
    file = Path(path).resolve()
    if str(file) in _LOADED:
        return
    if not file.is_file():
        raise PluginError(f"Plugin file '{path}' does not exist: check the path given to --plugin.")
    known = set(_METHODS)
    module_name = f"dbn_bench_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', file.stem)}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"Plugin file '{path}' is not a Python file: give a path that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _import(lambda: spec.loader.exec_module(module), f"Plugin file '{path}'")  # type: ignore[union-attr]
    if not set(_METHODS) - known:
        raise PluginError(f"Plugin file '{path}' registers no method: decorate a Method class with @register('name').")
    _LOADED.add(str(file))


def load_all() -> None:
    """Import the built-ins and every installed entry point (once)."""
    if BUILT_IN_PACKAGE not in _LOADED:
        package = importlib.import_module(BUILT_IN_PACKAGE)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{BUILT_IN_PACKAGE}.{module.name}")
        _LOADED.add(BUILT_IN_PACKAGE)
    for entry in _installed(entry_points, tuple(sys.path)):
        if entry.value not in _LOADED:
            what = f"Entry point '{entry.name}' ({entry.value})"
            _import(entry.load, what)
            home = entry.module.partition(".")[0]
            if not any(cls.__module__.partition(".")[0] == home for cls in _METHODS.values()):
                raise PluginError(f"{what} registers no method: decorate a Method class with @register('name').")
            _LOADED.add(entry.value)


@cache
def _installed(find: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the packages on ``path``: to read what all packages offer takes longer than to plan a method."""
    return tuple(find(group=ENTRY_POINT_GROUP))


def _import(load: Callable[[], Any], what: str) -> None:
    try:
        load()
    except PluginError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise PluginError(
            f"{what} does not import: {type(error).__name__}: {error}. Mend it, or leave it out."
        ) from error


def methods() -> dict[str, type[Method]]:
    """All known methods by name, sorted."""
    load_all()
    return dict(sorted(_METHODS.items()))


def parse_method(spec: str, options: Mapping[str, Any] | None = None) -> Method:
    """Build the method that a spec such as ``dbn[steps=5,preset=paper]`` names.

    Args:
        spec: name, with options in brackets.
        options: further options, as a suite file gives them; they must not repeat one of the spec.

    Raises:
        SpecError: unknown method or option, or a value that the option does not take.
        PluginError: the method's constructor fails.
    """
    match = _SPEC.fullmatch(spec.strip())
    if not match:
        raise SpecError(f"Method spec '{spec}' is malformed: write name or name[option=value,...].")
    name = match["name"].strip()
    known = methods()
    if name not in known:
        raise SpecError(f"Unknown method '{name}'{did_you_mean(name, known)}.")
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in (match["options"] or "").split(","))):
        key, separator, value = (piece.strip() for piece in item.partition("="))
        if not separator or not key or not value:
            raise SpecError(f"Option '{item}' of '{name}' is malformed: write option=value.")
        if key in values:
            raise SpecError(f"Option '{key}' of '{name}' is given twice.")
        values[key] = value
    for key, value in (options or {}).items():
        if key in values:
            raise SpecError(f"Option '{key}' of '{name}' is given twice: once in the spec and once in the options.")
        values[key] = value
    config = _config(known[name], values)
    try:
        return known[name](config)
    except BenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"Method '{name}' cannot be built from its options ({type(error).__name__}: {error}): let __init__ take "
            "the config alone and hand it on, or leave it out."
        ) from error


def _config(cls: type[Method], values: Mapping[str, Any]) -> Any:
    fields = cls.Config.model_fields
    for key in values:
        if key not in fields:
            raise SpecError(f"Method '{cls.name}' has no option '{key}'{did_you_mean(key, fields)}.")
    try:
        return cls.Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(piece) for piece in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        subject = f"option '{where}' of '{cls.name}' is {shown(first['input'])}" if where else f"'{cls.name}'"
        raise SpecError(f"Bad value: {subject}: {message}.") from error


def canonical(method: Method) -> str:
    """The spec in canonical form: options that differ from the defaults, in alphabetical order.

    Two specs that mean the same give the same text; keys, tables and file names all use it.
    """
    defaults = type(method).Config()
    given = _differences(method.config, defaults)
    preset = getattr(method.config, "preset", None)
    if preset is not None:  # compare with the defaults of the same preset, so that a preset stays one word
        given = {"preset": preset} if preset != getattr(defaults, "preset", None) else {}
        given |= _differences(method.config, type(method).Config.model_validate({"preset": preset}))
    body = ",".join(f"{key}={_text(value)}" for key, value in sorted(given.items()))
    return f"{method.name}[{body}]" if body else method.name


def _differences(config: Any, reference: Any) -> dict[str, Any]:
    mine, theirs = config.model_dump(), reference.model_dump()
    return {key: value for key, value in mine.items() if value != theirs[key]}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
