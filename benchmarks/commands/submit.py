"""``submit``: predictions made elsewhere as an entry of the leaderboard."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.common import STORE, DataRoot, StoreDir, SuiteName, echo, load_plan
from benchmarks.commands.display import EQUIVALENTS, ArrayKey, Macs, Params, Values, caveat_lines, number, print_table
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.entries import Figure
    from benchmarks.store.artefacts import Store
    from benchmarks.suite.plan import Plan
    from benchmarks.suite.schema import Suite
    from dbn_core.metrics.scores import Array

# What nobody but the submitter knows, and the question on a terminal.
_ASKED = {
    "method": "Name of the method",
    "size": "Members that it stands for (1 for a single network)",
    "paper": "Paper: an arXiv number, a DOI or an address, or 'none'",
    "code": "Address of the code, or 'none'",
    "licence": "Licence of code and predictions, for example MIT",
    "who": "Who submits it, a name or an account",
    "name": "There is an entry of this name; another name for its folder",
}
_NAMES = {"acc": "Accuracy", "nll": "NLL", "cnll": "NLL, calibrated"} | EQUIVALENTS


def submit(
    suite: SuiteName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Predictions of the test split, as `score` takes them, one file for each repetition (training).  An "
            ".npz may hold labels, validation and validation_labels as well."
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="What the table calls the method.")] = None,
    size: Annotated[
        int | None, typer.Option(help="How many members it stands for; 1 for a single network.", min=1)
    ] = None,
    paper: Annotated[str | None, typer.Option(help="An arXiv number, a DOI or an address, or 'none'.")] = None,
    code: Annotated[str | None, typer.Option(help="Address of the code, or 'none'.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of code and predictions.")] = None,
    who: Annotated[str | None, typer.Option(help="Who submits it, a name or an account.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the entry's folder.  [default: from the method and size]")
    ] = None,
    macs: Macs = None,
    params: Params = None,
    train_passes: Annotated[
        float | None,
        typer.Option(
            help="Examples that went through networks in training, members and teachers included; a network of twice a "
            "member's cost counts twice.",
            parser=number,
            metavar="NUMBER",
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="A sentence for readers.")] = "",
    plugin: Annotated[
        Path | None, typer.Option(help="Plugin file of the method, with which it can be reproduced.", metavar="FILE")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Class numbers of the test examples; one file, or one for each repetition.", metavar="FILE"),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions of the validation split, for temperature scaling; one file for each repetition.",
            metavar="FILE",
        ),
    ] = None,
    validation_labels: Annotated[
        list[Path] | None,
        typer.Option(help="Class numbers of the validation examples; as --labels.", metavar="FILE"),
    ] = None,
    key: ArrayKey = None,
    values: Values = "auto",
    stated: Annotated[
        list[str] | None,
        typer.Option(
            help="A figure of a paper, in the place of predictions: acc, nll, cnll or a DEE, for example "
            "acc=0.93; may be repeated.  It needs --paper and --on.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(help="With --stated: their data and network.", metavar="TEXT", show_default=False),
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the entry of the same name.")] = False,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
) -> None:
    """Submit predictions made elsewhere to the leaderboard.

    They are checked and scored against a released suite, and written to results/entries/SUITE/NAME.  On a terminal the
    command asks for what is not given.
    """
    from benchmarks.entries import FOLDER, check_fields, default_name, make_entry
    from benchmarks.results.entries import check_free, check_unlisted, packed, score_repetitions, unpacked, write_entry

    if files and stated:
        raise SpecError("Both files and --stated were given: an entry has predictions, or figures of a paper.")
    if not files and not stated:
        raise SpecError("Give files of predictions, one for each repetition, or figures of a paper with --stated.")
    if on and files:
        raise SpecError("--on is for figures with --stated: predictions are of the suite's own data.")
    fields: dict[str, Any] = {"method": method, "size": size, "paper": paper, "code": code}
    fields |= {"licence": licence, "who": who, "note": note, "name": name}
    fields["cost"] = {"macs": macs, "params": params, "train_passes": train_passes}
    missing = [field for field in _ASKED if field != "name" and fields[field] is None]
    if missing and not _on_terminal():
        listed = ", ".join(f"--{field}" for field in missing)
        raise SpecError(f"An entry needs {listed}: give {'them' if len(missing) > 1 else 'it'}, or use a terminal.")
    if plugin is not None:
        if not plugin.is_file():
            raise SpecError(f"--plugin: file '{plugin}' does not exist: check the path.")
        fields["plugin"] = plugin.name
    check_fields({field: value for field, value in fields.items() if value is not None})
    the_suite = _classifying(suite)
    fields |= {"suite": the_suite.name, "on": on}
    if folder_name := name or (default_name(method, size) if method and size else None):
        check_free(FOLDER, the_suite.name, folder_name, replace)
        if method and size:
            check_unlisted(FOLDER, the_suite, method, size, folder_name)
    content = b""
    if stated:
        fields |= {"status": "stated", "scores": _figures(stated)}
    else:
        plan, the_store = _released_plan(suite, fields["suite"], store, data_root)
        given = {"labels": labels, "validation": validation, "validation_labels": validation_labels}
        content = packed(_load(plan, the_store, files or [], given, key, values))
        scores = score_repetitions(plan, the_store, unpacked(content, plan, the_store))
        _print_scores(scores, len(files or []), max(cell.size for cell in plan.cells if cell.is_reference))
        fields |= {"repetitions": len(files or []), "scores": scores}
        fields["predictions"] = hashlib.sha256(content).hexdigest()
    fields |= {field: _ask(field) for field in missing}
    fields["name"] = fields["name"] or default_name(fields["method"], fields["size"])
    while missing and not replace and (FOLDER / fields["suite"] / fields["name"]).exists():
        fields["name"] = _ask("name")
    check_unlisted(FOLDER, the_suite, fields["method"], fields["size"], fields["name"])
    entry = make_entry(fields)
    folder = write_entry(FOLDER, entry, content, plugin, replace)
    echo(f"Wrote {folder} ({(len(content) + len(entry.to_json())) / 1000:,.0f} kB).")
    echo("Next: `dbn-bench leaderboard --publish` adds it to reports/README.md.")
    echo(f"Then open a pull request with {folder} and reports/README.md.")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _classifying(suite: str) -> Suite:
    """A suite of classification."""
    from benchmarks.suite.load import load_suite

    found = load_suite(suite)
    if found.task.name != "classification":
        raise SpecError(f"'{suite}' is a suite of {found.task.name}: the leaderboard has suites of classification.")
    return found


def _released_plan(suite: str, name: str, store: Path, data_root: Path | None) -> tuple[Plan, Store]:
    """The plan of a suite whose own predictions are released, so that anybody can score an entry of it again."""
    from benchmarks.store.released import released_root, released_suites

    known = [found.folder.name for found in released_suites(released_root())]
    if name not in known:
        raise SpecError(
            f"The predictions of '{name}' are not released, so that nobody could score the entry again: submit to "
            f"{' or '.join(known) or 'a released suite'}, or add a row to your own report with `dbn-bench score`."
        )
    return load_plan(suite, store, None, data_root, None)


def _load(
    plan: Plan, store: Store, files: Sequence[Path], given: dict[str, list[Path] | None], key: str | None, values: str
) -> list[dict[str, Array]]:
    """The arrays of each repetition, checked."""
    from benchmarks.results.entries import check_repetitions
    from benchmarks.results.external.predictions import predictions_of_file
    from dbn_core.tasks.class_scores import score_arrays

    each = {name: _for_each(name, paths, len(files)) for name, paths in given.items()}
    repetitions = []
    for index, file in enumerate(files):
        more = {name: paths[index] for name, paths in each.items()}
        loaded = predictions_of_file(file, **more, key=key, values=values, classes=plan.data.classes)
        for line in [*loaded.notes, *caveat_lines(score_arrays(loaded.arrays))]:
            echo(line)
        repetitions.append(loaded.arrays)
    check_repetitions(plan, store, repetitions, [file.name for file in files])
    if "validation" not in repetitions[0]:
        echo(
            "No validation predictions, so the entry has no calibrated scores and is listed after those that have: "
            "give --validation and --validation-labels, or the arrays validation and validation_labels of an .npz."
        )
    return repetitions


def _for_each(option: str, paths: list[Path] | None, count: int) -> Sequence[Path | None]:
    """One path for each repetition: all may share labels."""
    if not paths:
        return [None] * count
    if len(paths) == 1 and option != "validation":
        return paths * count
    if len(paths) != count:
        flag = f"--{option.replace('_', '-')}"
        raise SpecError(f"There are {count} files of predictions and {len(paths)} of {flag}: give one for each.")
    return paths


def _figures(stated: Sequence[str]) -> dict[str, Any]:
    """Stated figures by name; a deep-ensemble equivalent may be ``<1``."""
    found: dict[str, Any] = {}
    for pair in stated:
        name, _, text = (part.strip() for part in pair.partition("="))
        try:
            found[name] = {"value": float("-inf" if name.startswith("dee_") and text == "<1" else text)}
        except ValueError:
            raise SpecError(f"--stated {pair}: write NAME=VALUE, for example acc=0.93.") from None
    return found


def _ask(field: str) -> Any:
    """An answer that an entry takes."""
    from benchmarks.entries import check_fields

    def checked(text: str) -> Any:
        try:
            return check_fields({field: text})[field]
        except SpecError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(_ASKED[field], value_proc=checked)


def _print_scores(scores: dict[str, Figure], repetitions: int, largest: int) -> None:
    from benchmarks.report.tables.formatting import dee_text

    nan, rows = float("nan"), []
    for name, figure in scores.items():
        low, high = (nan if end is None else end for end in (figure.low, figure.high))
        if name.startswith("dee_"):
            value, _, interval = dee_text(figure.value, low, high, largest).partition(" [")
            rows.append((_NAMES[name], value, f"[{interval}" if interval else ""))
        else:
            scale, form = (100, ".2f") if name == "acc" else (1, ".4f")
            texts = [f"{scale * end:{form}}" for end in (figure.value, low, high)]
            unit = " %" if name == "acc" else ""
            rows.append((_NAMES[name], texts[0] + unit, f"[{texts[1]}, {texts[2]}]" if figure.low is not None else ""))
    over = f"{repetitions} repetitions and examples" if repetitions > 1 else "examples"
    print_table(["score", "value", f"95 % interval over {over}"], rows)
    if repetitions == 1:
        echo("One repetition: the intervals speak of other test examples, not of other trainings.")
