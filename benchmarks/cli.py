"""The command line ``dbn-bench``: its commands, and how their errors are shown.  Imports no torch."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from benchmarks.commands.common import errors
from dbn_core.errors import BenchError, InterruptedRunError

# In the order of the help; each is a module of benchmarks.commands, with a function of its name (`store_app`, `list_`),
# in both of which an underscore stands for a hyphen.
COMMANDS = (
    *("new", "run", "report", "show", "check", "check-network", "status", "claims"),
    *("score", "submit", "leaderboard", "compare", "mix", "export", "simulate", "list", "store"),
)
_FUNCTIONS = {"list": "list_", "store": "store_app"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dbn-bench {version('dbn-bench')}")
        raise typer.Exit


def _callback(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def application(word: str = "") -> typer.Typer:
    """The command line: of the one command that ``word`` names, which loads faster, or of all."""
    app = typer.Typer(
        add_completion=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # options of a spec, as in dbn[steps=1], are no markup
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Benchmark suite for fast ensembling: a deep ensemble's accuracy and calibration at one network's cost.",
    )
    app.callback()(_callback)  # with a callback typer expects the name of a command, also if there is only one
    for name in [word] if word in COMMANDS else COMMANDS:
        module = name.replace("-", "_")
        command = getattr(import_module(f"benchmarks.commands.{module}"), _FUNCTIONS.get(name, module))
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _complain(text: str, style: str | None) -> None:
    """Print one line on stderr; control characters are written as escapes."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if len(line) > 2000:  # an absurd input; the remedy is at the end
        line = f"{line[:1500]} … {line[-400:]}"
    errors.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error of the user is one sentence on stderr and exit code 1."""
    try:
        application(*sys.argv[1:2])()
    except BenchError as error:
        stopped = isinstance(error, InterruptedRunError)
        _complain(str(error) if stopped else f"Error: {error}", style=None if stopped else "red")
        raise SystemExit(130 if stopped else 1) from None
    except OSError as error:  # a full disk, a folder in the way, no permission: the message of the file system
        where = f"'{error.filename}': " if error.filename else ""
        _complain(f"Error: {where}{error.strerror or error}.", style="red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("Stopped at once. Finished artefacts are stored; the same command continues.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
