"""``check-network``: the contract tests over networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from benchmarks.commands.check import show_outcomes
from benchmarks.commands.common import Plugins, echo, load_plugins, overrides
from dbn_core.errors import SpecError, shown

if TYPE_CHECKING:
    from dbn_core.nets.spec import NetworkOptions

Name = Annotated[
    str,
    typer.Argument(
        help="A network's name (resnet14, timm:NAME, torchvision:NAME, or of a --plugin), a suite's .toml file, or a "
        ".py file that registers networks."
    ),
]
Image = Annotated[
    str | None,
    typer.Option(
        help="Channels, height and width of the images.  [default: those of the suite, else 3x32x32]", metavar="CxHxW"
    ),
]
Classes = Annotated[
    int | None, typer.Option(help="Number of classes.  [default: of the suite, else 10]", min=2, max=10_000)
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Set one key of [network], for example input_size=64 or options.depth=2.", metavar="KEY=VALUE"
    ),
]


class Images(NamedTuple):
    """What a network is to classify."""

    channels: int = 3
    size: tuple[int, int] = (32, 32)
    classes: int = 10


def check_network(
    name: Name, image: Image = None, classes: Classes = None, set_: Keys = None, plugin: Plugins = None
) -> None:
    """Run the contract tests over a network, with random weights, and say which methods work on it."""
    match = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})x([1-9]\d{0,2})", image or "3x32x32")
    if not match:
        raise SpecError(f"--image {image}: write channels, height and width, for example 3x32x32.")
    load_plugins(plugin)
    changed = overrides(set_, None, False)
    if name.endswith(".toml"):
        specs, given = _of_suite(name, changed, ask_data=not (image and classes))
    else:
        specs, given = [_spec(table, changed) for table in _tables(name)], Images()
    if image:
        channels, height, width = map(int, match.groups())
        given = given._replace(channels=channels, size=(height, width))
    if classes:
        given = given._replace(classes=classes)
    failures = []
    for spec in specs:
        try:
            _check(spec, given)
        except SpecError as error:
            failures.append(str(error))
    if failures:
        raise SpecError(" ".join(failures))


def _of_suite(name: str, changed: dict[str, Any], ask_data: bool) -> tuple[list[NetworkOptions], Images]:
    """The network of a suite, and what its data are."""
    from benchmarks.suite.load import load_suite

    suite = load_suite(name, {f"network.{key}": value for key, value in changed.items()})
    if suite.task.name != "classification":
        raise SpecError(f"'{name}' is a suite of {suite.task.name}: only networks of classification are checked.")
    if not ask_data:
        return [suite.network], Images()
    data = suite.data.for_repetition(0, suite.seed).load()
    return [suite.network], Images(data.channels, data.image_size, data.num_classes)


def _tables(name: str) -> list[dict[str, Any]]:
    """``[network]`` for a name, or for every network that a file registers."""
    from dbn_core.nets.plugins import NETWORKS

    if not name.endswith(".py"):
        return [{"name": name}]
    before = set(NETWORKS)
    load_plugins([name])
    if not (found := [network for network in NETWORKS if network not in before]):
        raise SpecError(f"'{name}' registers no new network: decorate one with @register_network('name').")
    return [{"name": network} for network in found]


def _spec(table: dict[str, Any], changed: dict[str, Any]) -> NetworkOptions:
    from pydantic import ValidationError

    from benchmarks.suite.load import set_keys
    from dbn_core.nets.spec import classifier_spec, near_key

    set_keys(table, changed, Path("--set"))
    try:
        return classifier_spec(table)
    except ValidationError as error:
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise SpecError(
                f"[network] of '{table['name']}' has no key '{where}'{near_key(table['name'], where)}."
            ) from error
        raise SpecError(f"[network] {where} is {shown(first['input'])}: {message}.") from error


def _check(spec: NetworkOptions, images: Images) -> None:
    from benchmarks.contract.network import NetworkSubject, check_one_network, fitting_methods

    subject = NetworkSubject(spec, *images)
    echo(f"{spec.label}:")
    show_outcomes(check_one_network(subject), spec.label)
    fitting, others = fitting_methods(subject)
    echo(f"Methods that work on it: {', '.join(fitting)}.")
    for sentence in others.values():
        echo(f"      {sentence}")
