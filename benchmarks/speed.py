"""Speed goals as ratios, each measured in turn on one machine, so that a busy one moves them little; lower is better.

`Roof`: a compiled gradient's time over that of matrix products of as many FLOPs. `Compilation`: the compiled gradient
and step over the eager ones, `Interpretation` a step without a compiler. `Division`: what micro-batches and chunks of
samples cost over the undivided gradient, `Peak` what they hold, which is exact. `Recording`: what the squared
norm of the gradient adds to a step. `Denormals`: what numbers too small to be normal add to a gradient of
trained nets.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.func import grad_and_value

from benchmarks.common import ROUNDS, batch, by_profile, conv, generator, in_turn, mlp, needs, part

DREG = "doubly_reparameterized"


def case(net: str) -> tuple[Any, torch.Tensor]:
    return mlp("cpu") if net == "mlp" else conv(32, "cpu")


class Problem:
    """A net, its batch, its noise and a loss of the IWAE bound."""

    def __init__(self, built: tuple[Any, torch.Tensor], size: int, samples: int, estimator: str):
        """Draw everything, once."""
        model, data = built
        self.x, objective = batch(data, size), part("gradients.objectives").Objective(samples, 0.0)
        estimators = part("gradients.estimators")
        self.estimator = estimators.ESTIMATORS[estimator]
        self.noise = estimators.draw_noise(model, self.x, objective, generator())
        self.loss = part("gradients.loss").Loss(model, self.estimator, objective)
        self.parameters = list(model.parameters())

    def gradient(self) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.loss(self.x, self.noise), self.parameters)

    def compiled(self) -> Callable[[], object]:
        """The gradient by compiled micro-batches."""
        named, compilation = part("gradients.loss").own_parameters(self.loss), part("training.compilation")
        compile_one = getattr(compilation, "gradient", lambda function: compilation.compiled(grad_and_value(function)))
        divided = part("gradients.memory").micro_batched(
            part("gradients.loss").loss_function(self.loss), gradient=compile_one
        )
        return lambda: divided(named, self.x, self.noise)


def stacked_problem(problem: Problem) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Parameters, batch and noise of a fleet of one."""
    named = part("gradients.loss").own_parameters(problem.loss)
    return {n: p.clone().unsqueeze(0) for n, p in named.items()}, problem.x.unsqueeze(0), problem.noise.unsqueeze(0)


def fleet_step(problem: Problem, compiler: Callable[[Any], Any]) -> Callable[[], object]:
    """Steps of a fleet of one, as `vaebench run` takes them, all by the same noise."""
    parameters, x, noise = stacked_problem(problem)
    rule = part("training.optimizers").fused_adam(list(parameters.values()), 1e-4)
    take = part("training.steps").step_taker(problem.loss, rule, compiler)
    return lambda: take(parameters, x, noise)


def needs_onednn(*_: object) -> None:
    if not torch.backends.mkldnn.is_available():
        raise NotImplementedError("this torch has no oneDNN")


class Roof:
    """Convolutional net of 32 pixels, IWAE bound, K = 5: goals 1/0.80 with ReLU and 1/0.75 with soft clipping.

    Matrix products are torch's own, or oneDNN's, which are twice as fast where MKL stays with AVX2.
    """

    version = "2"
    param_names = ("activations", "B")
    params = (["relu", "soft_clip"], by_profile([64], [64, 256]))
    timeout = 300
    setup = needs("training.compilation", "compiled")

    def track_over_sgemm(self, activations: str, size: int) -> float:
        return self.over(torch.matmul, activations, size)

    def track_over_onednn(self, activations: str, size: int) -> float:
        product = torch.ops.mkldnn._linear_pointwise
        return self.over(lambda left, right: product(left, right, None, "none", [], ""), activations, size)

    def over(self, product: Callable[..., torch.Tensor], activations: str, size: int) -> float:
        problem = Problem(conv(32, "cpu", None if activations == "relu" else 5.0), size, 5, "pathwise")
        compiled = problem.compiled()
        flops = part("measures.cost").count(problem.gradient).flops
        side = round((flops / 20) ** (1 / 3) / 2 ** (1 / 3))
        left, right = torch.randn(2, side, side, generator=generator())
        return in_turn(compiled, lambda: [product(left, right) for _ in range(10)]) * (20 * side**3 / flops)

    track_over_sgemm.unit = track_over_onednn.unit = "ratio"
    track_over_onednn.setup = needs_onednn


