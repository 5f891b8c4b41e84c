"""Contract suites: run them on a model or an estimator of your own, from your own tests.

Each raises AssertionError with one sentence that says what is broken. A statistical check is made once, with
the generator given, and calls a correct part wrong with probability below `FALSE_ALARM`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from vaebench.data import linear_gaussian
from vaebench.gradients.estimators import Estimator, draw_noise, exact, pathwise
from vaebench.gradients.loss import Loss, Parameters, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.rounding import rounding_of
from vaebench.gradients.trial import check_replicates, estimator_name
from vaebench.models import ConjugateModel, LatentModel, as_input, check_input, linear_vae
from vaebench.models.distributions import Gaussian
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import preserved
from vaebench.support.statistics import hotelling, hotelling_two_sample

FALSE_ALARM = 1e-8
ROUNDING = 1e-9


def check_model(model: LatentModel, x: Tensor, generator: torch.Generator) -> None:
    """Check that a model keeps the `LatentModel` contract.

    Shapes, dtype and device; gradients reach every parameter; rows of a batch do not influence each other;
    vmap over stacked parameters equals a loop; the closed form, if there is one, equals its Monte Carlo
    average within 6.5 standard errors; no global state is touched.

    Args:
        model: a module that keeps the protocol; float64 parameters make the comparisons sharp.
        x: a few examples, (B, *event) with B >= 2, as `check_input` takes them.
        generator: source of the noise.

    Raises:
        AssertionError: if the contract is broken.
    """
    objective = Objective(samples=3)
    _require(isinstance(model, LatentModel) and isinstance(model, nn.Module), "the model is no LatentModel module")
    like_parameters(model)  # pyright: ignore[reportArgumentType]
    loss = Loss(model, pathwise, objective)
    x = _rows(loss, x)
    with _contract(model, "The model"):  # pyright: ignore[reportArgumentType]
        check_replicates(loss, x)
        noise = draw_noise(model, x, objective, generator)
        q = model.posterior(x)
        z = q.transport(noise)
        log_prob = model.likelihood(z).log_prob(x)
        for name, tensor, shape in (
            ("posterior mean", q.mean, (len(x), model.latents)),
            ("posterior log_std", q.log_std, (len(x), model.latents)),
            ("log-likelihood", log_prob, (objective.samples, len(x))),
        ):
            _require_like(name, tensor, shape, x)
        _require_full_gradient(loss, x, noise)
        _require_close("row 0 of the posterior, alone or in a batch", model.posterior(x[:1]).mean[0], q.mean[0])
        alone = model.likelihood(z[:, :1]).log_prob(x[:1])
        _require_close("row 0 of the log-likelihood, alone or in a batch", alone[:, 0], log_prob[:, 0])
        _require_vmap_equals_loop(loss, x, noise)
        if isinstance(model, ConjugateModel):
            _require_expectation(model, x, q, generator)


def check_estimator(
    estimator: Estimator,
    objective: Objective,
    generator: torch.Generator,
    model: LatentModel | None = None,
    x: Tensor | None = None,
    closed_form: Callable[[Tensor, Tensor], Parameters] | None = None,
    replicates: int = 4000,
) -> None:
    """Check that an estimator keeps its contract on one objective.

    Shape (B,), dtype and device; gradients reach every parameter; inputs are left alone; equal noise gives
    equal results; vmap over stacked parameters equals a loop; the gradient at fixed noise equals
    `closed_form`; its mean is the exact gradient of the ELBO (alpha = 1 on a `ConjugateModel`, Hotelling's
    test) or that of `pathwise` (two-sample test); no global state is touched.

    Args:
        estimator: the estimator.
        objective: the bound whose gradient it claims to estimate.
        generator: source of the noise.
        model: default the linear VAE with 26 parameters in float64.
        x: data for the model; default eight points of a linear Gaussian set.
        closed_form: (x, noise) -> gradient of the loss by parameter name, for comparison to 1e-9.
        replicates: independent gradients for the test of the mean, at least 20 per parameter.

    Raises:
        AssertionError: if the contract is broken.
    """
    model, x = _bed(model, x, generator)
    loss = Loss(model, estimator, objective)
    x = _rows(loss, x)
    with _contract(model, estimator_name(estimator)):  # pyright: ignore[reportArgumentType]
        check_replicates(loss, x)
        noise = draw_noise(model, x, objective, generator, estimator)
        before = x.clone(), noise.clone()
        surrogate = estimator(model, x, noise, objective)
        _require_like("surrogate", surrogate, (len(x),), x)
        _require(torch.equal(estimator(model, x, noise, objective), surrogate), "equal noise gave unequal surrogates")
        _require(torch.equal(x, before[0]) and torch.equal(noise, before[1]), "x or noise was changed in place")
        _require_full_gradient(loss, x, noise)
        _require_vmap_equals_loop(loss, x, noise)
        if closed_form is not None:
            expected, actual = closed_form(x, noise), gradient(loss, x, noise)
            for name in expected:
                _require_close(f"gradient of {name} at fixed noise", actual[f"model.{name}"], expected[name])
        _require_unbiased(loss, x, generator, replicates)


def gradient(loss: Loss, x: Tensor, noise: Tensor) -> Parameters:
    """Gradient of a loss by the name of each trained parameter; zeros where one does not enter.

    Args:
        loss: model, estimator and objective.
        x: (B, *event).
        noise: (K, B, D).

    Returns:
        Parameter name -> gradient.
    """
    own = dict(loss.named_parameters())
    parameters = {name: own[name] for name in own_parameters(loss)}
    with torch.enable_grad():
        value = loss(x, noise)
    grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, grads, strict=True))


def _rows(loss: Loss, x: Tensor) -> Tensor:
    """Data as the model takes them."""
    return as_input(check_input(loss.model, x), like_parameters(loss))


def _bed(model: LatentModel | None, x: Tensor | None, generator: torch.Generator) -> tuple[LatentModel, Tensor]:
    if model is None and x is None:
        points = linear_gaussian(n=8, generator=generator, dtype=torch.float64)
        return linear_vae(generator=generator, dtype=torch.float64), points
    if model is None or x is None:
        raise ValueError("model and x belong together, got one without the other; give both or neither.")
    like_parameters(model)  # pyright: ignore[reportArgumentType]
    return model, x


def _require(holds: bool, broken: str) -> None:
    if not holds:
        raise AssertionError(f"Contract broken: {broken}.")


def _require_like(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    got, wanted = (tuple(tensor.shape), tensor.dtype, tensor.device), (shape, x.dtype, x.device)
    _require(got == wanted, f"{name} has (shape, dtype, device) {got}, expected {wanted}")
    _require(bool(tensor.isfinite().all()), f"{name} is not finite")


def _require_close(name: str, actual: Tensor, expected: Tensor, eps: float = 0.0) -> None:
    actual, expected = actual.detach(), expected.detach()
    error = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    allowed = max(ROUNDING, 1e3 * max(eps, torch.finfo(expected.dtype).eps))
    _require(error <= allowed, f"{name} differs by {error:.2e} relative, allowed {allowed:.0e}")


def _require_full_gradient(loss: Loss, x: Tensor, noise: Tensor) -> None:
    for name, value in gradient(loss, x, noise).items():
        _require(bool(value.isfinite().all()), f"the gradient of {name} is not finite")
        _require(bool((value != 0).any()), f"no gradient reaches {name}")


def _flat_gradients(loss: Loss, x: Tensor, noise: Tensor) -> Tensor:
    """One flat gradient (P,) per noise matrix: noise (R, K, B, D) -> (R, P)."""
    of = loss_function(loss)
    per_noise = vmap(grad(lambda p, n: of(p, x, n)), in_dims=(None, 0))(own_parameters(loss), noise)
    return torch.cat([value.reshape(len(noise), -1) for value in per_noise.values()], 1).double()


def _require_vmap_equals_loop(loss: Loss, x: Tensor, noise: Tensor) -> None:
    parameters, function = own_parameters(loss), loss_function(loss)
    members = [parameters, {name: 0.9 * p for name, p in parameters.items()}]
    stacked = {name: torch.stack([member[name] for member in members]) for name in parameters}

    def of(p: Parameters) -> Tensor:
        return function(p, x, noise)

    eps = rounding_of(loss, x, noise)
    inside = vmap(grad(of))(stacked)
    outside = grad(lambda p: vmap(of)(p).sum())(stacked)
    for index, member in enumerate(members):
        for name, value in grad(of)(member).items():
            _require_close(f"the gradient of {name} under vmap", inside[name][index], value, eps)
            _require_close(f"the gradient of {name} through vmap", outside[name][index], value, eps)


def _require_unbiased(loss: Loss, x: Tensor, generator: torch.Generator, replicates: int) -> None:
    model, objective = loss.model, loss.objective
    parameters = sum(p.numel() for p in own_parameters(loss).values())
    _require(replicates >= 20 * parameters, f"{replicates} replicates are too few for {parameters} parameters")

    def sample(which: Loss) -> Tensor:
        shape = (replicates, *which.noise_shape(len(x)))
        noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.cat([_flat_gradients(which, x, block) for block in noise.split(500)])

    if objective.alpha == 1 and isinstance(model, ConjugateModel):
        reference, noise = Loss(model, exact, objective), draw_noise(model, x, objective, generator)
        test = hotelling(sample(loss), _flat_gradients(reference, x, noise.unsqueeze(0))[0])
    else:
        test = hotelling_two_sample(sample(loss), sample(Loss(model, pathwise, objective)))
    _require(
        test.p_value >= FALSE_ALARM,
        f"the mean gradient is biased for {objective.name}: T^2 = {test.statistic:.1f}, p = {test.p_value:.1e}",
    )


def _require_expectation(model: ConjugateModel, x: Tensor, q: Gaussian, generator: torch.Generator) -> None:
    noise = draw_noise(model, x, Objective(samples=4000), generator)
    with torch.no_grad():
        draws = model.likelihood(q.transport(noise)).log_prob(x)
        error = draws.mean(0) - model.expected_log_likelihood(x, q)
    z = float((error / (draws.std(0) / len(draws) ** 0.5)).abs().max())
    _require(z < 6.5, f"expected_log_likelihood is {z:.1f} standard errors from its Monte Carlo average")


@contextmanager
def _contract(model: nn.Module, name: str) -> Iterator[None]:
    """What is refused within, and what fails, is a broken contract, in one sentence; the model is left as it was."""
    try:
        with preserved(model) as state, explaining(model, name):
            enabled = torch.is_grad_enabled()
            yield
            moved = state.setting() or ("random number generator" if state.drew() else None)
            moved = moved or ("grad mode" if torch.is_grad_enabled() != enabled else None)
            _require(moved is None, f"torch's global {moved} was changed")
    except ValueError as broken:
        raise AssertionError(f"Contract broken: {broken}") from broken
