"""asv's environment is the one that constraints.txt and the Makefile describe."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def matrix():
    return json.loads((ROOT / "asv.conf.json").read_text("utf-8"))["matrix"]


def test_every_pin_is_that_of_the_constraints(matrix):
    tested = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    assert {name: [tested[name.removeprefix("pip+")]] for name in matrix["req"]} == matrix["req"]


# What experiments, reports and the command line need, and no benchmark imports.
NOT_MEASURED = {"platformdirs", "pooch", "safetensors", "filelock", "matplotlib", "jinja2", "typer", "rich"}


def test_every_dependency_is_installed(matrix):
    """The wheel goes in without its dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {re.split(r"[<>=!~ ]", name)[0] for name in project["dependencies"]} - NOT_MEASURED <= matrix["req"].keys()


def test_the_makefile_exports_what_asv_sets(matrix):
    exported = dict(re.findall(r"^export (\w+) := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {name: [exported.get(name)] for name in matrix["env_nobuild"]} == matrix["env_nobuild"]
