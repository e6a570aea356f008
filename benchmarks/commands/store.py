"""``dbn-bench store``: verify, gc, export, import, release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import (
    STORE,
    Add,
    DataRoot,
    Plugins,
    RowsDir,
    Set,
    StoreDir,
    SuiteName,
    echo,
    errors,
    load_plan,
    load_plugins,
    open_store,
    output_dirs,
    overrides,
    table,
)

store_app = typer.Typer(no_args_is_help=True, help="Verify, clean, export, import and release the store.")


@store_app.command()
def verify(store: StoreDir = STORE) -> None:
    """Read and check every artefact.

    Damaged ones are set aside, and the next run makes them again.  Released results are checked too; git restores a
    damaged file of them.
    """
    from benchmarks.store.storage import verify_store

    the_store = open_store(store)
    counts = verify_store(the_store)
    table(f"Store {store}", ["artefacts", "intact"], [(kind, str(n)) for kind, n in sorted(counts.items())])
    if the_store.damaged:
        for sentence in the_store.damaged:
            errors.print(sentence, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    echo("Everything is intact.")


@store_app.command()
def gc(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep only what this suite needs (a name or a path), in either precision; may be repeated.  Without "
            "it no intact artefact is removed.",
            metavar="SUITE",
        ),
    ] = None,
    store: StoreDir = STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")] = False,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    add: Add = None,
) -> None:
    """Remove temporary files, damaged artefacts and old checkpoints.

    With --keep also every artefact that no kept suite uses; --set and --add change every kept suite as in `run`.  A
    store in use is not changed.
    """
    from benchmarks.store.storage import UNNEEDED, cleaning, collect, remove, unneeded
    from benchmarks.suite.load import load_suite, with_methods
    from benchmarks.work.planning import plan_suite

    the_store = open_store(store)
    load_plugins(plugin)
    with cleaning(the_store):
        plans = [
            plan_suite(with_methods(load_suite(name, overrides(set_, data_root, False), bf16), add or []), the_store)
            for name in keep or []
            for bf16 in (True, False)
        ]
        litter = collect(the_store, plans if keep else None)
        if going := unneeded(the_store, litter.get(UNNEEDED, [])):
            table(
                "Artefacts that no kept suite needs",
                ["data", "what", "artefacts", "MiB"],
                [(data, what, str(count), f"{size / 2**20:.1f}") for data, what, count, size in going],
            )
        freed = sum(path.stat().st_size for paths in litter.values() for path in paths)
        table(f"Store {store}", ["what", "files"], [(what, str(len(paths))) for what, paths in litter.items()])
        if not dry_run:
            if any(litter.values()) and not yes:
                typer.confirm(f"Remove these files, {freed / 2**20:.1f} MiB (--yes answers this)?", abort=True)
            remove(litter)
    echo(f"{freed / 2**20:.1f} MiB {'would be' if dry_run else 'were'} freed.")


@store_app.command("export")
def export_(
    suite: SuiteName,
    file: Annotated[Path, typer.Argument(help="The bundle to write, a .zip file.")],
    store: StoreDir = STORE,
    rows: RowsDir = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Include the trained weights and stored logits that the store has.")
    ] = False,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Write a suite's results into one file.

    Another machine makes the same report from it without training.
    """
    from benchmarks.store.bundle import export_suite

    plan, the_store = load_plan(suite, store, set_, data_root, plugin)
    folder, _ = output_dirs(plan.suite.name, rows, None, False)
    count = export_suite(plan, the_store, folder, file, weights)
    echo(f"{count} artefacts in {file}, {file.stat().st_size / 2**20:.1f} MiB.")


@store_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A bundle that `dbn-bench store export` wrote.")],
    store: StoreDir = STORE,
    rows: RowsDir = None,
    replace_rows: Annotated[
        bool, typer.Option("--replace-rows", help="Replace other result rows of the suite by those of the bundle.")
    ] = False,
) -> None:
    """Read the artefacts and result rows of a bundle into this store.

    Everything is checked first.  Nothing can show whether the predictions of a bundle are those of its recipes: trust
    it as you trust its author.
    """
    from benchmarks.store.artefacts import Store
    from benchmarks.store.bundle import import_bundle

    suite, count, folder = import_bundle(file, Store(store), rows, replace_rows, echo)
    echo(f"{count} new artefacts of the suite {suite} are in {store}, its rows in {folder}.")
    echo(f"Report: dbn-bench report {suite}" + (f" --rows {folder}" if rows else ""))


@store_app.command()
def release(
    suite: SuiteName,
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets one folder a suite.  [default: results/released]")
    ] = None,
    pools: Annotated[
        int | None,
        typer.Option(help="Members' weights of this many pools, from the first; 0: none.  [default: all]", min=0),
    ] = None,
    parts: Annotated[
        int, typer.Option(help="Trained students and bridges of this many repetitions, from the first.", min=0)
    ] = 1,
    without_weights: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="A method whose trained networks are not released; repeat for several."),
    ] = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """For maintainers: write what the store has of a suite as files to commit.

    The suite need not be complete; a second release adds what is new.
    """
    from benchmarks.store.release import release_suite
    from benchmarks.store.released import FOLDER

    plan, the_store = load_plan(suite, store, set_, data_root, plugin)
    folder = (out or FOLDER) / plan.suite.name
    done = release_suite(plan, the_store, folder, pools, parts, without_weights or ())
    table(
        f"Suite {plan.suite.name} in {folder}",
        ["artefacts", "released", "with their tensors", "planned"],
        [(kind, *map(str, counts)) for kind, counts in done.counts.items()],
    )
    table("", ["file", "MiB"], [(name, f"{size / 2**20:.2f}") for name, size in done.files.items()])
    echo(f"{sum(done.files.values()) / 2**20:.1f} MiB in {folder}: commit it.")
