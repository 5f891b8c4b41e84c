"""The command line, one module per command. Nothing heavy is imported before a command runs."""

from typing import Annotated

import typer

import vaebench
from vaebench.cli import catalogue, certify, check, compare, frontier, new, report, run

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vaebench {vaebench.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure and certify how variational autoencoders train.

    Every command exits with 0 if all is well, with 1 if a check failed or a run broke, with 2 if the question
    cannot be asked.
    """


app.command("list")(catalogue.catalogue)
app.command()(run.run)
app.command()(run.resume)
app.command()(certify.certify)
app.command()(check.check)
app.command()(report.report)
app.command()(frontier.frontier)
app.command()(compare.compare)
app.add_typer(new.app, name="new")
