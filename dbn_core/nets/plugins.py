"""Networks that plugins bring, by name.  Imports no torch, so that suites can be checked without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dbn_core.errors import PluginError

Builder = Callable[..., Any]
BUILDERS: dict[str, Builder] = {}
B = TypeVar("B", bound=Builder)


def register_network(name: str) -> Callable[[B], B]:
    """Decorator of a class or function ``build(classes, channels, **options)`` that gives a torch module.

    The module maps normalised images [B, channels, H, W] to logits [B, classes].  A suite names it in
    ``[network] name`` and sets its options in ``[network.options]``.

    Raises:
        PluginError: the name is reserved for built-in networks and libraries, or taken by another builder.
    """
    if ":" in name or name.startswith("resnet"):
        raise PluginError(f"Network name '{name}' is reserved: choose one without a colon that is no 'resnet...'.")

    def decorate(build: B) -> B:
        known = BUILDERS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (build.__module__, build.__qualname__):
            raise PluginError(f"Network name '{name}' is already taken by {known.__module__}: choose another name.")
        BUILDERS[name] = build
        return build

    return decorate