class Compilation:
    """The compiled gradient, by micro-batches, over the eager one of the whole batch; 32 examples."""

    version = "1"
    param_names = ("net", "K")
    params = (["mlp", "conv32"], by_profile([5], [1, 5, 50]))
    timeout = 300
    setup = needs("training.compilation", "compiled")

    def track_over_eager(self, net: str, samples: int) -> float:
        problem = Problem(case(net), 32, samples, "pathwise")
        return in_turn(problem.compiled(), problem.gradient)

    def track_step_over_eager(self, net: str, samples: int) -> float:
        """Adam included."""
        steps, compiled = part("training.steps"), part("training.compilation").compiled
        return in_turn(
            *(fleet_step(Problem(case(net), 32, samples, "pathwise"), how) for how in (compiled, steps.eager))
        )

    track_over_eager.unit = track_step_over_eager.unit = "ratio"
    track_step_over_eager.setup = needs("training.steps", "step_taker")


class Interpretation:
    """A step whose operations are called from C++ as they were recorded over the eager one, as `vaebench check` takes.

    A fleet of 16 linear VAEs in float64, B = 8, SGD: the ELBO at K = 1 with two latents, IWAE at K = 5 with one.
    """

    version = "1"
    param_names = ("K",)
    params = ([1, 5],)
    setup = needs("support.internals", "interpret_flat")

    def track_over_eager(self, samples: int) -> float:
        model = part("models").linear_vae(6, 2 if samples == 1 else 1, generator=generator(), dtype=torch.float64)
        objective = part("gradients.objectives").Objective(samples, 1.0 if samples == 1 else 0.0)
        loss = part("gradients.loss").Loss(model, part("gradients.estimators").pathwise, objective)
        steps, compilation = part("training.steps"), part("training.compilation")
        x = torch.randn(16, 8, 6, generator=generator(), dtype=torch.float64)
        noise = torch.randn(16, samples, 8, model.latents, generator=generator(), dtype=torch.float64)

        def stepping(compiler: Callable[[Any], Any]) -> Callable[[], object]:
            named = part("gradients.loss").own_parameters(loss)
            parameters = {name: p.expand(16, *p.shape).clone() for name, p in named.items()}
            take = steps.step_taker(loss, part("training.optimizers").sgd(list(parameters.values()), 1e-4), compiler)
            return lambda: [take(parameters, x, noise) for _ in range(10)]

        recorded = compilation.Compiler(build=part("support.internals").interpret_flat)
        return in_turn(stepping(recorded), stepping(steps.eager))

    track_over_eager.unit = "ratio"


