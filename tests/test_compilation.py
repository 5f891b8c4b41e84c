"""Compiled gradients are the eager ones, for any number of shapes, and one that lost a part is refused."""

import os
import warnings

import pytest
import torch
from torch.func import grad_and_value, vmap

from tests.cases import NEEDS_COMPILER
from vaebench.gradients.estimators import doubly_reparameterized, draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.memory import micro_batched
from vaebench.gradients.objectives import Objective
from vaebench.models import mlp_vae
from vaebench.support import internals
from vaebench.support.internals import compile_flat, interpret_flat
from vaebench.training import compilation
from vaebench.training.compilation import CompilationError, Compiler, compiled

needs_compiler = NEEDS_COMPILER
pytestmark = pytest.mark.usefixtures("scalar_code")


def problem(estimator=pathwise, rows=6, samples=3):
    generator = torch.Generator().manual_seed(0)
    model = mlp_vae((5,), (4,), 2, generator=generator, dtype=torch.float64)
    x = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    loss = Loss(model, estimator, Objective(samples, 0.0))
    return loss, x, draw_noise(model, x, loss.objective, generator)


def squares(parameters, x, noise):
    """The mean over examples of |w x|^2 and |b|^2: compiled in a tenth of a network's time."""
    return (parameters["w"] * x).square().sum(1).mean() + parameters["b"].square().sum()


WEIGHTS = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor([3.0], dtype=torch.float64)}
ROWS, NOISE = torch.arange(10.0, dtype=torch.float64).view(5, 2), torch.ones(1, 5, 1, dtype=torch.float64)


def gradient(function):
    return compiled(grad_and_value(function))


def first_call_changed(differentiate, change):
    """The function that is traced, at its first call, is another than the one it is compared with, at its second."""
    calls = []

    def losing(parameters, x, noise):
        calls.append(1)
        found = differentiate(parameters, x, noise)
        return change(*found) if len(calls) == 1 else found

    return losing


@needs_compiler
@pytest.mark.parametrize("estimator", [pathwise, doubly_reparameterized])
def test_the_compiled_gradient_is_the_eager_one(estimator):
    loss, x, noise = problem(estimator)
    function, parameters = loss_function(loss), own_parameters(loss)
    found, expected = gradient(function)(parameters, x, noise), grad_and_value(function)(parameters, x, noise)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not any(g.requires_grad for g in found[0].values())


def test_every_shape_is_compiled_once():
    entered = []

    def differentiate(parameters, x, noise):
        entered.append(len(x))
        return grad_and_value(lambda p: (p["w"] * x).square().sum() + noise.sum())(parameters)

    fast, x, noise = compiled(differentiate, interpret_flat), torch.arange(6.0).view(3, 2), torch.ones(1, 3, 1)
    for rows in (1, 2, 3, 1, 2, 3):
        fast({"w": torch.ones(2)}, x[:rows], noise[:, :rows])
    assert entered == [1, 1, 2, 2, 3, 3]  # traced, then compared with


@needs_compiler
def test_other_layouts_of_the_parameters_are_other_inputs():
    fast = compiled(lambda parameters, x, noise: grad_and_value(lambda p: (p["w"] * x).square().sum())(parameters))
    x, noise = torch.arange(6.0).view(3, 2), torch.ones(1, 3, 1)
    wide = torch.arange(12.0).view(3, 4)
    for w in (wide[:, :2], wide[:, 1::2], wide[:1, :2], wide[:, :2].double(), wide.T[:2].T):
        found, value = fast({"w": w}, x, noise)
        torch.testing.assert_close(found["w"], 2 * w * x.square() if len(w) > 1 else (2 * w * x.square()).sum(0, True))
        torch.testing.assert_close(value, (w * x).square().sum())


@needs_compiler
def test_a_lost_part_is_refused():
    def lose(found, value):
        return found | {"b": torch.zeros_like(found["b"])}, value

    losing = first_call_changed(grad_and_value(squares), lose)
    with pytest.raises(CompilationError, match="compiled gradient of b, of norm 6, is off by"):
        compiled(losing)(WEIGHTS, ROWS, NOISE)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_value_is_refused(lost):
    def both(parameters, x, noise):
        found, value = grad_and_value(squares)(parameters, x, noise)
        return found, torch.stack([value, torch.ones_like(value)])

    def lose(found, values):
        return found, torch.stack([0 * v if i == lost else v for i, v in enumerate(values)])

    with pytest.raises(CompilationError, match=f"compiled value {lost}, of norm .*, is off by"):
        compiled(first_call_changed(both, lose), interpret_flat)(WEIGHTS, ROWS, NOISE)


