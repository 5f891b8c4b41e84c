"""Module graphs of every kind times all that takes a model: the right value or one sentence, and the model untouched.

The right value is that of plain autograd on a copy, one gradient at a time, without `torch.func`.
"""

import copy
import math
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from tests.cases import NEEDS_COMPILER
from vaebench.gates import run_gates
from vaebench.gates.contract import check_estimator, check_model
from vaebench.gradients import Loss, Objective, chunked, loss_function, own_parameters, pathwise
from vaebench.measures import moments, probes
from vaebench.measures.likelihood import bound, log_likelihood
from vaebench.models import VAE, gaussian
from vaebench.models.distributions import Gaussian
from vaebench.support.attributes import copy_of
from vaebench.training.compilation import Compiler
from vaebench.training.fleet import train
from vaebench.training.optimizers import adam, sgd
from vaebench.training.schedules import constant, inverse_sqrt

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}
BATCH, SEEDS = 2, (5, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


def data(dtype=torch.float64) -> Tensor:
    """Six examples with few digits, so that every dtype holds them."""
    return torch.randint(-8, 9, (6, 2), generator=seeded(1), device="cpu").to(dtype) / 8


def net(encoder=(), decoder=(), dtype=torch.float64, kind=VAE) -> VAE:
    """A VAE of two pixels and one latent with layers in the middle of its nets."""
    model = kind(
        nn.Sequential(nn.Linear(2, 2), nn.Tanh(), *encoder, nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(1, 2), nn.Tanh(), *decoder, nn.Linear(2, 2)),
        1,
        gaussian(0.5),
    )
    generator = seeded(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64, device="cpu") - 0.5)
    return model.to(dtype)


class LearnedScale(VAE):
    """A learned variance: a parameter without dimensions."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def likelihood(self, z):
        return Gaussian(super().likelihood(z).mean, self.log_scale.expand(()))


class Scaled(nn.Module):
    """Multiplies by a buffer, which two layers may share."""

    def __init__(self, scale: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x):
        return x * self.scale


class Keeping(nn.Module):
    """Keeps what it made in an attribute, a dict and a list."""

    def __init__(self):
        super().__init__()
        self.last, self.cache, self.all = None, {}, []

    def forward(self, x):
        self.last = self.cache["x"] = x
        self.all.append(x)
        return x


class Holding(nn.Module):
    """Keeps what it made in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("held", None)

    def forward(self, x):
        self.held = x
        return x


class Counting(nn.Module):
    """Changes a buffer in every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return x


class Remembering(nn.Module):
    """Keeps what it was called with, deep within containers of every kind, and in a slot."""

    __slots__ = ("calls",)

    def __init__(self):
        super().__init__()
        self.deep, self.queue, self.names = {"a": [[0]]}, deque([1], 3), {0}
        self.ordered = OrderedDict(first=1)

    def forward(self, x):
        self.calls = len(self.deep["a"][0])
        self.deep["a"][0].append(self.calls)
        self.queue.append(self.calls)
        self.names.add(self.calls)
        self.ordered["last"] = self.calls
        return x


class Adding(nn.Module):
    """Adds to a tensor or an array that is no buffer."""

    def __init__(self, total):
        super().__init__()
        self.total = [total]

    def forward(self, x):
        self.total[0] += 1
        return x


class Hooking(nn.Module):
    """Hooks itself in every call."""

    def forward(self, x):
        self.register_forward_hook(lambda layer, given, found: 1.1 * found)
        return x


class Toggling(nn.Linear):
    """Freezes its weights, and thaws them."""

    def forward(self, x):
        self.weight.requires_grad_(not self.weight.requires_grad)
        return super().forward(x)


class Calling(nn.Module):
    """Calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Recurrent(nn.Module):
    """A layer of torch that keeps a list of its weights."""

    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(1, 2, batch_first=True)

    def forward(self, x):
        return self.cells(x.unsqueeze(-1))[0][:, -1]


class Single(nn.Linear):
    """A layer that computes in float32."""

    def forward(self, x):
        return super().forward(x.float()).double()


def hooked():
    """Hooks that keep what they see, at layers of torch's."""
    model = net()

    def keep(layer, given, *found):
        layer.kept = given

    model.encoder[0].register_forward_hook(keep)
    model.decoder[0].register_forward_pre_hook(keep)
    return model


def in_single():
    model = net([Single(2, 2)])
    model.encoder[2].float()
    return model


