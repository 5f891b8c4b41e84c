"""Faults of a third party's optimizer, sampler and training loop: each fails its gate, or is refused in a sentence."""

import math
from functools import partial

import pytest
import torch
from torch.func import grad_and_value, vmap

from tests.convergence.faults.beds import problem
from vaebench.data.sampling import epochwise
from vaebench.gates import Stage, run_gates, walking
from vaebench.gates.parts import examined, failing, require_sampler
from vaebench.gates.path import UNITS
from vaebench.gates.planning import plan_of
from vaebench.gates.randomness import Randomness, randomness
from vaebench.gates.recorded import Recorded, loss_mismatch
from vaebench.gates.replay import replayed
from vaebench.gates.running import watch_run
from vaebench.gates.subject import Subject
from vaebench.gates.variances import independent_draws, variance_in_batch, without_repetition
from vaebench.gradients.estimators import analytic_kl, doubly_reparameterized, pathwise
from vaebench.gradients.finiteness import require_finite
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.measures.likelihood import bound, log_likelihood
from vaebench.measures.moments import fresh, gather, gradient_moments
from vaebench.models import gaussian, mlp_vae
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, adam, amsgrad, check_elementwise, sgd
from vaebench.training.records import Checkpoint, State, Step
from vaebench.training.schedules import inverse_sqrt

QUICK = {"steps": 100, "members": 4, "replicates": 800}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outcomes(**options):
    model, data = problem(options.pop("rows", 64), 2)
    objective = options.pop("objective", Objective())
    estimator = options.pop("estimator", analytic_kl)
    return {v.gate: v.outcome for v in run_gates(model, estimator, objective, data, **(QUICK | options))}


def watched(optimizer=sgd, claimed=None, trainer=train):
    """What is kept of a short run, without the gates that draw gradients."""
    model, data = problem(64, 2)
    subject = Subject(
        model, analytic_kl, Objective(), data, 8, claimed or optimizer, trainer=trainer, optimizer=optimizer
    )
    return watch_run(subject, inverse_sqrt(0.03), None, None, plan_of(100, 4, 800, 0), lambda stage: None)


# Optimizers, held against the rule that they claim to be


