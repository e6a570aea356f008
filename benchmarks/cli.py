"""The command line ``dbn-bench``: its commands, and what becomes of their errors.  Imports no torch."""

from __future__ import annotations

import typer

from benchmarks.commands.common import errors
from benchmarks.commands.exporting import export
from benchmarks.commands.methods import check, list_, show
from benchmarks.commands.predictions import compare, score
from benchmarks.commands.reporting import claims, report
from benchmarks.commands.running import run, status
from benchmarks.commands.simulate import simulate
from benchmarks.commands.store import store_app
from dbn_core.errors import BenchError

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Benchmark suite for fast ensembling: a deep ensemble's accuracy and calibration at one network's cost.",
)
for command in (run, report, show, check, status, claims, score, compare, export, simulate):
    app.command()(command)
app.command("list")(list_)
app.add_typer(store_app, name="store")


def _complain(text: str, style: str | None) -> None:
    """One line on stderr; what would break the line or steer the terminal is written as an escape."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if len(line) > 2000:  # of an absurd input; the remedy stands at the end
        line = f"{line[:1500]} … {line[-400:]}"
    errors.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit code 1."""
    try:
        app()
    except BenchError as error:
        stopped = type(error).__name__ == "InterruptedRunError"
        _complain(str(error) if stopped else f"Error: {error}", style=None if stopped else "red")
        raise SystemExit(130 if stopped else 1) from None
    except OSError as error:  # a full disk, a folder in the way, no permission: the file system says it best
        where = f"'{error.filename}': " if error.filename else ""
        _complain(f"Error: {where}{error.strerror or error}.", style="red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("Stopped at once; what was finished is kept, and the same command goes on from there.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
