"""Pages that are made, not written: a hook of mkdocs.

Makes ``reference/*.md`` from the registries, the suite file's models and the command line, and ``reports/**`` from the
committed reports.  Links between files of the repository become links between pages; a file that is no page comes
along under ``files/``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


# The suite file.


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What is said of a model's fields: ``description=``, or the entry in a docstring's ``Attributes``."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        section = (cls.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.finditer(r"^ {8}(\w+(?:, \w+)*): (.*(?:\n {12}.*)*)", section, re.M):
            found |= dict.fromkeys(entry[1].split(", "), " ".join(entry[2].split()))
    return found | {name: field.description for name, field in model.model_fields.items() if field.description}


def type_name(annotation: Any) -> str:
    """A type as a reader of TOML understands it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in args)
    if origin is tuple:
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return "table"
    if origin is not None and hasattr(annotation, "__metadata__"):
        return type_name(args[0])
    if args and (origin is Union or annotation.__class__.__name__ == "UnionType"):
        return " or ".join(type_name(arg) for arg in args if arg is not NoneType)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", Any: "any"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def default_of(field: FieldInfo) -> str:
    """The default as it would stand in the file."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    return "–" if value is None or value in ("", {}) else f"`{_toml(value)}`"


def model_table(model: type[BaseModel], skip: tuple[str, ...] = ()) -> str:
    """A Markdown table of a model's fields."""
    texts = descriptions(model)
    rows = [
        (f"`{name}`", type_name(field.annotation), default_of(field), texts.get(name, ""))
        for name, field in model.model_fields.items()
        if name not in skip
    ]
    return table(["key", "type", "default", "meaning"], rows) if rows else "No options.\n"


def suite_page() -> str:
    """Every table and key of a suite file."""
    from benchmarks.suite import schema, specs
    from dbn_core.data.sources import SOURCES
    from dbn_core.methods.registry import load_all
    from dbn_core.tasks.base import TASKS
    from dbn_core.train.recipe import Recipe

    load_all()
    models: dict[str, type[BaseModel]] = {
        "pool": specs.PoolSpec,
        "recipe": Recipe,
        "students": specs.StudentSpec,
        "latency": specs.LatencySpec,
        "shift": specs.ShiftSpec,
        "published": specs.PublishedSpec,
    }
    text = [
        "# The suite file\n\nA suite is one TOML file. Unknown keys are errors. Values are checked before anything is "
        "trained. [`digits.toml`](../../benchmarks/suites/digits.toml) is a commented example; `dbn-bench run FILE "
        "--set table.key=value` changes a value for one run.\n\n## Top of the file\n",
        model_table(schema.Suite),
        "## `[data]`\n\n`source` names one of the following; the other keys depend on it.\n",
    ]
    for name, source in SOURCES.items():
        text += [f'### `source = "{name}"`\n\n{prose(source)}\n', model_table(source, skip=("source",))]
    text.append("## `[network]`\n")
    for name, task in TASKS.items():
        text += [f'### Networks of `task = "{name}"`\n\n{prose(task.networks)}\n', model_table(task.networks)]
    for name, model in models.items():
        text += [f"## `[{name}]`\n\n{prose(model)}\n", model_table(model)]
    text += [f"## `[[methods]]`\n\n{prose(specs.MethodEntry)}\n", model_table(specs.MethodEntry)]
    text += [f"### `tuning`\n\n{prose(specs.TuningSpec)}\n", model_table(specs.TuningSpec)]
    text.append("## `[task]`\n\nOnly for suites of other tasks: `task = { name = ..., ... }`.\n")
    for name, task in TASKS.items():
        text += [f'### `name = "{name}"`\n\n{prose(task)}\n', model_table(task)]
    return "\n".join(text)


def prose(cls: type) -> str:
    """A docstring up to its sections, with single backticks and without roles."""
    text = re.split(r"\n\s*(?:Attributes|Args|Raises):", cls.__doc__ or "")[0]
    return inline(" ".join(text.split()))


