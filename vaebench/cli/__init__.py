"""The command line, one module per command. Nothing heavy is imported before a command runs."""

import gc
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import vaebench
from vaebench.cli import catalogue, certify, check, compare, frontier, new, report, run
from vaebench.cli.common import say
from vaebench.support.texts import sentence

CLICKS = typer.BadParameter.__bases__[0].__bases__[0]
MEANT: tuple[type[Exception], ...] = (typer.Exit, typer.Abort, CLICKS, BrokenPipeError)  # a closed pipe ends a command


class Commands(TyperGroup):
    """The commands; what breaks in one, of ours or of a plug-in, is one sentence and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Args:
            ctx: of the command line.

        Returns:
            What the command returns.

        Raises:
            Exit: with 1, if the command broke.
        """
        try:
            return super().invoke(ctx)
        except MEANT:
            raise
        except Exception as trouble:
            if ctx.params.get("traceback"):
                raise
            why = f"it broke ({type(trouble).__name__}: {sentence(trouble)})"
            say(ctx.invoked_subcommand or "", f"{why}; vaebench --traceback shows where.")
            raise typer.Exit(1) from None
        finally:
            gc.freeze()  # the process ends: looking through torch's modules for garbage would take most of a second


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vaebench {vaebench.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a command broke.")] = False,
) -> None:
    """Measure and certify how variational autoencoders train.

    Every command exits with 0 if all is well, with 1 if a check failed or a run broke, with 2 if the question
    cannot be asked. Parts of your own, package.module:function, are looked for in the current directory, too.
    """
    if "" not in sys.path:
        sys.path.append("")


app.command("list")(catalogue.catalogue)
app.command()(run.run)
app.command()(run.resume)
app.command()(certify.certify)
app.command()(check.check)
app.command()(report.report)
app.command()(frontier.frontier)
app.command()(compare.compare)
app.add_typer(new.app, name="new")
