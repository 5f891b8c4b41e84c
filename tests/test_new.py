"""`vaebench new`: a package that is green at once, or a refusal that leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vaebench.cli import app, new
from vaebench.gates.verdict import judge

PASSED = [judge("stub", "It holds", 0.0, 1.0, 0.0)]
ROOT = Path(__file__).parents[1]


def begin(*arguments):
    return CliRunner().invoke(app, ["new", "estimator", *map(str, arguments)])


def python(*arguments, cwd, path=ROOT):
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_new_package_is_green_and_its_name_is_found_once_installed(tmp_path, monkeypatch):
    result = begin("my_estimator", "--directory", tmp_path, "--json")
    written = json.loads(result.stdout)
    assert result.exit_code == 0 and all(Path(name).is_file() for name in written["files"])
    tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "my_estimator", cwd=tmp_path)
    assert tests.returncode == 0 and "3 passed" in tests.stdout, tests.stdout + tests.stderr

    pip = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    installed = python(*pip, "--target", "site", "./my_estimator", cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = []
    monkeypatch.setattr("vaebench.gates.run_gates", lambda _, estimator, *__, **___: found.append(estimator) or PASSED)
    assert CliRunner().invoke(app, ["check", "--estimator", "my_estimator"]).exit_code == 0
    assert [(one.__module__, one.__name__) for one in found] == [("my_estimator", "my_estimator")]
    sys.modules.pop("my_estimator")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "'1st' is no name for a function and a package"),
        ("class", "'class' is no name"),
        ("inner-dash", "'inner-dash' is no name"),
        ("trailing_", "'trailing_' is no name"),
        ("größe", "'größe' is no name"),
        ("../up", "'../up' is no name"),
        ("pathwise", "already an estimator called 'pathwise'"),
        ("json", "already a Python module called 'json'"),
        ("taken", "is there already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path, name, message):
    (tmp_path / "taken").mkdir()
    result = begin(name, "--directory", tmp_path)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_missing_directory_is_refused(tmp_path):
    result = begin("fine", "--directory", tmp_path / "missing")
    assert result.exit_code == 2 and "There is no directory" in result.stderr


def test_what_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(new.FILES, "last", "no such template")
    result = begin("fine", "--directory", tmp_path)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_new_model_keeps_its_contract(tmp_path):
    result = CliRunner().invoke(app, ["new", "model", "my_vae", "--directory", str(tmp_path), "--json"])
    assert result.exit_code == 0 and all(Path(name).is_file() for name in json.loads(result.stdout)["files"])
    tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "my_vae", cwd=tmp_path)
    assert tests.returncode == 0 and "1 passed" in tests.stdout, tests.stdout + tests.stderr


def test_a_model_of_a_known_name_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["new", "model", "mlp_vae", "--directory", str(tmp_path)])
    assert result.exit_code == 2 and "already a model called 'mlp_vae'" in result.output