class Rule(torch.optim.Optimizer):
    """One parameter at a time, by `update` (parameter, gradient, state, lr)."""

    def __init__(self, update, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.update, self.kept = update, {"lr": lr, "n": 0}

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.update(p, p.grad, self.state[p], group["lr"], self.kept)


def rule(update):
    return partial(Rule, update)


def adams(b1=0.9, b2=0.999, eps=1e-8, late=0, corrected=(True, True), shared=False, largest=False, decay=0.0):
    """Adam by its equations, and its usual faults."""

    def update(p, g, state, lr, kept):
        g = g + decay * p
        kept["n"] += 1
        state["n"] = state.get("n", 0) + 1
        state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
        state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
        state["x"] = torch.maximum(state.get("x", state["v"]), state["v"])
        n = (kept["n"] if shared else state["n"]) + late
        first = state["m"] / (1 - b1**n if corrected[0] else 1)
        second = state["x" if largest else "v"] / (1 - b2**n if corrected[1] else 1)
        p.sub_(lr * first / (second.sqrt() + eps))

    return rule(update)


def step_by(p, g, lr):
    p.sub_(lr * g)


RULES = {
    "bias not corrected": (adams(corrected=(False, False)), "adam"),
    "bias of the second moment not corrected": (adams(corrected=(True, False)), "adam"),
    "bias corrected a step late": (adams(late=1), "adam"),
    "betas changed over": (adams(b1=0.999, b2=0.9), "adam"),
    "one counter for all parameters": (adams(shared=True), "adam"),
    "the running maximum": (adams(largest=True), "adam"),
    "no running maximum": (adam, "amsgrad"),
    "coupled weight decay": (adams(decay=1e-3), "adam"),
    "torch's AdamW": (lambda p, lr: torch.optim.AdamW(p, lr=lr), "adam"),
    "the step size of its construction": (rule(lambda p, g, state, lr, kept: step_by(p, g, kept["lr"])), "sgd"),
    "half of the step": (rule(lambda p, g, state, lr, kept: step_by(p, g, lr / 2)), "sgd"),
    "the last gradient but one": (
        rule(lambda p, g, state, lr, kept: step_by(p, state.pop("g", g), lr) or state.update(g=g.clone())),
        "sgd",
    ),
    "clipped": (rule(lambda p, g, state, lr, kept: step_by(p, g.clamp(-1, 1), lr)), "sgd"),
}
SOUND = {
    "Adam by its equations": (adams(), "adam"),
    "torch's Adam": (lambda p, lr: torch.optim.Adam(p, lr=lr), "adam"),
    "AMSGrad": (amsgrad, "amsgrad"),
    "SGD": (rule(lambda p, g, state, lr, kept: step_by(p, g, lr)), "sgd"),
}


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_that_is_not_the_rule_it_claims_to_be_fails(name):
    optimizer, claimed = RULES[name]
    assert walking.rule(watched(optimizer, OPTIMIZERS[claimed]).worst).outcome == "fail"


@pytest.mark.parametrize("name", SOUND)
def test_an_optimizer_that_is_the_rule_it_claims_to_be_passes(name):
    optimizer, claimed = SOUND[name]
    assert walking.rule(watched(optimizer, OPTIMIZERS[claimed]).worst).outcome == "pass"


def test_a_certificate_holds_the_optimizer_of_a_run_against_its_claim():
    """And judges the ledgers by what is claimed: half of SGD's steps are no SGD."""
    found = outcomes(optimizer=RULES["half of the step"][0], rule="sgd")
    assert found["optimizer step"] == "fail" and found["descent ledger"] == "fail"
    found = outcomes(optimizer=adams(), rule="adam")
    assert found["optimizer step"] == "pass" and "Adam's ledger" in found


def test_an_optimizer_that_claims_no_other_rule_is_said_to_be_held_against_itself():
    model, data = problem(16, 2)
    left_out = {}
    for claimed in (None, "adam"):
        said: list[Stage] = []
        run_gates(model, analytic_kl, Objective(), data, optimizer=adams(), rule=claimed, progress=said.append, **QUICK)
        left_out[claimed] = [str(stage) for stage in said if stage.left_out]
    assert any(
        "optimizer step beside a known rule: an optimizer of your own is held" in line for line in left_out[None]
    )
    assert not any("optimizer step" in line for line in left_out["adam"])


SHARED: dict[torch.Size, torch.Tensor] = {}


def leaking(p, g, state, lr, kept):
    SHARED[p.shape] = g + 0.5 * SHARED.get(p.shape, torch.zeros_like(g))
    p.sub_(lr * SHARED[p.shape])


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (leaking, "steps otherwise when it is made again and given the same gradients"),
        (
            lambda p, g, state, lr, kept: p.sub_(lr * g * torch.rand(())),
            "it draws random numbers, or keeps state outside",
        ),
        (lambda p, g, state, lr, kept: p.sub_(lr * g / g.norm().clamp(min=1)), "lets one member's gradient change"),
    ],
)
def test_an_optimizer_whose_steps_are_not_each_members_own_is_refused(update, message):
    with pytest.raises(ValueError, match=message):
        check_elementwise(rule(update))
    check_elementwise(adams())


# Samplers