class Division:
    """Gradients by parts of the batch (goal 1) and by chunks of the samples (goal 1.35) over the undivided one."""

    version = "2"
    param_names = ("net", "K")
    params = (["mlp", "conv32"], by_profile([50], [50, 500]))
    timeout = 300

    def setup(self, net: str, samples: int) -> None:
        part("gradients.memory")
        rows = 12800 if net == "mlp" else 1600
        self.problem = Problem(case(net), rows // samples, samples, DREG)

    def track_micro_batched(self, *_: object) -> float:
        problem = self.problem
        divided = part("gradients.memory").micro_batched(part("gradients.loss").loss_function(problem.loss))
        named = part("gradients.loss").own_parameters(problem.loss)
        return in_turn(lambda: divided(named, problem.x, problem.noise), problem.gradient)

    def track_chunked(self, _: str, samples: int) -> float:
        problem = self.problem
        chunked = part("gradients.memory").chunked(problem.estimator, samples // 5)
        loss = part("gradients.loss").Loss(problem.loss.model, chunked, problem.loss.objective)
        return in_turn(
            lambda: torch.autograd.grad(loss(problem.x, problem.noise), problem.parameters), problem.gradient
        )

    track_micro_batched.unit = track_chunked.unit = "ratio"


class Peak:
    """Peak bytes of a batch of 256 over those of one chunk of 50 samples, undivided: goal 1.2, net 784-200-200-50.

    Tensors made during the call count: neither parameters nor the batch nor its noise, 256 MB at K = 5,000. Sizes are
    all that is needed, and nothing is computed.
    """

    version = "1"
    param_names = ("how", "K")
    params = (["pathwise", "doubly_reparameterized", "micro_batched"], by_profile([1000], [5000]))
    setup = needs("measures.cost", "peak_bytes")

    def track_over_chunk(self, how: str, samples: int) -> float:
        memory, estimators, losses = part("gradients.memory"), part("gradients.estimators"), part("gradients.loss")
        model = part("models").mlp_vae((28, 28), device="meta")
        x = torch.empty(256, 28, 28, device="meta")

        def peak(estimator: Any, samples: int, divided: bool) -> int:
            noise = torch.empty(samples, 256, 50, device="meta")
            loss = losses.Loss(model, estimator, part("gradients.objectives").Objective(samples, 0.0))
            if divided:
                parts, named = memory.micro_batched(losses.loss_function(loss), 1), losses.own_parameters(loss)
                return part("measures.cost").peak_bytes(lambda: parts(named, x, noise))
            return part("measures.cost").peak_bytes(
                lambda: torch.autograd.grad(loss(x, noise), list(model.parameters()))
            )

        if how == "micro_batched":
            return peak(estimators.pathwise, samples, True) / peak(estimators.pathwise, 50, False)
        estimator = estimators.ESTIMATORS[how]
        return peak(memory.chunked(estimator, 50), samples, False) / peak(estimator, 50, False)

    track_over_chunk.unit = "ratio"


class Recording:
    """The squared norm of the gradient, as a fleet of one records it, over a step of gradient and Adam: goal 0.03."""

    version = "3"
    param_names = ("net",)
    params = (["mlp", "conv32"],)
    timeout = 300

    def track_norm_over_step(self, net: str) -> float:
        problem = self.problem(net)
        optimizer, norms = (
            part("training.optimizers").adam(problem.parameters, 1e-4),
            part("training.steps").squared_norms,
        )
        shares = []
        for _ in range(1 + 5 * ROUNDS):
            begin = time.perf_counter()
            found = problem.gradient()
            stacked = {str(i): g.unsqueeze(0) for i, g in enumerate(found)}  # as a fleet's gradients are
            middle = time.perf_counter()
            norms(stacked)
            norm = time.perf_counter() - middle
            for parameter, g in zip(problem.parameters, found, strict=True):
                parameter.grad = g
            optimizer.step()
            shares.append(norm / (time.perf_counter() - begin - norm))
        return median(shares[1:])

    def track_norm_over_compiled_step(self, net: str) -> float:
        """A step of a compiled fleet of one with the norm in it over one without, goal 1.03.

        Of two compilations of the convolutional net one takes up to 5 % longer, whatever is in them.
        """
        steps, compiled, problem = part("training.steps"), part("training.compilation").compiled, self.problem(net)
        parameters, x, noise = stacked_problem(problem)
        recorded, plain = steps.recorded_gradient(problem.loss, compiled), compiled(steps.fleet_gradient(problem.loss))

        def ten(take: Callable[..., object]) -> Callable[[], object]:
            return lambda: [take(parameters, x, noise) for _ in range(10)]

        return in_turn(ten(recorded), ten(plain), 5 * ROUNDS)

    def problem(self, net: str) -> Problem:
        return Problem(case(net), 32, 5, DREG)

    track_norm_over_step.unit = track_norm_over_compiled_step.unit = "ratio"
    track_norm_over_compiled_step.params = (["mlp"],)
    track_norm_over_compiled_step.version = "4"
    track_norm_over_step.setup = track_norm_over_compiled_step.setup = needs("training.steps", "squared_norms")


class Denormals:
    """A gradient over the same with denormals flushed to zero, after steps on minibatches of grey patches: goal 1.

    The log-weights of 784 pixels soon lie thousands of nats apart, and processors take long over what underflows.
    """

    version = "1"
    param_names = ("K",)
    params = ([50],)
    steps = 100

    def track_over_flushed(self, samples: int) -> float:
        source, pixels = generator(), part("data").patches(32).mean(1)[:, 2:30, 2:30].round()
        net = part("models").mlp_vae((28, 28), generator=generator())
        problem = Problem((net, pixels), 32, samples, "pathwise")
        optimizer = part("training.optimizers").adam(problem.parameters, 1e-3)
        for _ in range(self.steps):
            optimizer.zero_grad()
            rows = torch.randint(len(pixels), (32,), generator=source)
            problem.loss(pixels[rows], problem.noise.normal_(generator=source)).backward()
            optimizer.step()

        def flushed() -> None:
            torch.set_flush_denormal(True)
            problem.gradient()
            torch.set_flush_denormal(False)

        return in_turn(problem.gradient, flushed)

    track_over_flushed.unit = "ratio"