def locked():
    model = net()
    model.encoder[0].lock = threading.Lock()
    return model


def seeding(seed, draw):
    return lambda x: (seed(0), x + draw())[1]


def counted():
    calls = []

    def count(x):
        calls.append(1)
        return len(calls) * x

    return net([Calling(count)])


class Clipping(nn.Linear):
    """Changes its own weights in every call."""

    def forward(self, x):
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


class Noisy(nn.Module):
    """Draws from a generator of its own, from torch's, or from numpy's."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        if source == "own":
            self.generator = seeded(7)

    def forward(self, x):
        if self.source == "numpy":
            return x + float(np.random.default_rng().normal())
        return x + torch.randn(x.shape[-1:], generator=getattr(self, "generator", None), dtype=x.dtype, device="cpu")


def frozen(part):
    def make():
        model = net()
        getattr(model, part).requires_grad_(False)
        return model

    return make


def all_frozen():
    return net().requires_grad_(False)


def tied():
    model = net()
    model.decoder[0].bias = model.encoder[0].bias
    return model


def two_paths():
    shared = nn.Linear(2, 2)
    return net([shared], [shared])


def two_frozen_paths():
    shared = nn.Linear(2, 2)
    model = net([shared], [shared])
    shared.requires_grad_(False)
    return model


def shared_buffer():
    scale = torch.tensor([0.5, 2.0])
    return net([Scaled(scale)], [Scaled(scale)])


def empty():
    model = net()
    model.spare = nn.Parameter(torch.zeros(0, 3, dtype=torch.float64))
    return model


def used():
    """It still holds the graph of a call."""
    model = net([Keeping()])
    model.posterior(data())
    return model


def eval_mode(*layers):
    return lambda: net(*([layer()] for layer in layers)).eval()


def non_contiguous():
    model = net()
    model.encoder[0].weight = nn.Parameter(torch.tensor([[0.2, -0.4], [0.3, 0.1]], dtype=torch.float64).t())
    model.decoder[0].weight = nn.Parameter(torch.tensor([[0.2, 0.5], [-0.4, 0.5]], dtype=torch.float64)[:, :1])
    assert not any(layer.weight.is_contiguous() for layer in (model.encoder[0], model.decoder[0]))
    return model


def parametrized():
    model = net()
    nn.utils.parametrizations.weight_norm(model.encoder[0])
    return model


def closure():
    """A parameter that is registered, and used behind the module's back."""
    model = net()
    scale = model.scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    model.head = lambda mean: Gaussian(mean, scale.expand(()))
    return model


def lazy():
    model = net()
    model.encoder[0] = nn.LazyLinear(2, dtype=torch.float64)
    return model


class Kind(NamedTuple):
    """How a model is made, in which context it is used, and the sentence of who refuses it."""

    make: Callable[[], nn.Module]
    refused: str | None = None
    context: Callable = nullcontext
    only: tuple[str, ...] = ()


class Defaults:
    """Other defaults than torch's, for as long as it lasts."""

    def __init__(self, dtype=torch.float32, device="cpu"):
        self.dtype, self.device = dtype, device

    def __enter__(self):
        self.before = torch.get_default_dtype(), torch.get_default_device()
        torch.set_default_dtype(self.dtype)
        torch.set_default_device(self.device)

    def __exit__(self, *_):
        torch.set_default_device(None)
        torch.set_default_dtype(self.before[0])


