"""The command line ``dbn-bench``: its commands, and what becomes of their errors.  Imports no torch."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from benchmarks.commands.common import errors
from dbn_core.errors import BenchError, InterruptedRunError

# Every command, in the order of the help, and where its function is.
COMMANDS = {
    "run": "running:run",
    "report": "reporting:report",
    "show": "methods:show",
    "check": "methods:check",
    "status": "running:status",
    "claims": "reporting:claims",
    "score": "predictions:score",
    "compare": "predictions:compare",
    "export": "exporting:export",
    "simulate": "simulate:simulate",
    "list": "methods:list_",
    "store": "store:store_app",
}


def application(word: str = "") -> typer.Typer:
    """The command line: of the command that ``word`` names alone, or of all; those not asked for take time to load."""
    app = typer.Typer(
        add_completion=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Benchmark suite for fast ensembling: a deep ensemble's accuracy and calibration at one network's cost.",
    )
    app.callback()(lambda: None)  # however many there are, the command is named
    for name in [word] if word in COMMANDS else COMMANDS:
        module, _, function = COMMANDS[name].partition(":")
        command = getattr(import_module(f"benchmarks.commands.{module}"), function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _complain(text: str, style: str | None) -> None:
    """One line on stderr; what would break the line or steer the terminal is written as an escape."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if len(line) > 2000:  # of an absurd input; the remedy stands at the end
        line = f"{line[:1500]} … {line[-400:]}"
    errors.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit code 1."""
    try:
        application(*sys.argv[1:2])()
    except BenchError as error:
        stopped = isinstance(error, InterruptedRunError)
        _complain(str(error) if stopped else f"Error: {error}", style=None if stopped else "red")
        raise SystemExit(130 if stopped else 1) from None
    except OSError as error:  # a full disk, a folder in the way, no permission: the file system says it best
        where = f"'{error.filename}': " if error.filename else ""
        _complain(f"Error: {where}{error.strerror or error}.", style="red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("Stopped at once. Finished artefacts are stored; the same command continues.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