def inline(text: str) -> str:
    """Markup of docstrings as Markdown."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


# Methods, suites, sources, commands, Python names.


def methods_page() -> str:
    """The methods: what they are, what they train, what they cost, and their options."""
    from dbn_core.methods.registry import methods

    text = [
        "# Methods\n\nA method is written as `name[option=value,...]`. *Trains* lists the parts for the smallest size "
        "that works, and how many members they read. *Costs* is the number of multiply-adds of a prediction relative "
        "to one network, from a committed report. Add your own: [Add a method](../add-a-method.md).\n"
    ]
    for task in dict.fromkeys(["classification", *(method.task for method in methods().values())]):
        found = {name: cls for name, cls in methods().items() if cls.task == task}
        text.append(f"## Methods of `{task}`\n")
        rows = [(f"[`{name}`](#{name})", cls.title or name, inline(cls.summary())) for name, cls in found.items()]
        text.append(table(["method", "in tables", "what it is"], rows))
        for name, cls in found.items():
            text += [f"### {name} {{ #{name} }}\n", f"{inline(cls.summary())}\n", f"* Reference: {cls.reference}"]
            text += [f"* In networks, M the size: {cls.networks}"] if cls.networks else []
            text += [f"* {line}" for line in [*needs(cls), *cost(name)]]
            options = cls.Config.model_fields
            text.append("\n" + (model_table(cls.Config) if options else "No options.\n"))
    return "\n".join(text)


def needs(cls: Any) -> Iterator[str]:
    """Parts and members at the smallest size that a method takes, with default options."""
    from dbn_core.errors import SpecError

    for size in range(1, 10):
        try:
            method = cls()
            method.check_size(size)
            parts, members = method.parts(size), method.members(size)
        except SpecError:
            continue
        read = {member for part in parts for member in part.members}
        names = ", ".join(f"`{part.name}`" for part in parts) or "nothing"
        taught = f" (reads {len(read)} members)" if read else ""
        yield f"Trains, at size {size}: {names}{taught}"
        yield f"A prediction runs {len(members)} of the pool's networks, and the trained parts"
        return


@cache
def summaries() -> dict[str, Any]:
    """Rows of all committed summaries, by suite."""
    import pandas as pd

    files = sorted((ROOT / "results" / "reference").glob("*/summary.csv"))
    order = ("cifar10-cpu", "digits")
    files.sort(key=lambda file: (file.parent.name not in order, file.parent.name))
    return {file.parent.name: pd.read_csv(file) for file in files}


def cost(name: str) -> Iterator[str]:
    """The counted cost in the first committed report that has the method."""
    for suite, rows in summaries().items():
        rows = rows[(rows["family"] == name) & rows["macs_rel"].notna()] if "macs_rel" in rows else rows[:0]
        if len(rows):
            row = rows.iloc[0]
            label = f"{row['label']}, size {row['size']}"
            yield f"Costs {row['macs_rel']:.2f}× in [{suite}](../../reports/{suite}/report.md) ({label})"
            return


def suites_page() -> str:
    """The built-in suites."""
    from benchmarks.suite.builtin import available

    text = [
        "# Suites\n\n`dbn-bench run NAME` runs one. A suite of your own is a file: [its reference](suite-file.md).\n"
    ]
    for name, path in available().items():
        suite = tomllib.loads(path.read_text(encoding="utf-8"))
        report = ROOT / "reports" / name / "report.md"
        links = [f"[{path.name}](../../{path.relative_to(ROOT).as_posix()})"]
        links += [f"[report](../../reports/{name}/report.md)"] if report.exists() else []
        used = ", ".join(f"`{use}`" for use in dict.fromkeys(entry["use"] for entry in suite["methods"]))
        pool = suite.get("pool", {}).get("members", 8)
        facts = f"{suite.get('repetitions', 3)} repetitions, {pool} members, data `{suite['data']['source']}`"
        text.append(f"## {name}\n\n**{suite['title']}** ({facts}). {', '.join(links)}\n")
        text.append(" ".join(suite.get("description", "").split()) + f"\n\nMethods: {used}\n")
    return "\n".join(text)


def sources_page() -> str:
    """The data sources."""
    from dbn_core.data.sources import SOURCES
    from dbn_core.methods.registry import load_all

    load_all()
    rows = [(f"`{name}`", source.summary or prose(source)) for name, source in SOURCES.items()]
    return (
        "# Data sources\n\n`[data] source` of a suite file names one; [the suite file](suite-file.md#data) lists their "
        "options.\n\n" + table(["source", "what it reads"], rows)
    )


def commands_page() -> str:
    """The commands with their options."""
    import typer

    from benchmarks.cli import application

    group: Any = typer.main.get_command(application())
    text = ["# Commands\n\n`dbn-bench COMMAND --help` prints the same.\n"]
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        commands = {f"{name} {sub}": each for sub, each in inner.items()} if inner else {name: command}
        for full, each in commands.items():
            arguments = " ".join((p.metavar or p.name.upper()) for p in each.params if p.param_type_name == "argument")
            text.append(f"## {full}\n\n{escape(inline(' '.join((each.help or '').split())))}\n")
            text.append(f"```sh\ndbn-bench {full} {arguments}\n```\n".replace(" \n", "\n"))
            rows = [
                (", ".join(f"`{opt}`" for opt in p.opts), f"`{p.default}`" if _has_default(p) else "–", p.help or "")
                for p in each.params
                if p.param_type_name == "option"
            ]
            text.append(table(["option", "default", "meaning"], rows) if rows else "No options.\n")
    return "\n".join(text)


def _has_default(parameter: Any) -> bool:
    return parameter.default not in (None, (), [], False, "")


def api_page() -> str:
    """The public names of ``dbn_core``, filled in by mkdocstrings."""
    import dbn_core

    text = [
        "# Python names\n\nWhat `dbn_core` exports, the contract of plugins "
        "([what may change](../plugins.md#what-stays-as-it-is)).\n"
    ]
    text += [f"::: {module}.{name}\n" for name, module in dbn_core._PUBLIC.items()]
    return "\n".join(text)


REFERENCES: dict[str, Callable[[], str]] = {
    "reference/suite-file.md": suite_page,
    "reference/methods.md": methods_page,
    "reference/suites.md": suites_page,
    "reference/sources.md": sources_page,
    "reference/commands.md": commands_page,
    "reference/api.md": api_page,
}


# Reports.


def report_pages() -> Iterator[tuple[str, str | Path]]:
    """The leaderboard and the pages of the committed reports, and the files that they show or link."""
    yield "reports/README.md", (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "reports").glob("*/*.md")):
        name = page.relative_to(ROOT).as_posix()
        yield name, page.read_text(encoding="utf-8")
        for file in page.parent.glob("*/*"):
            if file.suffix in (".png", ".csv", ".tex"):
                yield file.relative_to(ROOT).as_posix(), file
        for file in page.parent.glob("*.csv"):
            yield file.relative_to(ROOT).as_posix(), file


# Hooks of mkdocs.


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the repository's files that pages link."""
    from mkdocs.structure.files import File

    made: dict[str, str | Path] = {name: make() for name, make in REFERENCES.items()}
    made |= dict(report_pages())
    texts = {name: text for name, text in made.items() if isinstance(text, str)}
    texts |= {
        file.src_uri: Path(str(file.abs_src_path)).read_text(encoding="utf-8")
        for file in files.documentation_pages()
        if file.abs_src_path
    }
    pages = {*made, *(file.src_uri for file in files)}
    for name, text in texts.items():
        for target in LINK.findall(text):
            path = repository_path(name, target)
            if path and site_path(path) not in pages and (ROOT / path).is_file():
                made[f"files/{path}"] = ROOT / path
    for name, content in made.items():
        if isinstance(content, Path):
            files.append(File.generated(config, name, abs_src_path=str(content)))
        else:
            files.append(File.generated(config, name, content=content))
    return files