GRADIENTS = (
    "check_model",
    "check_estimator",
    "train solo",
    "train fleet",
    "train compiled",
    "train resumed",
    "moments",
    "certify",
)
BATCHED = r"Layer '{}' \(BatchNorm1d\) is {}, so an example's gradient would depend on the rest of its batch"
DRAWS = r"Layer '{}' \({}\) (gives .*)?draws or seeds random numbers of its own, and all noise must be an argument"
KINDS = {
    "plain": Kind(net),
    "frozen decoder": Kind(frozen("decoder")),
    "frozen encoder": Kind(frozen("encoder")),
    "all frozen": Kind(all_frozen, "No parameter of VAE is trained: all 8 are frozen or empty", only=GRADIENTS),
    "tied weights": Kind(tied),
    "one module on two paths": Kind(two_paths),
    "the same, frozen": Kind(two_frozen_paths),
    "scalar parameter": Kind(lambda: net(kind=LearnedScale)),
    "empty parameter": Kind(empty),
    "buffer on two paths": Kind(shared_buffer),
    "kept activations": Kind(lambda: net([Keeping()], [Keeping()])),
    "weight norm": Kind(parametrized),
    "non-contiguous": Kind(non_contiguous),
    "BatchNorm, eval": Kind(eval_mode(lambda: nn.BatchNorm1d(2))),
    "BatchNorm, train": Kind(lambda: net([nn.BatchNorm1d(2)]), BATCHED.format("encoder.2", "in training mode")),
    "BatchNorm, no statistics": Kind(
        lambda: net((), [nn.BatchNorm1d(2, track_running_stats=False)]).eval(),
        BATCHED.format("decoder.2", "without running statistics"),
    ),
    "Dropout, eval": Kind(eval_mode(nn.Dropout, nn.Dropout)),
    "Dropout, train": Kind(lambda: net((), [nn.Dropout(0.3)]), DRAWS.format("decoder.2", "Dropout")),
    "RReLU, train": Kind(lambda: net((), [nn.RReLU()]), DRAWS.format("decoder.2", "RReLU")),
    "own generator": Kind(lambda: net([Noisy("own")]), DRAWS.format("encoder.2", "Noisy")),
    "torch's generator": Kind(lambda: net((), [Noisy("torch")]), DRAWS.format("decoder.2", "Noisy")),
    "numpy's generator": Kind(lambda: net((), [Noisy("numpy")]), DRAWS.format("decoder.2", "Noisy")),
    "used before": Kind(used),
    "kept in a buffer": Kind(lambda: net([Holding()]), r"Layer 'encoder.2' \(Holding\) changes its 'held'"),
    "counting layer": Kind(lambda: net([Counting()]), r"Layer 'encoder.2' \(Counting\) changes its 'calls'"),
    "clipping layer": Kind(lambda: net([Clipping(2, 2)]), r"Layer 'encoder.2' \(Clipping\) changes its 'weight'"),
    "deep memory": Kind(lambda: net([Remembering()], [Remembering()])),
    "hooks that keep": Kind(hooked),
    "adds to a tensor": Kind(
        lambda: net([Adding(torch.zeros(2))]), r"Layer 'encoder.2' \(Adding\) changes its 'total' when it is called"
    ),
    "adds to an array": Kind(
        lambda: net([Adding(np.zeros(2))]), r"Layer 'encoder.2' \(Adding\) changes its 'total' when it is called"
    ),
    "hooks itself": Kind(lambda: net([Hooking()]), "gives another result when it is called again: it remembers its"),
    "counts its calls": Kind(counted, r"Layer 'encoder.2' \(Calling\) gives another result when it is called again"),
    "toggles requires_grad": Kind(
        lambda: net([Toggling(2, 2)]), r"Layer 'encoder.2' \(Toggling\) changes its 'weight' when it is called"
    ),
    "Python's generator": Kind(
        lambda: net([Calling(seeding(random.seed, random.random))]), DRAWS.format("encoder.2", "Calling")
    ),
    "numpy's, seeded": Kind(
        lambda: net([Calling(seeding(np.random.seed, np.random.rand))]),
        DRAWS.format("encoder.2", "Calling"),
    ),
    "sets the default dtype": Kind(
        lambda: net([Calling(lambda x: (torch.set_default_dtype(torch.float64), x)[1])]),
        "changes torch's global default dtype when it is called; set it before, or take it out",
    ),
    "sets the threads": Kind(
        lambda: net([Calling(lambda x: (torch.set_num_threads(torch.get_num_threads() + 1), x)[1])]),
        "changes torch's global number of threads when it is called",
    ),
    "works in place on x": Kind(
        lambda: net().apply(lambda layer: isinstance(layer, VAE) and layer.encoder.insert(0, nn.ReLU(inplace=True))),
        r"The posterior changes what it is given in place \(x, z or the noise\); work on a copy",
    ),
    "works in place on z": Kind(
        lambda: net().apply(lambda layer: isinstance(layer, VAE) and layer.decoder.insert(0, nn.ReLU(inplace=True))),
        r"The likelihood changes what it is given in place \(x, z or the noise\); work on a copy",
    ),
    "torch's ValueError": Kind(
        lambda: net([Calling(lambda x: nn.functional.batch_norm(x[:1], None, None, training=True))]),
        r"Layer 'encoder.2' \(Calling\) failed with ValueError: Expected more than 1 value per channel",
    ),
    "recurrent": Kind(
        lambda: net([Recurrent()]),
        r"Layer '(model\.)?encoder.2.cells' \(GRU\) failed under torch.func.vmap, .* with RuntimeError",
        only=("check_model", "check_estimator", "moments", "certify"),
    ),
    "float32 within float64": Kind(in_single),
    "parameter in a closure": Kind(
        closure,
        "The gradient of 'scale' under torch.func is not that of autograd",
        only=GRADIENTS,
    ),
    "lazy layer": Kind(lazy, "'encoder.0.weight' has no shape yet"),
    "meta device": Kind(lambda: net().to("meta"), "'encoder.0.weight' is on the meta device and holds no numbers"),
    "float32": Kind(lambda: net(dtype=torch.float32)),
    "float16": Kind(lambda: net(dtype=torch.float16)),
    "bfloat16": Kind(lambda: net(dtype=torch.bfloat16)),
    "default device meta": Kind(net, context=lambda: Defaults(device="meta")),
    "default dtype float64": Kind(lambda: net(dtype=torch.float32), context=lambda: Defaults(dtype=torch.float64)),
    "default dtype float16": Kind(net, context=lambda: Defaults(dtype=torch.float16)),
    "no_grad": Kind(net, context=torch.no_grad),
    "inference_mode": Kind(net, "Gradients cannot be had within torch.inference_mode", torch.inference_mode, GRADIENTS),
}


