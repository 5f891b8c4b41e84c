"""Every asv benchmark runs, on the first parameters that are not n/a."""

import math
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from asv_runner.discovery import disc_benchmarks

from benchmarks import imports
from benchmarks.common import by_profile, part

ROOT = Path(__file__).parents[2] / "benchmarks"
FOUND = list(disc_benchmarks(str(ROOT)))


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    """What a suite's training finds does not matter here."""
    monkeypatch.setattr("benchmarks.convergence.STEPS", 20)


@cache
def cached(key: str) -> object:
    return next(suite for suite in FOUND if suite.setup_cache_key == key).do_setup_cache()


def run_first(suite) -> object:
    if suite.setup_cache_key is not None:
        suite.set_cache(cached(suite.setup_cache_key))
    for index in range(math.prod(map(len, suite._params))):
        suite.set_param_idx(index)
        if suite.do_setup():
            continue
        try:
            return suite.func(*suite._build_params())
        finally:
            suite.do_teardown()
    raise AssertionError(f"{suite.name} is n/a for all of its parameters.")


@pytest.mark.usefixtures("scalar_code")
@pytest.mark.parametrize("suite", FOUND, ids=lambda b: b.name)
def test_runs(suite):
    value = run_first(suite)
    if suite.type == "track":
        assert math.isfinite(value)
        assert value > 0
        assert suite.unit != "unit"


@pytest.mark.parametrize("module", imports.STATEMENTS)
def test_what_is_imported_is_there(module):
    exec(imports.Import().timeraw_import(module), {})


def test_what_could_not_be_trained_is_not_applicable():
    for suite in FOUND:
        if suite.setup_cache_key is not None:
            suite.set_cache({})
            suite.set_param_idx(0)
            assert suite.do_setup(), suite.name


@pytest.mark.parametrize("suite", FOUND, ids=lambda b: b.name)
def test_version_is_explicit(suite):
    assert suite.version.isdigit()


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("VAEBENCH_PROFILE", "fast")
    with pytest.raises(ValueError, match="VAEBENCH_PROFILE must be one of quick, full, got 'fast'"):
        by_profile(1, 2)


def test_a_part_that_an_older_commit_lacks_is_not_applicable():
    with pytest.raises(NotImplementedError, match=r"no vaebench\.nothing_yet"):
        part("nothing_yet")


ESTIMATORS = "vaebench.gradients.estimators"


def test_a_module_that_the_installation_never_had_is_not_applicable(monkeypatch):
    monkeypatch.setitem(sys.modules, ESTIMATORS, None)
    with pytest.raises(NotImplementedError, match=r"no vaebench\.gradients\.estimators"):
        part("gradients.estimators")


@pytest.mark.parametrize("file", ["vaebench/gradients/estimators.py", "vaebench/gradients/estimators/__init__.py"])
def test_a_module_that_the_installation_lists_and_lacks_is_a_fault(monkeypatch, file):
    monkeypatch.setitem(sys.modules, ESTIMATORS, None)
    monkeypatch.setattr(metadata, "files", lambda name: [metadata.PackagePath(file)])
    with pytest.raises(ImportError, match=r"is broken: it has no vaebench\.gradients\.estimators\."):
        part("gradients.estimators")


@pytest.mark.parametrize("left", [None, ModuleType("vaebench")], ids=["nothing", "a directory"])
def test_without_an_installation_nothing_is_not_applicable(monkeypatch, left):
    for name in (ESTIMATORS, "vaebench.gradients"):
        monkeypatch.delitem(sys.modules, name)
    if left is not None:
        left.__file__, left.__path__ = None, []
    monkeypatch.setitem(sys.modules, "vaebench", left)
    with pytest.raises(ImportError, match=r"is broken: it has no vaebench\."):
        part("gradients.estimators")


def test_a_fault_inside_a_module_is_one(monkeypatch):
    monkeypatch.delitem(sys.modules, ESTIMATORS)
    monkeypatch.setitem(sys.modules, "vaebench.gradients.objectives", None)
    with pytest.raises(ModuleNotFoundError, match=r"vaebench\.gradients\.objectives"):
        part("gradients.estimators")
