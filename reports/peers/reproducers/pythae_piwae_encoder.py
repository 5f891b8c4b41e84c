"""Pythae 0.1.2: PIWAE's trainer leaves the decoder's loss in the encoder's gradient."""

from tempfile import mkdtemp

import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import PIWAE, PIWAEConfig
from pythae.trainers import CoupledOptimizerTrainer, CoupledOptimizerTrainerConfig

data = BaseDataset(torch.rand(8, 2), torch.zeros(8))
model = PIWAE(PIWAEConfig(input_dim=(2,), latent_dim=1, number_gradient_estimates=3, number_samples=3))
config = CoupledOptimizerTrainerConfig(output_dir=mkdtemp(), encoder_optimizer_cls="SGD", no_cuda=True)
trainer = CoupledOptimizerTrainer(model=model, train_dataset=data, training_config=config)
trainer.prepare_training()
out, weight = model(DatasetOutput(data=data.data)), next(model.encoder.parameters())
(encoder,) = torch.autograd.grad(out.encoder_loss, weight, retain_graph=True)
(decoder,) = torch.autograd.grad(out.decoder_loss, weight, retain_graph=True)
trainer._optimizers_step(out)  # what train_step calls for each batch
print(f"norms: {weight.grad.norm()} used, {encoder.norm()} of encoder_loss, {decoder.norm()} of decoder_loss")
assert torch.allclose(weight.grad, encoder + decoder, atol=1e-6) and not torch.allclose(weight.grad, encoder, atol=1e-6)