def seen_in(value) -> object:
    """What a caller can see of an attribute: numbers and contents, else which object it is."""
    if isinstance(value, Tensor):
        return id(value), () if value.is_meta or nn.parameter.is_lazy(value) else numbers(value)
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, dict):
        return id(value), [(name, seen_in(one)) for name, one in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return id(value), [seen_in(one) for one in value]
    return (id(value), sorted(value)) if isinstance(value, set) else id(value)


def numbers(tensor: Tensor) -> bytes:
    if tensor.grad_fn is not None:
        return b""
    return tensor.detach().contiguous().resolve_conj().reshape(-1).view(torch.uint8).numpy().tobytes()


def bits(model: nn.Module) -> dict:
    """All that a caller can see of a model, and of the process that it runs in."""
    seen: dict = {"requires_grad": [p.requires_grad for p in model.parameters()]}
    for name, module in model.named_modules():
        seen[name] = seen_in(vars(module)), [getattr(module, slot, None) for slot in getattr(module, "__slots__", ())]
    for name, parameter in model.named_parameters():
        seen[f"{name}.grad"] = None if parameter.grad is None else numbers(parameter.grad)
    return seen


def process() -> list:
    """Generators and settings of the caller."""
    numpys = np.random.get_state()  # noqa: NPY002 - whether it moved
    return [
        *(torch.get_rng_state().numpy().tobytes(), str(numpys), random.getstate(), torch.get_default_dtype()),
        *(torch.get_num_threads(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
    ]


def plain_gradient(loss: Loss, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
    names = [name for name, p in loss.named_parameters() if p.requires_grad and p.numel()]
    own = dict(loss.named_parameters())
    with torch.enable_grad():
        found = torch.autograd.grad(loss(x, noise), [own[n] for n in names], allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def close(found: Tensor, expected: Tensor):
    found, expected = (torch.as_tensor(one, dtype=torch.float64, device="cpu") for one in (found, expected))
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[-1], atol=TOLERANCE[-1])


TOLERANCE = [1e-9]


def checked_model(model, x):
    check_model(model, x, seeded(3))


def checked_estimator(model, x):
    check_estimator(pathwise, Objective(3, 0.5), seeded(3), model, x, replicates=800)


def by_hand(model, x, seed, steps):
    """A plain training loop on the draws of one member."""
    loss = Loss(copy_of(model), pathwise, OBJECTIVE)
    trained = [p for p in loss.parameters() if p.requires_grad and p.numel()]
    generator = seeded(seed)
    indices = torch.randint(len(x), (256, BATCH), generator=generator, device="cpu")
    noise = torch.randn(256, 2, BATCH, 1, generator=generator, dtype=x.dtype, device="cpu")
    rule = rule_of(model)(trained, lr=0.01)
    for n in range(steps):
        found = plain_gradient(loss, x[indices[n]], noise[n])
        for parameter, gradient in zip(trained, found.values(), strict=True):
            parameter.grad = gradient
        rule.step()
    return {name: p.detach() for name, p in loss.named_parameters()}


OBJECTIVE = Objective(2, 0.5)


def trained(model, x, seeds=SEEDS, steps=3, **options):
    return train(model, pathwise, OBJECTIVE, x, rule_of(model), constant(0.01), steps, BATCH, seeds, **options)


def rule_of(model):
    """Adam, but SGD in float16, in which Adam's 1e-8 is zero."""
    return sgd if next(model.parameters()).dtype == torch.float16 else adam


def compared(state, model, x, steps=3):
    for s, seed in enumerate(state.seeds):
        expected = by_hand(model, x, seed, steps)
        for name, value in state.member(s).items():
            close(value, expected[name])
        frozen = {
            n for n, p in Loss(model, pathwise, OBJECTIVE).named_parameters() if not p.requires_grad or not p.numel()
        }
        assert set(state.parameters) == set(expected) - frozen


def solo(model, x):
    compared(list(trained(model, x, SEEDS[:1]))[-1].state, model, x)


def fleet(model, x):
    compared(list(trained(model, x))[-1].state, model, x)


def compiled(model, x):
    """By the compiler, or eager after one sentence; the values are those of a plain loop in either case."""
    said = []
    compiler = Compiler(said.append)
    compared(list(trained(model, x, SEEDS[:1], compiler=compiler))[-1].state, model, x)
    assert (compiler.outcome == "compiled") == (not said), compiler.outcome
    assert all("\n" not in one for one in said)


def resumed(model, x):
    """Stopped after a block of draws, and gone on."""
    kept = []
    settings = (pathwise, OBJECTIVE, x, rule_of(model), constant(0.01), 15, 2000, SEEDS)
    whole = list(train(model, *settings, keep=lambda take: kept.append(take())))[-1].state
    rest = list(train(model, *settings, start=kept[0]))[-1].state
    assert kept[0].step == 10
    for name, value in whole.parameters.items():
        assert torch.equal(rest.parameters[name], value) and value.isfinite().all(), name


def gathered(model, x):
    loss = Loss(model, pathwise, OBJECTIVE)
    found = moments.gradient_moments(loss, moments.fresh(loss, x, BATCH, seeded(4)), 8)
    xs, noises = moments.fresh(loss, x, BATCH, seeded(4)).take(8)
    twin = copy_of(loss)
    expected = [plain_gradient(twin, a, b) for a, b in zip(xs, noises, strict=True)]
    assert set(found.mean) == set(expected[0])
    for name, value in found.mean.items():
        close(value, sum(one[name].double() for one in expected) / 8)
    assert math.isfinite(probes.grad_sq(found).value) and probes.gradient_variance(found).value > 0
    groups = moments.parameter_groups(loss, x)
    assert set(groups["phi"]) | set(groups["theta"]) == set(groups["whole"]) == set(found.mean)


def bounded(model, x):
    loss = Loss(model, pathwise, OBJECTIVE)
    found, generator, values = bound(loss, x, 2, seeded(5)), seeded(5), []
    for _ in range(2):
        noise = torch.randn(2, len(x), 1, generator=generator, dtype=x.dtype, device="cpu")
        values.append(pathwise(copy_of(model), x, noise, OBJECTIVE).detach().double().mean())
    close(found.value, sum(values) / 2)


def likelihood(model, x):
    found = log_likelihood(Loss(model, pathwise, OBJECTIVE), x, 50, seeded(6))
    noise = torch.randn(50, len(x), 1, generator=seeded(6), dtype=x.dtype, device="cpu")
    twin = copy_of(model)
    with torch.no_grad():
        q = twin.posterior(x)
        log_w = Objective().log_weights(twin, x, q.transport(noise), q).double()
    close(found.value, (torch.logsumexp(log_w, 0) - math.log(50)).mean())


def certified(model, x):
    settings = {"steps": 100, "members": 2, "replicates": 800, "batch_size": BATCH, "schedule": inverse_sqrt(0.01)}
    verdicts = run_gates(model, pathwise, OBJECTIVE, x, **settings)
    assert {"gradient mean", "optimizer"} & {verdict.gate for verdict in verdicts}
    right = (
        {"pass", "no power"} if next(model.parameters()).dtype == torch.float16 else {"pass"}
    )  # whose rounding is seen, and said
    assert all(verdict.outcome in right for verdict in verdicts if verdict.gate == "gradient mean")


USES = {
    "check_model": checked_model,
    "check_estimator": checked_estimator,
    "train solo": solo,
    "train fleet": fleet,
    "train compiled": compiled,
    "train resumed": resumed,
    "moments": gathered,
    "bound": bounded,
    "log_likelihood": likelihood,
    "certify": certified,
}


def is_refused(kind, use):
    _, refused, _, only = KINDS[kind]
    return refused is not None and (not only or use in only)


COMPILED = ("frozen decoder", "one module on two paths", "recurrent")  # others take the compiler's time in `make slow`
LIGHT = [
    pytest.param(kind, use, marks=() if use != "train compiled" or is_refused(kind, use) else pytest.mark.slow)
    for kind in KINDS
    for use in USES
    if (use != "certify" or KINDS[kind].refused) and (use != "train compiled" or kind not in COMPILED)
]
LIGHT += [pytest.param(kind, "train compiled", marks=NEEDS_COMPILER) for kind in COMPILED]
CERTIFIED = (
    "frozen decoder",
    "one module on two paths",
    "scalar parameter",
    "empty parameter",
    "used before",
    "float16",
)


@pytest.mark.usefixtures("scalar_code")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # weight norm under vmap
@pytest.mark.parametrize(("kind", "use"), LIGHT + [(kind, "certify") for kind in CERTIFIED])
def test_the_right_value_or_one_sentence_and_the_model_untouched(kind, use):
    make, refused, context, _ = KINDS[kind]
    model = make()
    for parameter in model.parameters():
        if not (parameter.is_meta or nn.parameter.is_lazy(parameter)) and parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    like = next(p for p in model.parameters())
    x, before, state = data(like.dtype), bits(model), process()
    TOLERANCE.append(max(ROUNDING[p.dtype] for p in model.parameters()))
    try:
        with context():
            if is_refused(kind, use):
                with pytest.raises((ValueError, AssertionError), match=refused) as caught:
                    USES[use](model, x)
                assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
            else:
                USES[use](model, x)
    finally:
        TOLERANCE.pop()
    assert bits(model) == before
    assert process() == state


def test_what_cannot_be_copied_trains_and_is_refused_by_gates_before_anything_long():
    model, sentence = locked(), r"Layer 'encoder.0' \(Linear\) cannot be copied \(TypeError: cannot pickle"
    assert list(trained(model, data()))[-1].state.step == 3
    for use in ("check_model", "check_estimator", "certify"):
        with pytest.raises((ValueError, AssertionError), match=sentence):
            USES[use](model, data())


# A module on two paths: torch's own functional_call leaves the given tensors behind (pytorch issue 164759)


@pytest.fixture
def shared():
    return Loss(two_paths(), pathwise, OBJECTIVE)


def noise_and_rows():
    return data()[:2], torch.randn(2, 2, 1, generator=seeded(9), dtype=torch.float64)


def test_torch_itself_overwrites_a_module_on_two_paths(shared):
    """When this fails, torch has been mended and the harness may call it plainly."""
    before = bits(shared)
    moved = {name: p + 1 for name, p in own_parameters(shared).items()}
    torch.func.functional_call(shared, moved, noise_and_rows())
    assert bits(shared) != before


@pytest.mark.parametrize("estimator", [pathwise, chunked(pathwise, 1)], ids=["pathwise", "chunked"])
@pytest.mark.parametrize("how", ["plain", "grad", "vmap", "vmap of grad", "grad of vmap"])
def test_a_module_on_two_paths_keeps_its_weights(how, estimator):
    loss = Loss(two_paths(), estimator, OBJECTIVE)
    function, (x, noise), own = loss_function(loss), noise_and_rows(), own_parameters(loss)
    before = bits(loss)
    moved = {name: p + 0.1 for name, p in own.items()}
    stacked = {name: torch.stack([p, moved[name]]) for name, p in own.items()}
    uses = {
        "plain": lambda: function(moved, x, noise),
        "grad": lambda: grad(function)(moved, x, noise),
        "vmap": lambda: vmap(lambda p: function(p, x, noise))(stacked),
        "vmap of grad": lambda: vmap(grad(lambda p: function(p, x, noise)))(stacked),
        "grad of vmap": lambda: grad(lambda p: vmap(lambda q: function(q, x, noise))(p).sum())(stacked),
    }
    found = uses[how]()
    assert bits(loss) == before
    other = copy.deepcopy(loss)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(moved[name])
    if how == "grad":
        for name, expected in plain_gradient(other, x, noise).items():
            close(found[name], expected)
    elif how == "plain":
        close(found, other(x, noise).detach())


class Failing(nn.Module):
    """Fails in its second call."""

    calls = 0

    def forward(self, x):
        Failing.calls += 1
        if Failing.calls % 2 == 0:
            raise RuntimeError("the second call")
        return x


@pytest.mark.parametrize("name", ["plain", "grad", "vmap"])
def test_an_exception_inside_leaves_the_model_as_it_was(name):
    transform = {"plain": lambda f: f, "grad": grad, "vmap": vmap}[name]
    shared = nn.Linear(2, 2)
    model = net([shared, Keeping()], [shared, Failing()])
    loss = Loss(model, pathwise, OBJECTIVE)
    x, noise = noise_and_rows()
    function, before = loss_function(loss), bits(loss)
    moved = {name: p + 1 for name, p in own_parameters(loss).items()}
    if name == "vmap":
        moved = {name: torch.stack([p, p]) for name, p in moved.items()}
    Failing.calls = 1
    with pytest.raises(RuntimeError, match="the second call"):
        transform(lambda p: function(p, x, noise))(moved)
    assert bits(loss) == before


def test_a_name_that_is_no_parameter_is_refused():
    loss = Loss(net(), pathwise, OBJECTIVE)
    with pytest.raises(ValueError, match=r"There is no parameter 'encoder.0.weight'; the names are those of"):
        loss_function(loss)({"encoder.0.weight": torch.zeros(2, 2)}, *noise_and_rows())


# Frozen parameters in a fleet of several models, in a snapshot, and where they are written


def test_frozen_parameters_must_be_equal_in_a_fleet():
    first, second = frozen("decoder")(), frozen("decoder")()
    with torch.no_grad():
        second.decoder[0].weight.add_(1)
    settings = (pathwise, OBJECTIVE, data(), adam, constant(0.01), 3, BATCH, SEEDS)
    with pytest.raises(ValueError, match="and equal buffers and frozen parameters"):
        train([first, second], *settings)
    with pytest.raises(ValueError, match="the same parameters by name, shape and dtype"):
        train([first, net()], *settings)
    with pytest.raises(ValueError, match="the same parameters by name, shape and dtype"):
        train([net(), net(dtype=torch.float32)], *settings)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (lambda: net(), frozen("decoder"), "is trained in the snapshot and not here: freeze the same parameters"),
        (frozen("decoder"), lambda: net(), "is trained here and was not in the snapshot: freeze the same parameters"),
        (frozen("decoder"), frozen("encoder"), "freeze the same parameters as when it was taken, or start anew"),
    ],
)
@pytest.mark.parametrize("rule", [sgd, adam])
def test_a_snapshot_of_other_frozen_parameters_is_refused(before, after, message, rule):
    kept = []
    settings = (pathwise, OBJECTIVE, data(), rule, constant(0.01), 15, 2000, SEEDS)
    list(train(before(), *settings, keep=lambda take: kept.append(take())))
    with pytest.raises(ValueError, match=message):
        list(train(after(), *settings, start=kept[0]))


def test_a_snapshot_of_more_seeds_is_refused():
    kept = []
    settings = (pathwise, OBJECTIVE, data(), sgd, constant(0.01), 15, 2000)
    list(train(net(), *settings, SEEDS, keep=lambda take: kept.append(take())))
    with pytest.raises(ValueError, match=r"that of the seeds\): go on with the same model and seeds"):
        list(train(net(), *settings, SEEDS[:1], start=kept[0]))


def test_a_frozen_model_and_its_thawed_copy_move_alike_where_both_move():
    """The first step of SGD on what is trained is that of the whole model; nothing else is there to move."""
    x, settings = data(), {"steps": 1, "seeds": (3,)}

    def one(model):
        rule = train(model, pathwise, OBJECTIVE, x, sgd, constant(0.1), settings["steps"], BATCH, settings["seeds"])
        return list(rule)[-1].state.parameters

    half, whole = one(frozen("decoder")()), one(net())
    assert all(name.startswith("model.encoder") for name in half) and len(half) == 4
    for name, value in half.items():
        close(value, whole[name])
