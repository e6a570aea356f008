"""The registry of methods, and the spec strings that name them.

Methods come from the table ``METHODS``, which ``baselines`` fills, from the entry-point group ``dbn_bench.methods`` and
from files given with ``--plugin``.  If a plugin fails to import, the error states the reason.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import ValidationError

from dbn_core import __version__
from dbn_core.errors import BenchError, PluginError, SpecError, UnknownNameError, did_you_mean, shown
from dbn_core.methods.method import Config, Method
from dbn_core.tables import TABLES, LazyTable

ENTRY_POINT_GROUP = "dbn_bench.methods"

METHODS: LazyTable[Method] = LazyTable("Method")
# What is imported: plugin files with their SHA-256; entry points and the built-ins with the version of their package.
_LOADED: dict[str, str] = {}
_OF_FILE: dict[str, dict[str, set[str]]] = {}  # names that a plugin file registered, by kind of table
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SPEC = re.compile(r"(?P<name>[^\[\]]+?)\s*(\[(?P<options>.*)\])?")
_COMMA = re.compile(r",(?![^\[]*\])")  # between options, not within the brackets of a value

M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Class decorator that registers a method as ``name`` (lower case, digits, hyphens).

    Raises:
        PluginError: the name is malformed or taken by another class, the class is not a :class:`Method`, or an option
            has no default.
    """
    if not isinstance(name, str):
        raise PluginError("@register lacks the method's name: write @register('my-method').")
    if not _NAME.fullmatch(name):
        raise PluginError(f"Method name '{name}' must be lower-case letters and digits, with hyphens between words.")

    def decorate(cls: M) -> M:
        _check_class(name, cls)
        METHODS.put(name, cls)
        cls.name = name
        cls.title = cls.title or name
        return cls

    return decorate


def _check_class(name: str, cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise PluginError(f"Method '{name}' is not a subclass of dbn_core.Method: derive the class from it.")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, Config)):
        raise PluginError(f"Method '{name}': its Config is not a subclass of dbn_core.Config: derive it from that.")
    records = cls.records
    if not (isinstance(records, Mapping) and all(isinstance(word, str) for item in records.items() for word in item)):
        raise PluginError(
            f"Method '{name}': records must map the name of each recorded number to its meaning, as text."
        )
    required = [option for option, field in cls.Config.model_fields.items() if field.is_required()]
    if required:
        raise PluginError(f"Method '{name}': option '{required[0]}' has no default: give it the paper's value.")
    try:
        cls.Config()
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise PluginError(f"Method '{name}': its default options are invalid ({message}): correct them.") from error


def load_plugin(path: str | Path, sha256: str | None = None) -> None:
    """Import a plugin file and register its methods.  A file that was edited since is imported again.

    Args:
        path: the file.
        sha256: expected hash of the content; None accepts any content.

    Raises:
        PluginError: the file is missing, has another hash, fails to import, or registers nothing.
    """
    file = Path(path).resolve()
    known = _LOADED.get(str(file))
    if sha256 is not None and known == sha256:
        return
    try:
        source = file.read_bytes()
    except OSError as error:
        raise PluginError(
            f"Plugin file '{path}' does not exist or cannot be read: check the path given to --plugin."
        ) from error
    found = hashlib.sha256(source).hexdigest()
    if sha256 not in (None, found):
        raise PluginError(
            f"Plugin file '{path}' on {platform.node()} is not the one that the run began with (SHA-256 {found[:12]} "
            f"instead of {str(sha256)[:12]}): put the same file on every machine, and start the run again."
        )
    if known != found:
        _import_file(path, file, source)
        _LOADED[str(file)] = found


def _import_file(path: str | Path, file: Path, source: bytes) -> None:
    if file.suffix != ".py":
        raise PluginError(f"Plugin file '{path}' is not a Python file: give a path that ends in .py.")
    if _LOADED.pop(str(file), None):
        for table in TABLES:
            names = _OF_FILE[str(file)].get(table.kind, set())
            table.entries = {name: entry for name, entry in table.entries.items() if name not in names}
    before = {table.kind: dict(table.entries) for table in TABLES}
    module = ModuleType(f"dbn_bench_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', file.stem)}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        # Compile these bytes: cached bytecode may belong to an earlier file of the same size and time.
        _import(
            lambda: exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__),
            f"Plugin file '{path}'",
        )
        added = {
            table.kind: {
                name
                for name, entry in table.entries.items()
                if not isinstance(entry, str) and name not in before.get(table.kind, {})
            }
            for table in TABLES
        }
        if not any(added.values()):
            raise PluginError(
                f"Plugin file '{path}' registers no method, network or task: decorate a Method class with "
                "@register('name'), or a network with @register_network('name')."
            )
    except BaseException:
        for table in TABLES:
            table.entries = before.get(table.kind, table.entries)
        raise
    _OF_FILE[str(file)] = added


