"""Networks that plugins bring, by name.  Imports no torch, so that suites can be checked without it."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dbn_core.errors import PluginError
from dbn_core.tables import LazyTable

BUILT_IN = ("resnet", "wrn")  # how names of built-in networks begin
NETWORKS: LazyTable[Any] = LazyTable("Network")
_SHA256: dict[str, str] = {}  # of the file that each network comes from, as it was imported
B = TypeVar("B", bound=Callable[..., Any])


def register_network(name: str) -> Callable[[B], B]:
    """Decorator of a class or function ``build(classes, channels, **options)`` that gives a torch module.

    The module maps normalised images [B, channels, H, W] to logits [B, classes].  A suite names it in
    ``[network] name`` and sets its options in ``[network.options]``.  An edit of the file changes the keys of all that
    is trained with the network.

    Raises:
        PluginError: the name is reserved for built-in networks and libraries, or taken by another builder; or this one
            does not take classes and channels.
    """
    if not isinstance(name, str):
        raise PluginError("@register_network lacks the network's name: write @register_network('my-network').")
    if ":" in name or name.startswith(BUILT_IN):
        raise PluginError(
            f"Network name '{name}' is reserved: choose one without a colon that is no 'resnet...' and no 'wrn...'."
        )

    def decorate(build: B) -> B:
        _check_arguments(name, build)
        NETWORKS.put(name, build)  # type: ignore[arg-type]
        file = getattr(sys.modules.get(build.__module__), "__file__", None)
        _SHA256[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
        return build

    return decorate


def _check_arguments(name: str, build: Callable[..., Any]) -> None:
    try:
        inspect.signature(build).bind_partial(2, 1)
    except TypeError as error:
        form = "__init__(self, classes, channels, **options)" if isinstance(build, type) else "(classes, channels, ...)"
        raise PluginError(
            f"Network '{name}' does not take the numbers of classes and of channels as its first two arguments: "
            f"write {form}."
        ) from error


def source_sha256(name: str) -> str:
    """SHA-256 of the file that a network of a plugin comes from; empty where it comes from no file."""
    return _SHA256.get(name, "")