def test_what_the_comparison_allows():
    """4 sqrt(eps / 2) of a tensor's own norm and 100 eps of the norm of all: 0.0009766 and 2.4e-5 at norms 1 and 2."""
    right = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([3.0**0.5])}
    eps = torch.finfo(torch.float32).eps
    allowed = 4 * (eps / 2) ** 0.5 + 200 * eps
    assert allowed == pytest.approx(0.0009766 + 2.384e-5, rel=1e-3)
    compilation.require_agreement("gradient of", right | {"a": torch.tensor([1.0, 0.99 * allowed])}, right)
    with pytest.raises(CompilationError, match="gradient of a, of norm 1, is off by"):
        compilation.require_agreement("gradient of", right | {"a": torch.tensor([1.0, 1.01 * allowed])}, right)


@needs_compiler
def test_members_that_diverged_do_not_keep_the_others_from_being_compiled():
    stacked = {name: torch.stack([p, p * torch.nan]) for name, p in WEIGHTS.items()}
    gradient_of_all = vmap(grad_and_value(squares))
    arguments = stacked, torch.stack([ROWS, ROWS]), torch.stack([NOISE, NOISE])
    (found, values), (expected, _) = compiled(gradient_of_all)(*arguments), gradient_of_all(*arguments)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-10, atol=1e-12)
    assert values.isfinite().tolist() == [True, False]

    def hide(found, values):
        return {name: g.nan_to_num(0.0) for name, g in found.items()}, values

    with pytest.raises(CompilationError, match="is not finite where the eager one is"):
        compiled(first_call_changed(gradient_of_all, hide), interpret_flat)(*arguments)


def test_a_path_that_the_compiler_does_not_take_is_named(monkeypatch):
    def failing(parameters, x, noise):
        raise RuntimeError("C++ compile error\n g++ /a home/x.cpp")

    given = {"w": torch.ones(2)}, torch.ones(3), torch.ones(1, 3, 1)
    monkeypatch.setenv(compilation.CACHE, "/a home")
    advice = r"takes no path with a space, such as '/a home': set TORCHINDUCTOR_CACHE_DIR to another\); use eager code"
    with pytest.raises(CompilationError, match=advice):
        compiled(failing)(*given)
    monkeypatch.setenv(compilation.CACHE, "/home")
    with pytest.raises(CompilationError, match=r"C\+\+ compile error g\+\+ /a home/x.cpp"):
        compiled(failing)(*given)


@needs_compiler
def test_what_cannot_be_traced_is_refused():
    loss, x, noise = problem()

    def breaking(parameters, x, noise):
        return grad_and_value(loss_function(loss))(parameters, x if x.sum() > 0 else -x, noise)

    with pytest.raises(CompilationError, match="Compilation failed"):
        compiled(breaking)(own_parameters(loss), x, noise)


def test_where_compilation_fails_one_sentence_says_so_and_the_gradient_is_eager():
    def breaking(parameters, x, noise):
        return {"w": parameters["w"] * (1 if float(x.sum()) > 0 else 2)}, x.sum()

    said = []
    compiler = Compiler(said.append)
    run, other = compiler(breaking), compiler(breaking)
    assert compiler.outcome == "compiled"
    for one in (run, run, other):
        found, _ = one({"w": torch.ones(2)}, torch.ones(3), torch.ones(1, 3, 1))
        assert torch.equal(found["w"], torch.ones(2))
    assert len(said) == 1 and said[0].startswith("Steps are not compiled: Compilation failed (")
    assert compiler.outcome == f"eager: {compiler.failure}" and "\n" not in said[0]


@needs_compiler
def test_micro_batches_of_a_compiled_gradient():
    found = micro_batched(squares, 2, gradient)(WEIGHTS, ROWS, NOISE)
    torch.testing.assert_close(found, grad_and_value(squares)(WEIGHTS, ROWS, NOISE), rtol=1e-10, atol=1e-12)