def epochs(order):
    """Minibatches of one order of the examples after the other."""

    def sampler(size, batch_size, generator):
        kept: list[torch.Tensor] = []

        def sample(n):
            while sum(map(len, kept)) < n:
                drawn = order(size, generator)
                kept.append(drawn[: len(drawn) // batch_size * batch_size].view(-1, batch_size))
            rows = torch.cat(kept)
            kept[:] = [rows[n:]]
            return rows[:n]

        return sample

    return sampler


def drawing(draw):
    return lambda size, batch_size, generator: lambda n: draw(size, (n, batch_size), generator)


def uniform(size, shape, generator):
    return torch.randint(size, shape, generator=generator)


SAMPLERS = {
    "an example never drawn": drawing(lambda size, shape, g: 1 + uniform(size - 1, shape, g)),
    "an example drawn twice as often": drawing(lambda size, shape, g: uniform(size + 1, shape, g) % size),
    "one half drawn more often": drawing(lambda size, shape, g: (uniform(2 * size + 8, shape, g) // 2) % size),
    "the last example of a batch twice": drawing(
        lambda size, shape, g: torch.cat([(i := uniform(size, shape, g))[:, :-1], i[:, -2:-1]], 1)
    ),
    "the same tail always dropped": epochs(lambda size, g: torch.randperm(size - 9, generator=g)),
}


def drawn_by(sampler, uniform_claimed=False, size=32, steps=1500):
    generator = seeded(3)
    indices = sampler(size, 8, generator)(steps)
    kept = Randomness(size, torch.Size((1, 8, 2)))
    noise = torch.randn(steps, 1, 8, 2, generator=generator, dtype=torch.float64)
    kept.enter(torch.arange(1, steps + 1), indices, noise, 1)
    return randomness(kept, uniform_claimed)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_does_not_draw_every_example_alike_fails(name):
    assert drawn_by(SAMPLERS[name]).outcome == "fail"


@pytest.mark.parametrize(
    "sampler",
    [drawing(uniform), epochs(lambda size, g: torch.randperm(size, generator=g)), epochwise,
     drawing(lambda size, shape, g: torch.rand(shape[0], size, generator=g).topk(shape[1], 1).indices)],
    ids=["with replacement", "epochs", "epochwise", "distinct"],
)  # fmt: skip
def test_a_sampler_of_ones_own_may_draw_without_replacement(sampler):
    assert drawn_by(sampler).outcome != "fail"


def test_what_is_claimed_to_be_drawn_with_replacement_must_not_be_drawn_more_evenly():
    assert drawn_by(drawing(uniform), uniform_claimed=True).outcome != "fail"
    assert drawn_by(epochwise, uniform_claimed=True).outcome == "fail"


def test_minibatches_without_repetition_have_less_variance_by_a_known_factor():
    """Of N = 5 and B = 3 the factor is (5 - 3) / (5 - 1) = 1 / 2, of B = 5 nothing is left."""
    assert without_repetition(5, 3) == pytest.approx(math.log(0.5))
    assert without_repetition(5, 1) == 0.0 and without_repetition(5, 5) == -math.inf
    normal = torch.randn(3, 4000, 2, generator=seeded(1), dtype=torch.float64)
    fresh, mine, half = (gather([{"w": part}], 4000) for part in (normal[0], normal[1], normal[2] * 0.6**0.5))
    assert independent_draws({8: mine}, fresh, 8, {8: math.log(2)}).outcome == "pass"
    assert independent_draws({8: half}, fresh, 8).outcome == "fail"
    assert independent_draws({8: half}, fresh, 8, {8: math.log(2)}).outcome == "pass"
    assert independent_draws({8: half}, fresh, 8, {8: 0.1}).outcome == "fail"
    assert independent_draws({8: fresh}, half, 8, {8: math.log(2)}).outcome == "fail"  # more is no less
    quarter = gather([{"w": normal[2] * 0.6**0.5 / 2}], 4000)  # four times the batch, and 0.6 of what that leaves
    assert variance_in_batch(mine, quarter, 4.0).outcome == "fail"
    assert variance_in_batch(mine, quarter, 4.0, steeper=0.4).outcome == "pass"
    assert variance_in_batch(quarter, mine, 4.0, steeper=9.0).outcome == "fail"


def test_a_sampler_without_repetition_passes_the_gates_of_the_variance():
    found = outcomes(
        sampler=drawing(lambda size, shape, g: torch.rand(shape[0], size, generator=g).topk(shape[1], 1).indices)
    )
    assert "fail" not in (found["independent draws"], found["variance in B"], found["randomness"])


def test_a_loop_that_draws_no_row_twice_where_its_sampler_claims_to_has_too_little_variance():
    """Of 32 rows, minibatches of 16 keep 16 / 31 of the rows' variance, those of 32 nothing: claimed, or a fault."""
    distinct = drawing(lambda size, shape, g: torch.rand(shape[0], size, generator=g).topk(shape[1], 1).indices)

    def loop(*arguments, sampler, **options):
        return train(*arguments, sampler=distinct, **options)

    given = {"rows": 32, "batch_size": 16}
    assert outcomes(trainer=loop, **given)["independent draws"] == "fail"
    assert outcomes(sampler=distinct, **given)["independent draws"] != "fail"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda size, shape, g: uniform(size, (2, 7), g), r"must draw int64 of shape \(n, B\) = \(2, 8\)"),
        (lambda size, shape, g: uniform(size, shape, g).int(), "must .* for n = 2, got torch.int32 of shape"),
        (lambda size, shape, g: uniform(size, shape, g) - size, "must draw examples 0 to 31, got -32"),
        (lambda size, shape, g: uniform(1, shape, g) + size, "must draw examples 0 to 31, got 32"),
        (lambda size, shape, g: torch.randint(size, shape), "draws other examples from a generator of the same seed"),
        (lambda size, shape, g: None, "must draw int64 .* got None"),
        (lambda size, shape, g: 1 / 0, r"failed with ZeroDivisionError: division by zero, in <lambda> at line \d+ of"),
    ],
)  # fmt: skip
def test_a_sampler_that_draws_no_examples_is_refused(draw, message):
    with pytest.raises(ValueError, match=f"The sampler '<lambda>' {message}"):
        require_sampler(drawing(draw), torch.zeros(32, 2), 8)
    require_sampler(drawing(uniform), torch.zeros(32, 2), 8)


def test_every_draw_of_a_sampler_is_looked_at():
    """The first two are right."""
    counted: list[int] = []

    def late(size, batch_size, generator):
        def sample(n):
            counted.append(n)
            return uniform(size, (n, batch_size if len(counted) < 3 else batch_size - 1), generator)

        return sample

    draw = examined(late)(32, 8, seeded(0))
    assert draw(3).shape == (3, 8) and draw(2).shape == (2, 8)
    with pytest.raises(ValueError, match=r"The sampler 'late' must draw int64 of shape \(n, B\) = \(4, 8\) for n = 4"):
        draw(4)
    assert examined(epochwise) is epochwise


# Training loops


def loop(gradients=None, value=None, kept=None, drawn=None, stop=None, marks=None):
    """A training loop of a third party, and its faults: none by default."""

    def trainer(model, estimator, objective, data, optimizer, schedule, steps, batch_size, seeds, *, sampler,
                checkpoints, observe):  # fmt: skip
        loss, memory = Loss(model, estimator, objective), {}
        own = {n: torch.stack([p] * len(seeds)).clone() for n, p in own_parameters(loss).items()}
        generators = [seeded(seed) for seed in seeds]
        draws = [sampler(len(data), batch_size, generator) for generator in generators]
        made, differentiate = optimizer(list(own.values()), schedule(1)), vmap(grad_and_value(loss_function(loss)))
        taken: list[tuple[torch.Tensor, torch.Tensor]] = []
        for number in range(steps + 1):
            if number:
                indices = torch.stack([draw(1)[0] for draw in draws])
                shape = loss.noise_shape(batch_size)
                noise = torch.stack([torch.randn(shape, generator=g, dtype=data.dtype) for g in generators])
                noise = drawn(noise) if drawn else noise
                before = {n: p.detach().clone() for n, p in own.items()}
                found, losses = differentiate(before, data[indices], noise)
                found = gradients(found, number, memory) if gradients else found
                losses = value(losses) if value else losses
                for group in made.param_groups:
                    group["lr"] = schedule(number)
                for name, p in own.items():
                    p.grad = found[name]
                made.step()
                if stop is None or number <= stop:
                    observe(Step(number, schedule(number), before, own, found, losses, indices, noise))
                squares = torch.stack([g.flatten(1).square().sum(1) for g in found.values()]).sum(0)
                taken.append(kept(losses, squares) if kept else (losses, squares))
            if number in (checkpoints if marks is None else marks(checkpoints)):
                parts = zip(*taken, strict=True) if taken else (torch.zeros(0, len(seeds)),) * 2
                losses_and_squares = [torch.stack(part) if isinstance(part, tuple) else part for part in parts]
                state = State(number, {n: p.detach().clone() for n, p in own.items()}, loss, data, tuple(seeds))
                yield Checkpoint(state, *losses_and_squares, {}, ())
                taken.clear()

    return trainer


def without_zero_grad(found, number, memory):
    """The gradient of step 49 is still there at step 50."""
    kept, memory["g"] = memory.get("g"), found
    return {n: g + kept[n] for n, g in found.items()} if number == 50 else found


LOOPS = {
    "accumulated without division": loop(lambda found, number, memory: {n: 2 * g for n, g in found.items()}),
    "zero_grad forgotten once": loop(without_zero_grad),
    "float32 gradients": loop(lambda found, number, memory: {n: g.float().double() for n, g in found.items()}),
    "clipped": loop(lambda found, number, memory: {n: g.clamp(-1, 1) for n, g in found.items()}),
    "mean over the members": loop(lambda found, number, memory: {n: 0 * g + g.mean(0) for n, g in found.items()}),
    "losses summed over the batch": loop(value=lambda losses: 8 * losses),
    "losses averaged over members": loop(value=lambda losses: 0 * losses + losses.mean()),
    "losses that are no numbers": loop(value=lambda losses: losses * math.nan),
    "other losses at checkpoints": loop(kept=lambda losses, squares: (losses + 1e-9, squares)),
    "the norm for its square": loop(kept=lambda losses, squares: (losses, squares.sqrt())),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_takes_or_tells_other_gradients_or_losses_fails(name):
    run = watched(trainer=LOOPS[name])
    assert run.replay is not None and replayed(run.replay, run.longest, torch.float64).outcome == "fail"


def test_a_loop_of_ones_own_that_is_right_passes():
    found = outcomes(trainer=loop())
    assert found["replay"] == found["optimizer step"] == "pass" and "fail" not in found.values()


def raising(*arguments, **options):
    raise RuntimeError("it broke\nin two lines")


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (loop(stop=60), "must call observe after every step and report at .*: it told of 60 steps"),
        (loop(marks=lambda marks: marks[-1:]), r"at \(0, 12, 100\): it told of 100 steps and reported at \(100,\)"),
        (loop(marks=lambda marks: ()), r"and reported at \(\)"),
        (loop(drawn=torch.randn_like), "has other gradients when it is run again from the same seeds"),
        (raising, r"loop 'raising' failed with RuntimeError: it broke, in raising at line \d+ of test_third"),
        (lambda model: model, "failed with TypeError"),
    ],
)  # fmt: skip
def test_a_loop_that_cannot_be_judged_is_refused(trainer, message):
    with pytest.raises(ValueError, match=message) as caught:
        watched(trainer=trainer)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_what_a_loop_changes_of_the_callers_is_said_and_put_back():
    model, data = problem(32, 2)
    kept = data.clone(), {n: p.detach().clone() for n, p in model.named_parameters()}

    def greedy(model, estimator, objective, data, *rest, **options):
        if rest[2] == QUICK["steps"]:
            with torch.no_grad():
                model.W.mul_(1.001)
        return train(model, estimator, objective, data, *rest, **options)

    def coarse(model, estimator, objective, data, *rest, **options):
        if rest[2] == QUICK["steps"]:
            data[0] = 0.0
        return train(model, estimator, objective, data, *rest, **options)

    for trainer, message in (
        (greedy, "'W' of the model .* was changed, which a hook, a closure or other code"),
        (coarse, "The data were"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*it was put back, work on a copy"):
            run_gates(model, analytic_kl, Objective(), data, trainer=trainer, **QUICK)
        assert torch.equal(data, kept[0])
        assert all(torch.equal(p, kept[1][n]) for n, p in model.named_parameters())


def test_recorded_losses_by_hand():
    """Rounding explains 2,000 units in the last place of 1 + |loss|: of 3, 2000 x 2^-52 x 4."""
    unit = UNITS * 2.0**-52 * 4
    expected = torch.tensor([[3.0, 3.0], [3.0, math.nan], [3.0, 3.0]], dtype=torch.float64)
    found = expected + torch.tensor([[0.0, 2 * unit], [unit, 0.0], [math.nan, 0.0]], dtype=torch.float64)
    assert loss_mismatch(found, expected).tolist() == pytest.approx([2.0, 1.0, math.inf], rel=1e-2)
    assert loss_mismatch(found[:, :1], expected).tolist() == [math.inf] * 3
    told, loss = Recorded(), expected[:1]
    step = Step(1, 0.1, {}, {}, {}, loss[0], torch.zeros(2, 1), None)
    told.enter(step, torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64))
    state = State(1, {}, None, loss, (1, 2))  # pyright: ignore[reportArgumentType]
    squares = torch.tensor([[25.0, 1.0]], dtype=torch.float64)
    none = Checkpoint(state, loss[:0], squares[:0], {}, ())
    assert Recorded([], []).compare(none) is None
    right, wrong = (Checkpoint(state, loss, part, {}, ()) for part in (squares, squares + 1e-8))
    assert told.compare(right) == (0.0, 1)
    told.compared = 0
    mismatch = told.compare(wrong)
    assert mismatch is not None and mismatch.error > 1 and mismatch.step == 1


def test_failing_names_a_line_of_the_third_partys_code_alone():
    with (
        pytest.raises(ValueError, match=r"It failed with ValueError: x, in test_failing\w+ at line \d+ of"),
        failing("It"),
    ):
        raise ValueError("x")
    with pytest.raises(ValueError, match=r"^samples must be an integer of at least 1"), failing("It"):
        Objective(samples=0)


# References and values


def test_a_reference_with_other_parameters_is_refused():
    model, data = problem(16, 2)
    other, _ = problem(16, 1)
    with pytest.raises(
        ValueError, match=r"'W' is of shape \(\d+, 2\) in the model, and of shape \(\d+, 1\) in the ref"
    ):
        run_gates(model, analytic_kl, Objective(), data, reference=other, **QUICK)


def test_a_logarithm_of_a_mean_of_exponentials_is_refused_where_they_vanish():
    model, data = problem(16, 2)
    objective = Objective(5, 0.0)

    def naive(model, x, noise, objective):
        q = model.posterior(x)
        return objective.log_weights(model, x, q.transport(noise), q).exp().mean(0).log()

    with pytest.raises(
        ValueError, match="Estimator 'naive' has no finite gradient where log-weights are far below zero"
    ):
        require_finite(Loss(model, naive, objective), data)
    for right in (pathwise, doubly_reparameterized):
        require_finite(Loss(model, right, objective), data)


# Hooks and closures that hold the caller's model


def hooked(hook, after):
    """A model whose first layer calls a hook with itself, from so many calls on."""
    model, count = mlp_vae((2,), (3,), 1, likelihood=gaussian(0.5), generator=seeded(2), dtype=torch.float64), [0]
    layer = model.encoder[1]

    def call(module, given, found):
        count[0] += 1
        if count[0] > after:
            hook(layer, layer_weight)

    layer_weight = layer.weight
    layer.register_forward_hook(call)
    return model


def by_attribute(layer, weight):
    with torch.no_grad():
        layer.weight.add_(1e-3)


def by_closure(layer, weight):
    weight.data.add_(1e-3)


MEASURES = {
    "bound": lambda loss, x: bound(loss, x, 30, seeded(3)),
    "log_likelihood": lambda loss, x: log_likelihood(loss, x, 60_000, seeded(3)),
    "moments": lambda loss, x: gradient_moments(loss, fresh(loss, x, 5, seeded(3)), 400_000),
    "gates": lambda loss, x: run_gates(loss.model, pathwise, loss.objective, x, steps=100, members=2, replicates=800),
    "training": lambda loss, x: list(
        train(loss.model, pathwise, loss.objective, x, sgd, inverse_sqrt(0.01), 60, 5, (1, 2))
    ),
}


@pytest.mark.parametrize("hook", [by_attribute, by_closure])
@pytest.mark.parametrize("measure", MEASURES)
def test_what_a_hook_does_to_the_callers_model_is_said_and_put_back(measure, hook):
    """From the twentieth call on; `train` hands the layer other parameters, which a hook may have as it likes."""
    model, x = hooked(hook, 20), torch.randn(12, 2, generator=seeded(1), dtype=torch.float64)
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    message = r"'weight' of |failed with RuntimeError: During a grad|gives another result|changes its 'weight'"
    if (measure, hook) == ("training", by_attribute):
        MEASURES[measure](Loss(model, pathwise, Objective(2)), x)
    else:
        with pytest.raises(ValueError, match=message) as caught:
            MEASURES[measure](Loss(model, pathwise, Objective(2)), x)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters())


def test_the_callers_generator_goes_on_where_a_model_is_left_alone():
    """Even torch's own, if that is what the caller gives: two bounds are of two draws."""
    model, data = problem(16, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (bound(Loss(model, pathwise, Objective()), data, 4, torch.default_generator) for _ in range(2))
    assert first.value != second.value
