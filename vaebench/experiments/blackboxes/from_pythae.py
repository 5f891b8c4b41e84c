"""Pythae: a model as a black box, and beside it the bound that its class promises.

The bound is computed from the log-weights of the model's own encoder and decoder by the same functions that everything
else here is; like Pythae's, it leaves out the constant of a Gaussian ("mse"). Needs the package pythae.
"""

# pyright: reportMissingImports=false

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import BaseAE
from pythae.trainers import CoupledOptimizerTrainer, CoupledOptimizerTrainerConfig
from torch import Tensor
from torch.nn import functional as F

from vaebench.experiments.blackboxes.protocol import STEP, BackwardBox, Claim
from vaebench.gradients import Objective
from vaebench.models.distributions import Gaussian


def from_pythae(model: BaseAE) -> Claim:
    """A Pythae model as a black box beside the bound that its name promises.

    The box is the loss that the model's `forward` returns, with its gradient; of PIWAE, what the trainer that Pythae
    gives it leaves as gradients, and the decoder's loss.

    Args:
        model: a VAE, BetaVAE, IWAE, CIWAE, MIWAE or PIWAE, with any encoder and decoder.

    Returns:
        The box and the trusted one, of the model's parameters by name.

    Raises:
        ValueError: if the model is of another class.
    """
    kind = type(model).__name__
    if kind not in PROMISES:
        raise ValueError(f"What a Pythae {kind} promises is not known here; known: {', '.join(PROMISES)}.")
    objective, losses, promise = PROMISES[kind](model)
    box = BackwardBox(model, trained_backward(model) if kind == "PIWAE" else forward_backward(model))
    trusted, heavier = (
        BackwardBox(model, lambda x, more=more: _promised(model, losses, x, more)) for more in (0.0, STEP)
    )
    return Claim(box, trusted, objective, promise, heavier, "vaebench's bound of the nets")


Minus = Callable[[Tensor], Tensor]  # of log-weights (M, K, B), the mean over B of minus a bound
Losses = tuple[int, int, Minus, Minus]  # M, K, the encoder's and the decoder's
Promise = tuple[Objective, Losses, str]  # the last in words, where it is not the objective


def _elbo(log_w: Tensor) -> Tensor:
    return -log_w.mean()


def _iwae(log_w: Tensor) -> Tensor:
    return -torch.stack([Objective(log_w.shape[1], 0.0).bound(one) for one in log_w]).mean()


def _simple(objective: Objective) -> Promise:
    loss = _elbo if objective.alpha == 1 else _iwae
    return objective, (1, objective.samples, loss, loss), ""


def _combined(model: Any) -> Promise:
    share, samples = float(model.beta), int(model.n_samples)

    def loss(log_w: Tensor) -> Tensor:
        return share * _elbo(log_w) + (1 - share) * _iwae(log_w)

    words = f"combination of {share:g} ELBO and {1 - share:g} IWAE (K={samples})"
    return Objective(samples, 0.0), (1, samples, loss, loss), words


def _multiple(model: Any) -> Promise:
    estimates, samples = int(model.gradient_n_estimates), int(model.n_samples)
    words = f"mean of {estimates} IWAE bounds (K={samples})"
    return Objective(samples, 0.0), (estimates, samples, _iwae, _iwae), words


def _partial(model: Any) -> Promise:
    objective, (estimates, samples, loss, _), mean = _multiple(model)
    words = f"{mean} by the encoder and IWAE bound (K={estimates * samples}) by the decoder"
    return objective, (estimates, samples, loss, lambda log_w: _iwae(log_w.flatten(0, 1).unsqueeze(0))), words


PROMISES: dict[str, Callable[[Any], Promise]] = {
    "VAE": lambda model: _simple(Objective()),
    "BetaVAE": lambda model: _simple(Objective(beta=float(model.beta))),
    "IWAE": lambda model: _simple(Objective(int(model.n_samples), 0.0)),
    "CIWAE": _combined,
    "MIWAE": _multiple,
    "PIWAE": _partial,
}


def forward_backward(model: BaseAE) -> Callable[[Tensor], float]:
    """What the loss that a model's `forward` returns leaves as gradients: what Pythae's trainer differentiates.

    Args:
        model: any.

    Returns:
        x -> the loss.
    """

    def backward(x: Tensor) -> float:
        loss: Any = model(DatasetOutput(data=x)).loss  # pyright: ignore[reportCallIssue]
        loss.backward()
        return float(loss.detach())

    return backward


def _promised(model: Any, losses: Losses, x: Tensor, more: float) -> float:
    """Leave the promised gradients in the parameters, at a weight of so much more; the decoder's loss."""
    estimates, samples, of_encoder, of_decoder = losses
    log_w = _log_weights(model, x, estimates * samples, more).unflatten(0, (estimates, samples))
    encoder, decoder = (list(part.parameters()) for part in (model.encoder, model.decoder))
    value = of_decoder(log_w)
    for parameters, loss in ((encoder, of_encoder(log_w)), (decoder, value)):
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
    return float(value.detach())


def _log_weights(model: Any, x: Tensor, samples: int, more: float) -> Tensor:
    """log p(x|z) + (beta + more) (log p(z) - log q(z|x)), (K, B)."""
    found = model.encoder(x)
    q = Gaussian(found.embedding, found.log_covariance / 2)
    z = q.transport(torch.randn(samples, *q.mean.shape, dtype=x.dtype))
    target = x.repeat(samples, *[1] * (x.ndim - 1)).flatten(1)
    y = model.decoder(z.flatten(0, 1)).reconstruction.flatten(1)
    if model.model_config.reconstruction_loss == "bce":
        likelihood = -F.binary_cross_entropy(y, target, reduction="none")
    else:
        likelihood = -0.5 * (y - target).square()
    prior = Gaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    beta = float(model.beta) if type(model).__name__ == "BetaVAE" else 1.0
    rows = likelihood.sum(1).unflatten(0, z.shape[:2])
    return rows + (beta + more) * (prior.log_prob(z) - q.log_prob(z))


class _Rows(BaseDataset):
    """One batch as a data set, in its own precision."""

    def __init__(self, x: Tensor):
        super().__init__(x, torch.zeros(len(x)))
        self.data = x


def trained_backward(model: BaseAE) -> Callable[[Tensor], float]:
    """What Pythae's trainer for two optimizers leaves as gradients, by steps of size zero.

    Args:
        model: with a loss each of the encoder and of the decoder, as PIWAE has.

    Returns:
        x -> the decoder's loss.
    """

    def backward(x: Tensor) -> float:
        with TemporaryDirectory() as directory, _quiet():
            config = CoupledOptimizerTrainerConfig(
                output_dir=directory,
                per_device_train_batch_size=len(x),
                encoder_optimizer_cls="SGD",
                decoder_optimizer_cls="SGD",
                encoder_learning_rate=0.0,
                decoder_learning_rate=0.0,
                no_cuda=True,
            )
            with torch.random.fork_rng(devices=[]):
                trainer = CoupledOptimizerTrainer(model=model, train_dataset=_Rows(x), training_config=config)
                trainer.prepare_training()
            return trainer.train_step(epoch=1)[2]

    return backward


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pythae's notes and progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)
