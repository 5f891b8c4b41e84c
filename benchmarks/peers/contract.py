"""The clauses of `vaebench.gates.contract.check_estimator` that a backward pass can be held to; no statistics in it.

The others need a function of noise and parameters: vmap over members equals a loop, and a closed form at fixed noise.
That the mean gradient is right is judged apart.
"""

import torch
from torch import Tensor

from benchmarks.peers.cases import Case
from benchmarks.peers.steps import replicate
from vaebench.gates.verdict import Verdict, judge
from vaebench.models import VAE

WORDS = "equal seeds, equal results; fresh noise; a full gradient; inputs and torch's settings left alone"


def contract(case: Case, model: VAE, x: Tensor, seed: int) -> Verdict:
    """The number of broken clauses, which are the evidence."""
    backward, settings = case.adapter(model, case.objective), _settings()
    before = [tensor.detach().clone() for tensor in (x, *model.parameters())]
    replicate(backward, model, x, 1, seed)  # an adapter may build its trainer at the first call, and draw for that
    (values, gradients), (again, same) = (replicate(backward, model, x, 2, seed) for _ in range(2))
    sizes = [p.numel() for p in model.parameters()]
    broken = {
        "unequal at equal seeds": not (torch.equal(values, again) and torch.equal(gradients, same)),
        "no fresh noise": torch.equal(gradients[0], gradients[1]),
        "parameters without a finite gradient": sum(
            not (part.isfinite().all() and part.any()) for part in gradients[0].split(sizes)
        ),
        "inputs changed": not all(map(torch.equal, before, (x, *model.parameters()))),
        "settings of torch changed": sum(map(int.__ne__, settings, _settings())),
    }
    evidence = {name: int(count) for name, count in broken.items() if count} | {"replicates": 5}
    return judge("contract", WORDS, sum(map(bool, broken.values())), 0.5, 0.0, evidence)


def _settings() -> tuple[int, ...]:
    return (
        torch.get_default_dtype().itemsize,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )
