"""Pyro 1.9.2: in a subsampled plate RenyiELBO raises the weights to the power N/B, and exceeds log p(x)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO

rows = lambda size: pyro.plate("data", size, subsample=torch.tensor([0]))  # one of `size` equal data, x = 2
prior, x = dist.Normal(0.0, 1.0), torch.tensor([2.0])
guide = lambda size: rows(size)(pyro.sample)("z", prior)
model = lambda size: rows(size)(lambda: pyro.sample("x", dist.Normal(pyro.sample("z", prior), 1.0), obs=x))()
elbo = RenyiELBO(alpha=0, num_particles=100_000, vectorize_particles=True, max_plate_nesting=1)
bounds = {size: -elbo.loss(model, guide, size) / size for size in (1, 2, 10)}
evidence = dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(2.0)).item()
print(f"bound per datum, by N: {bounds}; log p(x): {evidence}")
assert abs(bounds[1] - evidence) < 0.05 and bounds[10] > evidence + 0.3