def test_this_torch_has_every_name_that_is_used_without_a_promise():
    assert internals.missing() == []


def test_a_name_that_torch_dropped_is_a_sentence(monkeypatch):
    names = {"torch._inductor.no_such_name": "does something", "torch.no_such_module.name": "does more"}
    monkeypatch.setattr(internals, "NAMES", names)
    first, second = internals.missing()
    assert "has no torch._inductor.no_such_name, which does something" in first and "no_such_module" in second


def test_code_is_kept_where_the_user_says_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setenv(compilation.CACHE, "elsewhere")
    compilation.keep_code()
    assert os.environ[compilation.CACHE] == "elsewhere" and not list(tmp_path.iterdir())
    monkeypatch.delenv(compilation.CACHE)
    compilation.keep_code()
    assert os.environ[compilation.CACHE] == str(tmp_path / "vaebench" / "compiled")


@pytest.mark.parametrize("home", ["a file", "a home"])
def test_where_the_cache_cannot_be_used_torchs_own_choice_stays(monkeypatch, tmp_path, home):
    if home == "a file":
        (tmp_path / "vaebench").write_text("a file")
    else:
        tmp_path = tmp_path / home
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.delenv(compilation.CACHE, raising=False)
    compilation.keep_code()
    assert compilation.CACHE not in os.environ


@needs_compiler
def test_a_warning_of_torchs_compiler_is_no_failure_and_one_of_the_function_is():
    """inductor warns of complex numbers, and torch 2.12 of ways to multiply that it leaves out."""

    def amplitudes(x):
        return [torch.view_as_complex(x).abs()]

    x = torch.tensor([[3.0, 4.0], [5.0, 12.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile_flat(amplitudes, [x])(x)[0].tolist() == [5.0, 13.0]

    def loud(x):
        warnings.warn("of one's own", UserWarning, stacklevel=1)
        return [2 * x]

    with pytest.warns(UserWarning, match="of one's own"):
        compile_flat(loud, [x])


@pytest.mark.parametrize("estimator", [pathwise, doubly_reparameterized])
def test_recorded_operations_give_the_eager_gradient_bit_for_bit(estimator):
    """No compiler is needed; the hook of the second estimator, under vmap, is in the record too."""
    loss, x, noise = problem(estimator)
    function = vmap(grad_and_value(loss_function(loss)), (0, None, None))
    parameters = {name: torch.stack([p, 0.9 * p, -p]) for name, p in own_parameters(loss).items()}
    fast = compiled(function, interpret_flat)
    for factor in (1.0, 0.5):  # the record depends on no value
        inputs = {name: factor * p for name, p in parameters.items()}, factor * x, factor * noise
        (found, values), (expected, right) = fast(*inputs), function(*inputs)
        assert torch.equal(values, right) and all(torch.equal(found[name], g) for name, g in expected.items())


def test_a_record_that_lost_a_part_and_one_that_depends_on_values_are_refused():
    plain = grad_and_value(squares)
    losing = first_call_changed(plain, lambda found, value: (found | {"b": 0 * found["b"]}, value))
    with pytest.raises(CompilationError, match="lost a part"):
        compiled(losing, interpret_flat)(WEIGHTS, ROWS, NOISE)

    def looking(parameters, x, noise):
        return plain(parameters, x if x.sum() > 0 else 2 * x, noise)

    said = []
    run = Compiler(said.append, interpret_flat)(looking)
    expected, _ = looking(WEIGHTS, -ROWS, NOISE)
    assert all(torch.equal(run(WEIGHTS, -ROWS, NOISE)[0][name], g) for name, g in expected.items())
    assert len(said) == 1 and said[0].startswith("Steps are not compiled")


def test_code_is_made_after_so_many_eager_calls_of_a_layout():
    entered = []

    def differentiate(parameters, x, noise):
        entered.append(len(x))
        return grad_and_value(lambda p: (p["w"] * x).square().sum() + noise.sum())(parameters)

    run, x, noise = compiled(differentiate, interpret_flat, after=2), torch.ones(3, 2), torch.ones(1, 3, 1)
    for rows in (3, 3, 2, 3, 3, 2):
        run({"w": torch.ones(2)}, x[:rows], noise[:, :rows])
    assert entered == [3, 3, 2, 3, 3, 2]  # the fourth call is traced, and compared with
