"""`vaebench new`: the beginning of a package of your own."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from vaebench.cli.common import AsJson, print_json, refusing

app = typer.Typer(no_args_is_help=True)

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "{name}.py": "{kind}.py",
    "tests/test_{name}.py": "tests.py",
}


@app.callback()
def new() -> None:
    """Write the beginning of a package of your own, its tests green."""


@app.command()
def estimator(
    name: Annotated[str, typer.Argument(help="Name of the estimator and of its package.")],
    directory: Annotated[Path, typer.Option(help="Where to write the package.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Write a package with one gradient estimator, registered by its name, and the contract as its test.

    Exits with 2 if the name cannot be used. Example:

        vaebench new estimator antithetic

        pip install --no-build-isolation --no-deps -e antithetic && pytest antithetic

        vaebench check --estimator antithetic
    """
    _write("estimator", name, directory, as_json, (
        "Install it: pip install --no-build-isolation --no-deps -e {package}",
        "Certify it: vaebench check --estimator {name}",
    ))  # fmt: skip


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="Name of the model and of its package.")],
    directory: Annotated[Path, typer.Option(help="Where to write the package.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Write a package with one model of two nn.Modules, data for it, and the contract as its test.

    Exits with 2 if the name cannot be used. Example:

        vaebench new model my_vae

        cd my_vae && pytest && vaebench certify pathwise --model my_vae:my_vae --data my_vae:data --quick
    """
    _write("model", name, directory, as_json, (
        "Certify an estimator on it, in {package}:",
        "    vaebench certify pathwise --model {name}:{name} --data {name}:data --quick",
    ))  # fmt: skip


def _write(kind: str, name: str, directory: Path, as_json: bool, then: tuple[str, ...]) -> None:
    """Write a package, and say what is in it and what to do then."""
    with refusing(f"new {kind}"):
        package = write_package(kind, name, directory)
    written = sorted(str(path) for path in package.rglob("*") if path.is_file())
    if as_json:
        print_json({"directory": str(package), "files": written})
        return
    typer.echo("\n".join([*written, "", f"Test it:    pytest {package}"]))
    typer.echo("\n".join(line.format(package=package, name=name) for line in then))


def write_package(kind: str, name: str, directory: Path) -> Path:
    """Write the package, whole or not at all.

    Args:
        kind: "estimator" or "model".
        name: of the part, its module, its package and its directory.
        directory: where that one is made.

    Returns:
        The package's directory.

    Raises:
        ValueError: if the name cannot be used, or something of that name is there.
    """
    package = directory / name
    _require_free(kind, name, package)
    templates = files("vaebench.cli") / "templates" / kind
    temporary = directory / f".{name}.{os.getpid()}"
    try:
        for target, source in FILES.items():
            path = temporary / target.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / f"{source.format(kind=kind)}.txt").read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(name=name), encoding="utf-8")
        temporary.rename(package)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return package


def _require_free(kind: str, name: str, package: Path) -> None:
    if not re.fullmatch("[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", name) or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} is no name for a function and a package: use letters, digits and inner underscores, "
            "a letter first, and no word of Python's."
        )
    if not package.parent.is_dir():
        raise ValueError(f"There is no directory {str(package.parent)!r}: make it, or choose another.")
    if package.exists():
        raise ValueError(f"{str(package)!r} is there already: choose another name or another directory.")
    from vaebench.gradients.estimators import ESTIMATORS
    from vaebench.models import MODELS

    if name in set(ESTIMATORS if kind == "estimator" else MODELS):
        article = "an" if kind == "estimator" else "a"
        raise ValueError(f"There is already {article} {kind} called {name!r}; choose another name.")
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None:
        raise ValueError(f"There is already a Python module called {name!r}; choose another name.")
