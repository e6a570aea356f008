"""Tables of what a suite can name: methods, tasks, data sources.

A built-in class is an address ``"module:Class"`` until it is read, so that a name can be looked up without importing
every module.  A decorator (``@register``, ``@register_task``) replaces the address by the class, or adds a class of a
plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from dbn_core.errors import PluginError

T = TypeVar("T")
TABLES: list[LazyTable[Any]] = []  # all there are, so that a plugin's entries can be found and taken back


class LazyTable(Mapping[str, type[T]], Generic[T]):
    """Classes by name, sorted; reading one imports its module.

    Args:
        kind: what the classes are, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entries: dict[str, type[T] | str] = {}
        TABLES.append(self)

    def add(self, addresses: Mapping[str, str]) -> None:
        """Names of built-in classes, and where each is: ``{"ed": "baselines.ensemble_distillation:Distillation"}``."""
        self.entries.update({name: address for name, address in addresses.items() if name not in self.entries})

    def put(self, name: str, cls: type[T]) -> None:
        """Make a class known as ``name``; raises PluginError when another class has the name."""
        known = self.entries.get(name)
        taken = known if isinstance(known, str) or known is None else _address(known)
        if taken not in (None, _address(cls)):
            raise PluginError(
                f"{self.kind} name '{name}' is already taken by {taken.replace(':', '.')}: choose another name for "
                f"{cls.__module__}.{cls.__qualname__}."
            )
        self.entries[name] = cls

    def __getitem__(self, name: str) -> type[T]:
        entry = self.entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self.entries[name] = getattr(import_module(module), attribute)
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries


def _address(cls: Any) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
