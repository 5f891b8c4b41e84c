"""Faults of the training loop: its steps, its optimizer, its minibatches and its noise."""

import math
from unittest.mock import patch

import torch

from tests.convergence.faults.catalogue import fault
from vaebench.data.sampling import epochwise, whole, with_replacement
from vaebench.training import fleet, optimizers
from vaebench.training.fleet import train
from vaebench.training.schedules import polynomial


def loop(name, source="listed", rule="any", note="", bed="elbo"):
    """Register a change of the loop's arguments (by name) as a fault."""

    def register(change):
        def trainer(model, estimator, objective, data, optimizer, schedule, steps, batch_size, seeds, **options):
            parts = {"optimizer": optimizer, "schedule": schedule, "data": data, **options}
            parts |= change(dict(parts))
            data, rule, steps_of = parts.pop("data"), parts.pop("optimizer"), parts.pop("schedule")
            return train(model, estimator, objective, data, rule, steps_of, steps, batch_size, seeds, **parts)

        fault(bed, name, source=source, rule=rule, note=note)(lambda base: {"trainer": trainer})
        return change

    return register


def slowed(change):
    """A change of the claimed schedule; where steps are of size zero they stay so."""
    return lambda parts: {"schedule": lambda n: change(parts["schedule"], n)}


loop("constant step")(slowed(lambda s, n: s(1)))
loop("step per epoch")(slowed(lambda s, n: s(1 + (n - 1) // 32)))
loop("step C/k")(slowed(lambda s, n: s(1) * polynomial(1.0, 1.0)(n)))
loop("step index off by one", source="further")(slowed(lambda s, n: s(n + 1)))
loop("step frozen after 300", source="further")(slowed(lambda s, n: s(min(n, 300))))


def stepping(alter, in_place=False):
    """Optimizers that alter the gradients, a list of tensors, before each step of the claimed rule."""

    def change(parts):
        def factory(parameters, lr):
            parameters, memory = list(parameters), {}
            inner = parts["optimizer"](parameters, lr)
            plain = inner.step

            def step(closure=None):
                found = [p.grad for p in parameters]
                altered = alter([g.clone() for g in found], parameters, memory)
                for p, g in zip(parameters, altered, strict=True):
                    if in_place:
                        p.grad.copy_(g)
                    else:
                        p.grad = g
                plain()

            inner.step = step
            return inner

        return {"optimizer": factory}

    return change


def clip(gradients, parameters, memory):
    norms = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factor = (1 / norms).clamp(max=1)
    return [g * factor.view(-1, *[1] * (g.ndim - 1)) for g in gradients]


def delay(gradients, parameters, memory):
    old = memory.get("old", gradients)
    memory["old"] = gradients
    return old


def heavy_ball(gradients, parameters, memory):
    old = memory.get("m", [torch.zeros_like(g) for g in gradients])
    memory["m"] = [0.5 * m + g for m, g in zip(old, gradients, strict=True)]
    return memory["m"]


def average(gradients, parameters, memory):
    old = memory.get("m", [torch.zeros_like(g) for g in gradients])
    memory["m"] = [0.9 * m + 0.1 * g for m, g in zip(old, gradients, strict=True)]
    return memory["m"]


def decay(gradients, parameters, memory):
    return [g + 1e-3 * p.detach() for p, g in zip(parameters, gradients, strict=True)]


def skip(gradients, parameters, memory):
    memory["n"] = memory.get("n", 0) + 1
    return [0 * g for g in gradients] if memory["n"] % 50 == 0 else gradients


loop("clip at norm 1")(stepping(clip, in_place=True))
loop("clip at norm 1, after recording", source="further")(stepping(clip))
loop("gradient delayed by one step", source="further")(stepping(delay))
loop(
    "gradient delayed by one step, recorded so",
    source="further",
    note="under Adam: the noise stays independent, and steps are too small for the delay to show",
)(stepping(delay, in_place=True))
loop("momentum 0.5", source="further")(stepping(heavy_ball))
loop("averaged gradient", source="further")(stepping(average))
loop("averaged gradient, recorded so", source="further")(stepping(average, in_place=True))
loop("weight decay 1e-3", source="further")(stepping(decay))
loop("weight decay 1e-3, recorded so", source="further")(stepping(decay, in_place=True))
loop(
    "every 50th gradient dropped, recorded so",
    source="further",
    note="2 % less progress is below the resolution of 600 steps",
)(stepping(skip, in_place=True))


def instead(factory):
    return lambda parts: {"optimizer": factory}


loop("AMSGrad for Adam", "further", "adam")(instead(optimizers.amsgrad))
loop("RMSprop for Adam", "further", "adam")(instead(optimizers.rmsprop))
loop("beta2 = 0.99 in Adam", "further", "adam")(instead(lambda p, lr: optimizers.adam(p, lr, betas=(0.9, 0.99))))
loop("beta1 = 0 in Adam", "further", "adam")(instead(lambda p, lr: optimizers.adam(p, lr, betas=(0.0, 0.999))))
loop("eps = 1e-4 in Adam", "further", "adam")(instead(lambda p, lr: optimizers.adam(p, lr, eps=1e-4)))
loop("the theorem's Adam for torch's", "further", "adam")(instead(optimizers.theorem_adam))
loop("Adam for SGD", "further", "sgd")(instead(optimizers.adam))
loop("Adagrad for SGD", "further", "sgd")(instead(optimizers.adagrad))


def sampling(factory):
    """Another sampler of minibatches; a batch that is fixed on purpose stays fixed."""
    return lambda parts: {} if parts["sampler"] is whole else {"sampler": factory}


@loop("fixed minibatch")
@sampling
def fixed(size, batch_size, generator):
    kept = torch.randint(size, (batch_size,), generator=torch.Generator().manual_seed(0))
    return lambda n: kept.expand(n, batch_size)


@loop("fixed minibatch of each member", source="further")
@sampling
def fixed_per_member(size, batch_size, generator):
    kept = torch.randint(size, (batch_size,), generator=generator)
    return lambda n: kept.expand(n, batch_size)


@loop("minibatch without repetition", source="further")
@sampling
def distinct(size, batch_size, generator):
    def sample(n):
        return torch.rand(n, size, generator=generator).topk(batch_size, 1).indices

    return sample


@loop("last example never drawn", source="further", note="a bias of 1/N = 0.4 % of one example's pull")
@sampling
def off_by_one(size, batch_size, generator):
    return with_replacement(size - 1, batch_size, generator)


@loop("only the first half drawn", source="further")
@sampling
def half(size, batch_size, generator):
    return with_replacement(size // 2, batch_size, generator)


loop("epochs claimed to be independent", source="further")(sampling(epochwise))


@loop("one order of the examples in every epoch", source="further")
@sampling
def same_order(size, batch_size, generator):
    order = torch.randperm(size, generator=generator)
    place = [0]

    def sample(n):
        at = (torch.arange(n * batch_size) + place[0]) % size
        place[0] += n * batch_size
        return order[at].view(n, batch_size)

    return sample


def streaming(name, note=""):
    """Register a change of the stream (indices, noise) of all members."""

    def register(change):
        def trainer(*args, **options):
            def altered(streams, count):
                return change(original(streams, count))

            original = fleet.joint_draws
            with patch.object(fleet, "joint_draws", altered):
                yield from train(*args, **options)

        fault("elbo", name, source="further", note=note)(lambda base: {"trainer": trainer})
        return change

    return register


@streaming("noise reused once")
def reuse(stream):
    kept = None
    for number, (indices, noise) in enumerate(stream):
        kept = noise if number % 2 == 0 else kept
        yield indices, kept


@streaming("minibatch reused once")
def reuse_batch(stream):
    kept = None
    for number, (indices, noise) in enumerate(stream):
        kept = indices if number % 2 == 0 else kept
        yield kept, noise


@streaming("one noise for all members")
def common_noise(stream):
    return ((indices, noise[:1].expand_as(noise)) for indices, noise in stream)


@streaming("one minibatch for all members")
def common_batch(stream):
    return ((indices[:1].expand_as(indices), noise) for indices, noise in stream)


@streaming("noise and minibatches repeat every 256 steps")
def periodic(stream):
    seen = []
    for number, drawn in enumerate(stream):
        if number < 256:
            seen.append(drawn)
        yield seen[number % 256]


@streaming("noise 5 % too wide")
def wide(stream):
    return ((indices, 1.05 * noise) for indices, noise in stream)


@streaming("noise uniform, of variance 1", note="the mean gradient needs two moments of the noise only")
def uniform(stream):
    return ((indices, (torch.special.ndtr(noise) - 0.5) * math.sqrt(12)) for indices, noise in stream)


@streaming("noise cut at two standard deviations")
def cut(stream):
    return ((indices, noise.clamp(-2, 2)) for indices, noise in stream)


@streaming("noise never below zero")
def folded(stream):
    return ((indices, noise.abs()) for indices, noise in stream)
