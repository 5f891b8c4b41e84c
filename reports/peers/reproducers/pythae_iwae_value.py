"""Pythae 0.1.2: the loss of IWAE (and the IWAE part of CIWAE) is not minus the IWAE bound, and exceeds log p(x)."""

import torch
from pythae.models import IWAE, IWAEConfig

K = 4
model = IWAE(IWAEConfig(input_dim=(1,), latent_dim=1, number_samples=K))
x, zeros = torch.zeros(1, 1), torch.zeros(1, K, 1)  # z = mu = log_var = 0, so that log p(z) = log q(z|x)
decoded = torch.tensor([0.0, 3.0, 3.0, 3.0]).view(1, K, 1)
loss, _, _ = model.loss_function(decoded, x, zeros, zeros, zeros)

log_w = -0.5 * decoded.view(K) ** 2
bound = torch.logsumexp(log_w, 0) - torch.log(torch.tensor(float(K)))
print(f"Pythae reports {-loss:.4f}, log (1/K) sum_k w_k is {bound:.4f}")
assert not torch.isclose(-loss, bound)
assert torch.isclose(-loss, torch.softmax(log_w, 0) @ log_w)  # the weighted mean of the log-weights