LINK = re.compile(r"\]\(((?![a-z]+:|#|<)[^)\s]+)\)")


def repository_path(page: str, target: str) -> str | None:
    """The file of the repository that a link means, from a page's name in the site; None outside the repository."""
    name = target.partition("#")[0]
    inside = page.startswith(("reports/", "files/"))
    origin = page.removeprefix("files/") if inside else f"docs/{page}"
    folder = PurePosixPath(origin).parent
    path = os.path.normpath(folder / name)
    return None if path.startswith("..") or not name else path.replace(os.sep, "/")


def site_path(path: str) -> str:
    """The page of a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""

    def link(match: re.Match[str]) -> str:
        path = repository_path(page.file.src_uri, match[1])
        anchor = match[1][len(match[1].partition("#")[0]) :]
        if path is None:
            return match[0]
        for name in (site_path(path), f"files/{path}"):
            if files.get_file_from_path(name):
                return f"]({os.path.relpath(name, PurePosixPath(page.file.src_uri).parent)}{anchor})"
        return "]()" if (ROOT / path).exists() else match[0]

    text = LINK.sub(link, markdown)
    return re.sub(r"\[([^\]]*)\]\(\)", r"\1", text)  # a folder of the repository has no page


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the roles out of rendered docstrings."""
    return re.sub(r":(?:class|func|data|meth|mod|attr):(?=<code>|`)", "", html)


def table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([inline(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines) + "\n"


def escape(text: str) -> str:
    """Text whose brackets are not Markdown's."""
    return text.replace("<", "&lt;")
