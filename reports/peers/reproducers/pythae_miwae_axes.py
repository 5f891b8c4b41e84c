"""Pythae 0.1.2: MIWAE normalises weights over its M estimates and averages over its K samples, the wrong way round."""

import torch
from pythae.models import MIWAE, MIWAEConfig

M, K = 1, 4  # one estimate of K samples: the gradient should be that of IWAE with K samples
model = MIWAE(MIWAEConfig(input_dim=(1,), latent_dim=1, number_gradient_estimates=M, number_samples=K))
x, zeros = torch.zeros(1, 1), torch.zeros(1, M, K, 1)  # z = mu = log_var = 0, so that log p(z) = log q(z|x)
decoded = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, M, K, 1).requires_grad_()
loss, _, _ = model.loss_function(decoded, x, zeros, zeros, zeros)
(actual,) = torch.autograd.grad(loss, decoded)

log_w = -0.5 * decoded.view(K) ** 2
(iwae,) = torch.autograd.grad(-torch.logsumexp(log_w, 0), decoded, retain_graph=True)
(elbo,) = torch.autograd.grad(-log_w.mean(), decoded)
print(f"Pythae {actual.flatten().tolist()}, IWAE {iwae.flatten().tolist()}, ELBO {elbo.flatten().tolist()}")
assert torch.allclose(actual, elbo) and not torch.allclose(actual, iwae)