def loaded(plugins: Iterable[str | Path] = ()) -> dict[str, str]:
    """The origin of this process's methods, for comparison in another process by :func:`load_same`.

    Args:
        plugins: plugin files; they are imported if necessary.

    Returns:
        The SHA-256 of each file by absolute path, and the version of the package of the built-in methods and of every
        installed plugin, all as of the import.

    Raises:
        PluginError: a plugin does not import.
    """
    load_all()
    files = [str(Path(path).resolve()) for path in plugins]
    for file in files:
        if file not in _LOADED:
            load_plugin(file)
    return {name: mark for name, mark in _LOADED.items() if name in files or not Path(name).is_absolute()}


def files_loaded(plugins: Iterable[str | Path]) -> dict[str, str]:
    """The SHA-256 of each plugin file as it was imported, by the path that is given."""
    return {str(path): _LOADED.get(str(Path(path).resolve()), "") for path in plugins}


def load_same(wanted: Mapping[str, str]) -> None:
    """Import the plugin files of another process, and check that packages have the same versions as there.

    Args:
        wanted: the result of :func:`loaded` there.

    Raises:
        PluginError: a file or a version differs, or a plugin does not import.
    """
    load_all()
    for name, mark in wanted.items():
        if Path(name).is_absolute():
            load_plugin(name, mark)
        elif _LOADED.get(name, mark) != mark:
            raise PluginError(
                f"The worker on {platform.node()} has imported {_LOADED[name]} and the run {mark}: install the same "
                "version on every machine, and restart the workers."
            )


def plugin_of(name: str) -> tuple[str, str] | None:
    """The plugin file of a method and the SHA-256 of the imported content; None for methods of packages."""
    for file, names in _OF_FILE.items():
        if name in names[METHODS.kind] and file in _LOADED:
            return file, _LOADED[file]
    return None


def load_all() -> None:
    """Import all installed plugins, once.

    Raises:
        PluginError: an installed plugin does not import, or registers nothing.
    """
    _LOADED["dbn-bench"] = f"dbn-bench {__version__}"
    for entry in _installed(entry_points, tuple(sys.path)):
        if entry.value not in _LOADED:
            what = f"Entry point '{entry.name}' ({entry.value})"
            _import(entry.load, what)
            home = entry.module.partition(".")[0]
            if not any(_home(known) == home for known in METHODS.entries.values()):
                raise PluginError(f"{what} registers no method: decorate a Method class with @register('name').")
            _LOADED[entry.value] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _home(entry: type[Method] | str) -> str:
    return (entry if isinstance(entry, str) else entry.__module__).partition(".")[0]


@cache
def _installed(find: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the packages on ``path``; cached, since reading them takes longer than planning a method."""
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
            f"{what} does not import: {type(error).__name__}: {error}. Correct it, or leave it out."
        ) from error


def methods() -> dict[str, type[Method]]:
    """All methods by name, sorted."""
    load_all()
    return dict(METHODS)


def method_named(name: str) -> type[Method]:
    """The class of a method; raises SpecError for an unknown name."""
    if name not in METHODS:
        load_all()
    if name not in METHODS:
        raise UnknownNameError(
            f"Unknown method '{name}': if a file of yours registers it, give --plugin FILE, to this command as to the "
            f"run{did_you_mean(name, METHODS)}."
        )
    return METHODS[name]


def parse_method(spec: str, options: Mapping[str, Any] | None = None) -> Method:
    """Build the method that a spec such as ``dbn[steps=5,preset=paper]`` names.

    Args:
        spec: name, with options in brackets.
        options: further options, as in a suite file; they must not repeat those of the spec.

    Raises:
        SpecError: unknown method or option, or an invalid value.
        PluginError: the method's constructor fails.
    """
    match = _SPEC.fullmatch(spec.strip())
    if not match:
        raise SpecError(f"Method spec '{spec}' is malformed: write name or name[option=value,...].")
    name = match["name"].strip()
    cls = method_named(name)
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in _COMMA.split(match["options"] or ""))):
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
    config = _config(cls, values)
    try:
        return cls(config)
    except BenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"Method '{name}' cannot be built from its options ({type(error).__name__}: {error}): let __init__ take "
            "the config alone and pass it on, or leave it out."
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

    Specs with the same meaning have the same canonical form; keys, tables and file names use it.
    """
    body = ",".join(f"{key}={_text(value)}" for key, value in sorted(method.config.spec_options().items()))
    return f"{method.name}[{body}]" if body else method.name


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
