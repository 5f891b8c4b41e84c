"""Pyro 1.9.2: RenyiELBO at alpha = 0 gives a guide without rsample no gradient at all."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO

x, half, phi = torch.tensor(1.5), torch.tensor(0.5), pyro.param("phi", torch.tensor(-1.0))
model = lambda: pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(half)), 1.0), obs=x)
guide = lambda: pyro.sample("z", dist.Bernoulli(logits=pyro.param("phi")))
for _ in range(100):
    RenyiELBO(alpha=0, num_particles=2).loss_and_grads(model, guide)
q = torch.stack([torch.sigmoid(-phi), torch.sigmoid(phi)])  # the same bound with K = 2, by enumeration
w = half * dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(x).exp() / q
bound = sum(q[i] * q[j] * ((w[i] + w[j]) / 2).log() for i in (0, 1) for j in (0, 1))
(exact,) = torch.autograd.grad(-bound, phi)
print(f"Pyro, sum of 100 gradients: {phi.grad}; exact gradient: {exact:.4f}")
assert not phi.grad and exact.abs() > 0.1
