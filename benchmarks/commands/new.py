"""``new``: write a suite file for members that one has, or for members to be trained."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.common import Plugins, Set, command_line, echo, load_plugins, overrides
from benchmarks.commands.planned import show_plan
from dbn_core.errors import DataError, SpecError, did_you_mean

if TYPE_CHECKING:
    import torch

    from benchmarks.suite.draft import Choices
    from benchmarks.suite.schema import Suite
    from dbn_core.data.dataset import Dataset

SIZE = 4  # of a pool that the suite trains
_FEW_IMAGES = 300  # of validation, below which a temperature is uncertain


def new(
    name: Annotated[str, typer.Argument(help="Name of the suite: the file NAME.toml is written.")],
    network: Annotated[
        str, typer.Option(help="resnet14, ..., timm:NAME, torchvision:NAME, or a plugin's network.", metavar="NETWORK")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="A data source and its folder: folder:photos, parquet:hub/cifar10, cifar10-jpeg (`dbn-bench list`).",
            metavar="SOURCE[:PATH]",
        ),
    ],
    members: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights files of trained members, for example 'runs/*.pt', or NETWORK=FILES where their network is "
            "not that of --network, which students have; may be repeated.",
            metavar="FILES",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help=f"How many members the suite trains, without --members.  [default: {SIZE}]", min=2),
    ] = None,
    students: Annotated[int, typer.Option(help="Epochs of each student.", min=1)] = 30,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Write a suite file that distils an ensemble, after a look at the data and at every member.

    Nothing is trained.  The last line says what `dbn-bench run NAME.toml` is going to cost.
    """
    import torch

    from benchmarks.suite.draft import Choices
    from benchmarks.suite.plan import build_plan
    from benchmarks.work.make import Options
    from benchmarks.work.planning import data_facts
    from benchmarks.work.preflight import check_networks
    from dbn_core.nets.modules import check_name

    load_plugins(plugin)
    file = Path(f"{name.removesuffix('.toml')}.toml")
    if file.exists():
        raise SpecError(f"'{file}' exists: choose another name, or remove the file.")
    files = tuple(map(of_network, members or ()))
    count = _count(files, size)
    plugins = [word for path in plugin or [] for word in ("--plugin", path)]
    run = shlex.join(["dbn-bench", "run", str(file), *plugins])
    header = (
        f"Made by: {command_line()}",
        f"What it costs: {run} --dry-run",
        f"Train the students and write the report: {run}",
        f"The student as a file: {shlex.join(['dbn-bench', 'export', str(file), f'ED@{count}', *plugins])}",
    )
    changed = overrides(set_, None, False)
    choices = Choices(file.stem, network, _data(data, changed), count, students, files, header)
    suite, _ = _drafted(choices, None, changed, file)  # names and options are checked before the data are read
    check_name(network)
    dataset = suite.data.load()
    _show_data(dataset)
    suite, text = _drafted(choices, dataset, changed, file)
    if files:
        _look(suite, dataset, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts = data_facts(dataset)
    check_networks(suite, facts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as out:
        out.write(text)
    echo(f"Wrote {file}.{' Students start from its [recipe]: check every line of it.' if files else ''}\n")
    options = Options(plugins=plugin or [])
    show_plan(build_plan(suite, facts), options.open_store(), options)
    echo(f"Next: {run}")


def of_network(text: str) -> str | dict[str, str]:
    """``runs/*.pt``, or ``torchvision:resnet50=runs/*.pt`` as a table of ``[pool] checkpoints``."""
    from dbn_core.nets.plugins import NETWORKS

    network, _, path = text.partition("=")
    named = network in NETWORKS or re.fullmatch(r"(timm|torchvision):[^/]+|(resnet|wrn)[0-9-]+", network)
    return {"path": path, "network": network} if path and named else text


def _count(files: tuple[str | dict[str, str], ...], size: int | None) -> int:
    """How many members there are or shall be."""
    from benchmarks.suite.specs import matching_files

    patterns = [file if isinstance(file, str) else file["path"] for file in files]
    if not patterns:
        return size or SIZE
    if size:
        raise SpecError("--size counts the members that the suite trains: drop it, or drop --members.")
    try:
        count = sum(len(matching_files(pattern)) for pattern in patterns)
    except ValueError as error:
        raise SpecError(f"--members: {error}.") from error
    if count < 2:
        raise SpecError(f"--members names one file, {patterns[0]}: an ensemble has at least two.")
    return count


def _data(text: str, changed: dict[str, Any]) -> dict[str, Any]:
    """``folder:photos`` as ``[data]``."""
    from dbn_core.data.sources import SOURCES, FileSource

    source, _, root = text.partition(":")
    if source not in SOURCES:
        raise SpecError(f"--data {text}: there is no data source '{source}'{did_you_mean(source, SOURCES)}.")
    elsewhere = not root and "data.root" in changed
    if issubclass(SOURCES[source], FileSource) and not elsewhere and not (root and Path(root).expanduser().is_dir()):
        missing = f"there is no folder '{root}'" if root else f"the source '{source}' needs a folder"
        raise SpecError(f"--data {text}: {missing}: write --data {source}:FOLDER.")
    return {"source": source, **({"root": root} if root else {})}


def _drafted(choices: Choices, data: Dataset | None, changed: dict[str, Any], file: Path) -> tuple[Suite, str]:
    """The suite and its file's text, with the changes of ``--set``."""
    from benchmarks.suite.draft import draft, suite_text
    from benchmarks.suite.load import set_keys, suite_from

    content = draft(choices, data)
    set_keys(content, changed, file)
    text = suite_text(choices, content)
    suite = suite_from(tomllib.loads(text), file)
    suite.entries()
    return suite, text


def _show_data(data: Dataset) -> None:
    """One line on what was read; what is no image is refused."""
    if str(data.train.images.dtype) != "torch.uint8":
        raise DataError(f"'{data.title}' has no images: `new` writes suites that classify images.")
    shape = "x".join(map(str, (data.channels, *data.image_size)))
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    classes = ", ".join(data.classes[:5]) + (", ..." if data.num_classes > 5 else "")
    echo(f"Data: {data.title}, {data.num_classes} classes ({classes}), {shape}: {counts} images")
    echo(f"{data.splitting}.")
    for note in _doubts(data):
        echo(f"Note: {note}")


def _doubts(data: Dataset) -> Iterator[str]:
    """What makes scores on these splits doubtful, a sentence each."""
    count, cut = len(data.validation), "comes out of train" in data.splitting
    if count < _FEW_IMAGES:
        yield (
            f"{count} validation images hardly determine a temperature, nor which student is better: keep more of them"
            f"{' ([data] validation_fraction)' if cut else ''}."
        )
    pixels = {
        name: [sha256(image.tobytes()).digest() for image in split.images.numpy()]
        for name, split in data.splits.items()
    }
    for one, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        known = set(pixels[other])
        if same := sum(mark in known for mark in pixels[one]):
            yield f"{same} of {len(pixels[one])} {one} images are also {other} images: remove them from one of the two."
    for name in ("validation", "test"):
        present = set(data.splits[name].labels.tolist())
        if absent := [word for label, word in enumerate(data.classes) if label not in present]:
            some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            yield f"{len(absent)} of {data.num_classes} classes have no {name} images ({some}): add some."


def _look(suite: Suite, data: Dataset, device: torch.device) -> None:
    """Print what every member is worth, or what is wrong with it.

    Raises:
        DataError: one of them cannot be used.
    """
    from benchmarks.work.given import far_below, look_at, normalisation_hint

    files = {member.path: suite.network_of(index) for index, member in enumerate(suite.pool.checkpoints)}
    found = look_at(files, suite.task, data, device)
    problems = [each.problem for each in found if each.problem]
    for each in found:
        if not each.problem or len(problems) > 1:  # a single one is the error
            echo(each.problem or f"{each.file}: {each.accuracy:.1%} of the validation images are right")
    for low in far_below(found, len(data.validation)):
        echo(
            f"Note: {low.file} is far less accurate than the other members: check the order of its classes (two may be "
            "swapped), and how it was trained."
        )
    fitting = next((each.file for each in found if each.fits), None)
    hint = normalisation_hint(fitting, files[fitting], suite.task, data, device) if fitting else ""
    if hint:
        echo(f"Note: {hint}")
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        raise DataError(f"{len(problems)} of {len(found)} files cannot be members, for the reasons above.")
