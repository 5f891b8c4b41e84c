"""Registries, and parts that other packages add through entry points."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from tests.cases import linear
from vaebench.data import DATA
from vaebench.gradients.estimators import ESTIMATORS, draw_noise, pathwise
from vaebench.gradients.objectives import Objective
from vaebench.models import MODELS
from vaebench.support.registry import BrokenPartError, Registry, UnknownNameError
from vaebench.training.optimizers import OPTIMIZERS

THEIRS = '''
"""Another package."""
from vaebench.gradients import pathwise


def antithetic(model, x, noise, objective):
    return (pathwise(model, x, noise, objective) + pathwise(model, x, -noise, objective)) / 2
'''
ENTRY_POINTS = """
[vaebench.estimators]
antithetic = {module}:antithetic
pathwise = {module}:antithetic
broken = {module}:not_there
"""


@pytest.fixture
def colours() -> Registry:
    registry = Registry("colour", "vaebench.colours")

    @registry.register
    def red():
        return "R"

    @registry.register
    def green():
        return "G"

    return registry


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch) -> str:
    """An installed distribution of somebody else's, with two good entry points and a broken one."""
    module = "somebody_elses_estimators"
    (tmp_path / f"{module}.py").write_text(THEIRS)
    information = tmp_path / "somebody_elses-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody-elses\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS.format(module=module))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield module
    sys.modules.pop(module, None)


def test_parts_are_found_by_their_own_names(colours):
    assert list(colours) == ["red", "green"] and len(colours) == 2
    assert colours["red"]() == "R"


def test_register_returns_the_part():
    def part(): ...

    assert Registry("part", "vaebench.parts").register(part) is part


def test_it_is_a_mapping(colours):
    assert "red" in colours and "blue" not in colours
    assert colours.get("blue") is None
    assert dict(colours) == {"red": colours["red"], "green": colours["green"]}


def test_a_name_is_taken_once(colours):
    def red(): ...

    with pytest.raises(ValueError, match="There is already a colour called 'red'; choose another name"):
        colours.register(red)
    assert colours["red"]() == "R"


def test_an_unknown_name_is_met_with_the_nearest(colours):
    with pytest.raises(UnknownNameError) as refusal:
        colours["gren"]
    assert str(refusal.value) == "There is no colour 'gren'; did you mean 'green'? Known: red, green."


def test_a_name_like_no_other_is_met_with_all(colours):
    with pytest.raises(UnknownNameError) as refusal:
        colours["xyzzy"]
    assert str(refusal.value) == "There is no colour 'xyzzy'. Known: red, green."


@pytest.mark.parametrize(
    ("registry", "typo", "meant"),
    [
        (ESTIMATORS, "pathwize", "pathwise"),
        (ESTIMATORS, "leave-one-out", "leave_one_out"),
        (MODELS, "conv_va", "conv_vae"),
        (DATA, "digit", "digits"),
        (OPTIMIZERS, "Adam", "adam"),
    ],
)
def test_every_registry_knows_the_nearest(registry, typo, meant):
    with pytest.raises(KeyError, match=f"did you mean '{meant}'"):
        registry[typo]


def test_another_packages_estimator_is_listed_without_being_imported(theirs):
    assert "antithetic" in list(ESTIMATORS)
    assert theirs not in sys.modules


def test_another_packages_estimator_is_usable(theirs, generator):
    model, x = linear(generator)
    objective = Objective(samples=3, alpha=0)
    noise = draw_noise(model, x, objective, generator)
    expected = (pathwise(model, x, noise, objective) + pathwise(model, x, -noise, objective)) / 2
    assert torch.equal(ESTIMATORS["antithetic"](model, x, noise, objective), expected)


def test_another_package_cannot_replace_a_part(theirs):
    assert ESTIMATORS["pathwise"] is pathwise
    assert list(ESTIMATORS).count("pathwise") == 1 and len(ESTIMATORS) == len(set(ESTIMATORS))


def test_another_packages_name_is_suggested(theirs):
    with pytest.raises(UnknownNameError, match="did you mean 'antithetic'"):
        ESTIMATORS["antithetik"]


def test_another_packages_entry_point_to_nothing_fails_when_asked_for(theirs):
    assert "broken" in list(ESTIMATORS)
    with pytest.raises(BrokenPartError, match="not_there"):
        ESTIMATORS["broken"]


def test_it_is_gone_with_the_package():
    assert "antithetic" not in ESTIMATORS


OWN = """
from vaebench.gradients.estimators import pathwise

number = 3

def antithetic(model, x, noise, objective):
    return (pathwise(model, x, noise, objective) + pathwise(model, x, -noise, objective)) / 2
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> None:
    """Modules that lie where Python looks: a good one, and one that ends the process that imports it."""
    (tmp_path / "yours_by_name.py").write_text(OWN)
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    (tmp_path / "needy.py").write_text("import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("own")
def test_a_function_of_anybody_is_found_by_its_module(generator):
    model, x = linear(generator)
    noise = draw_noise(model, x, Objective(), generator)
    found = ESTIMATORS["yours_by_name:antithetic"](model, x, noise, Objective())
    expected = (pathwise(model, x, noise, Objective()) + pathwise(model, x, -noise, Objective())) / 2
    assert torch.equal(found, expected)
    assert "yours_by_name:antithetic" not in list(ESTIMATORS)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("yours_by_name:antithetc", UnknownNameError, "did you mean 'antithetic'?"),
        ("yours_by_name.py:antithetic", ValueError, "write its module, as in 'yours_by_name:antithetic'"),
        ("./yours_by_name.py:antithetic", ValueError, "write its module, as in 'yours_by_name:antithetic'"),
        ("nope_by_name:est", UnknownNameError, "No module named 'nope_by_name'"),
        ("yours_by_name:number", ValueError, "must be a function, and is 3"),
        ("yours_by_name:", ValueError, "package.module:function"),
        (":antithetic", ValueError, "package.module:function"),
        ("a:b:c", ValueError, "package.module:function"),
        ("os:system", ValueError, "Python's own library"),
        ("leaving:x", BrokenPartError, "SystemExit: 3"),
        ("needy:x", BrokenPartError, "a_library_that_is_not_there"),
    ],
)
def test_a_name_with_a_colon_that_leads_nowhere_is_one_sentence(name, kind, message):
    with pytest.raises(kind) as refusal:
        ESTIMATORS[name]
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_only_what_this_package_registered_is_its_own(theirs, colours):
    assert ESTIMATORS.is_own("pathwise") and MODELS.is_own("linear_vae")
    assert not any(map(ESTIMATORS.is_own, ("antithetic", "tests.cases:linear", "no_such_name")))
    assert not colours.is_own("red")  # registered by another module, although in this process
