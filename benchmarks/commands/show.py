"""``show``: the options of a method."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from benchmarks.commands.common import MethodSpec, Plugins, echo, load_plugins, table


def show(name: MethodSpec, plugin: Plugins = None) -> None:
    """Show the options of a method, with choices and meanings."""
    from dbn_core.methods.registry import parse_method

    load_plugins(plugin)
    method = parse_method(name)
    echo(f"{method.name}: {method.summary()}  {method.reference}")
    if method.networks:
        echo(f"In networks, M the size, without the suite's members: {method.networks}.")
    fields = type(method).Config.model_fields
    if fields:
        values = method.config.model_dump()
        table(
            "Options",
            ["option", "value", "choices", "meaning"],
            [(k, str(values[k]), _choices(f.annotation), f.description or "") for k, f in fields.items()],
        )


def _choices(annotation: Any) -> str:
    """The values that a type allows, where they are few: those of ``Literal`` and ``bool``."""
    if annotation is bool:
        return "true, false"
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    return ", ".join(filter(None, map(_choices, get_args(annotation))))
