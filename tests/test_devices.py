"""The same numbers on every device, and a training loop that the host does not wait in.

Needs torch and pytest alone: `make cuda` runs it where nothing else is installed.
"""

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vaebench.data import linear_gaussian
from vaebench.data.sampling import Stream, epochwise, with_replacement
from vaebench.gradients.estimators import ESTIMATORS, draw_noise, pathwise
from vaebench.gradients.loss import Loss, loss_function, own_parameters
from vaebench.gradients.memory import chunked, micro_batched
from vaebench.gradients.objectives import Objective
from vaebench.models import conv_vae, linear_vae, mlp_vae
from vaebench.models.activations import soft_clip
from vaebench.training.fleet import train
from vaebench.training.optimizers import OPTIMIZERS, adam, sgd
from vaebench.training.schedules import constant

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
FLOAT64 = {"dtype": torch.float64}


def seeded(device: str = "cpu", seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def linear(device="cpu"):
    x = linear_gaussian(16, generator=seeded(), device=device, **FLOAT64)
    return linear_vae(generator=seeded(), device=device, **FLOAT64), x


def binary(*shape: int, device: str = "cpu"):
    return torch.rand(shape, generator=seeded(), **FLOAT64).round().to(device)


def mlp(device="cpu"):
    return mlp_vae((8, 8), (12, 10), 3, generator=seeded(), device=device, **FLOAT64), binary(4, 8, 8, device=device)


def conv(device="cpu"):
    model = conv_vae(32, activations=soft_clip(5.0), generator=seeded(), device=device, **FLOAT64)
    return model, binary(2, 3, 32, 32, device=device)


def gradient(case, device, estimator, objective):
    model, x = case(device)
    noise = draw_noise(*case(), objective, seeded()).to(device)
    loss = Loss(model, estimator, objective)
    found = torch.autograd.grad(loss(x, noise), list(loss.parameters()), materialize_grads=True)
    assert all(part.device.type == device for part in found)
    return torch.cat([part.flatten() for part in found]).cpu()


def close(found, expected, rtol=1e-10):
    assert float((found - expected).norm()) <= rtol * float(expected.norm())


@DEVICES
@pytest.mark.parametrize("case", [linear, mlp, conv], ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_the_gradient_of_the_cpu(name, case, device):
    if name == "exact" and case is not linear:
        pytest.skip("no closed form")
    for alpha in (1.0,) if name in ("analytic_kl", "sticking_the_landing", "exact") else (1.0, 0.0):
        settings = ESTIMATORS[name], Objective(3, alpha)
        close(gradient(case, device, *settings), gradient(case, "cpu", *settings))


@DEVICES
def test_parts_have_the_gradient_of_the_whole(device):
    model, x = mlp(device)
    objective = Objective(5, 0.0)
    noise, loss = draw_noise(model, x, objective, seeded(device)), Loss(model, pathwise, objective)
    whole, _ = micro_batched(loss_function(loss), len(x))(own_parameters(loss), x, noise)
    parts, _ = micro_batched(loss_function(loss), 1)(own_parameters(loss), x, noise)
    chunks = torch.autograd.grad(Loss(model, chunked(pathwise, 2), objective)(x, noise), list(model.parameters()))
    for expected, part, chunk in zip(whole.values(), parts.values(), chunks, strict=True):
        close(part.cpu(), expected.cpu())
        close(chunk.cpu(), expected.cpu())


@DEVICES
@pytest.mark.parametrize("sampler", [with_replacement, epochwise])
def test_what_a_step_is_made_of_is_drawn_where_it_is_used(sampler, device):
    generator = seeded(device)
    indices, noise = Stream(sampler(10, 4, generator), (2, 4, 3), torch.float64, generator).draw(3)
    assert indices.device.type == noise.device.type == device


def run(device, seeds=(3, 1, 4), optimizer=adam, case=linear, steps=60, **options):
    model, data = case(device)
    objective = Objective(40, 0.0)  # blocks of a few draws
    return train(model, pathwise, objective, data, optimizer, constant(0.01), steps, 64, seeds, **options)


@DEVICES
@pytest.mark.parametrize("case", [linear, mlp], ids=lambda case: case.__name__)
def test_a_member_is_its_solo_run(case, device):
    fleet = list(run(device, case=case, steps=20))[-1].state
    solo = list(run(device, (1,), case=case, steps=20))[-1].state
    for name, stacked in fleet.parameters.items():
        assert stacked.device.type == device
        close(stacked[1].cpu(), solo.parameters[name][0].cpu(), 1e-8)


@DEVICES
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_resumed_from_a_file_is_the_uninterrupted_one(name, device):
    """A snapshot that was in a file comes back on the CPU."""
    kept = []
    whole = list(run(device, optimizer=OPTIMIZERS[name], keep=lambda take: kept.append(take())))
    found = kept[len(kept) // 2]
    on_cpu = found._replace(
        parameters={n: p.cpu() for n, p in found.parameters.items()},
        optimizer={n: p.cpu() for n, p in found.optimizer.items()},
        losses=found.losses.cpu(),
        grad_sq=found.grad_sq.cpu(),
    )
    rest = list(run(device, optimizer=OPTIMIZERS[name], start=on_cpu))
    for parameter, expected in whole[-1].state.parameters.items():
        close(rest[-1].state.parameters[parameter].cpu(), expected.cpu())
    assert [p.state.step for p in rest] == [p.state.step for p in whole if p.state.step >= found.step]


@DEVICES
def test_bytes_on_the_cpu_train_a_model_on_the_device(device):
    model = mlp_vae((4, 4), (5,), 2, generator=seeded(), device=device, **FLOAT64)
    data = torch.randint(256, (10, 4, 4), generator=seeded(), dtype=torch.uint8)
    (*_, last) = train(model, pathwise, Objective(), data, sgd, constant(0.01), 5, 4, (0, 1))
    assert last.losses.isfinite().all() and last.losses.device.type == device


# The host waits for nothing between checkpoints

READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"}
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")


class HostReads(TorchFunctionMode):
    """Reads of tensors by the host, from Python; those of Adam's counters, which live on the CPU, aside."""

    def __init__(self, seen: list[str], optimizers: list[torch.optim.Optimizer]):
        super().__init__()
        self.seen, self.optimizers = seen, optimizers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        counters = {id(s["step"]) for o in self.optimizers for s in o.state.values() if "step" in s}
        name = getattr(func, "__name__", "")
        if name in READS and id(args[0]) not in counters:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Dispatched operations whose result has to reach the host."""

    def __init__(self, seen: list[str], counters: list[int]):
        super().__init__()
        self.seen, self.counters = seen, counters

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            self.seen.append("index by a mask")
        if name in WAITS and not (name == "_local_scalar_dense" and args[0].data_ptr() in self.counters):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def host_reads(optimizer, schedule=None) -> list[str]:
    """Seen in steps 4 to 20 of a fleet: the first steps set up, the last runs into a checkpoint."""
    made, seen, modes = [], [], []

    def kept(parameters, lr):
        made.append(optimizer(parameters, lr))
        return made[-1]

    def watched(number):
        if number == 4:
            counters = [s["step"].data_ptr() for s in made[-1].state.values() if torch.is_tensor(s.get("step"))]
            modes.extend([HostReads(seen, made[-1:]), Waits(seen, counters)])
            for mode in modes:
                mode.__enter__()
        if number == 20:
            while modes:
                modes.pop().__exit__(None, None, None)
        return schedule(number) if schedule else 0.01

    model, data = mlp()
    settings = {"checkpoints": (0, 20)}
    list(train(model, pathwise, Objective(), data, kept, watched, 20, 4, (0, 1), **settings))
    return seen


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_host_reads_nothing_between_checkpoints(name):
    assert host_reads(OPTIMIZERS[name]) == []


@pytest.mark.parametrize(
    "fault", [lambda t: t.item(), bool, float, lambda t: t.expand(2).tolist(), lambda t: torch.ones(3)[t.expand(3) > 0]]
)
def test_a_read_by_the_host_is_seen(fault):
    value = torch.tensor(1.0)

    def schedule(number):
        fault(value)
        return 0.01

    assert host_reads(sgd, schedule)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_device_is_never_waited_for_between_checkpoints():
    def watched(number):
        torch.cuda.set_sync_debug_mode("error" if 3 < number < 20 else "default")
        return 0.01

    model, data = mlp("cuda")
    try:
        list(train(model, pathwise, Objective(), data, adam, watched, 20, 4, (0, 1), checkpoints=(0, 20)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
