"""Values of a model, averaged over data (N, *event): its bound, and its log-likelihood by many samples."""

import math

import torch
from torch import Tensor, nn

from vaebench.gradients.estimators import Estimator, pathwise
from vaebench.gradients.loss import Loss, Parameters, Tried, function_of_parameters, loss_function, own_parameters
from vaebench.gradients.objectives import Objective
from vaebench.gradients.trial import check_loss, estimator_name
from vaebench.models import LatentModel, as_input
from vaebench.support.checks import positive_integer
from vaebench.support.layers import explaining, like_parameters
from vaebench.support.repeatable import left_alone
from vaebench.support.statistics import Estimate

ROWS = 64  # examples at once
DECODED = 4096  # samples of them that are decoded at once: what a processor's cache holds


def bound(
    loss: Loss,
    data: Tensor | Tried,
    draws: int,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    batch_size: int = 1024,
    reported: Estimator = pathwise,
) -> Estimate:
    """The bound's value, averaged over the data, whatever the estimator: only log-weights enter.

    The value is that of the surrogate `reported`; of `pathwise`, `analytic_kl` and `exact` it is the bound.

    Returns:
        Mean over M >= 2 draws of the noise of all data in nats, and its standard error given the data.

    Raises:
        ValueError: if draws < 2.
    """
    if positive_integer("draws", draws) < 2:
        raise ValueError("draws must be at least 2 for a standard error, got 1.")
    values = bound_draws(Loss(loss.model, reported, loss.objective), data, draws, generator, parameters, batch_size)
    return Estimate(float(values.mean()), float(values.std() / draws**0.5))


def bound_draws(
    loss: Loss,
    data: Tensor | Tried,
    draws: int,
    generator: torch.Generator,
    parameters: Parameters | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """What a surrogate is worth in nats, averaged over the data, once for each of M draws of all noise: (M,)."""
    every, value, like = check_loss(loss, data), loss_function(loss), like_parameters(loss)
    parameters = own_parameters(loss) if parameters is None else parameters
    totals = torch.zeros(draws, dtype=torch.float64, device=generator.device)
    with left_alone(loss), explaining(loss, estimator_name(loss.estimator)), torch.no_grad():
        for draw in range(draws):
            for rows in every.split(batch_size):
                x = as_input(rows, like)
                noise = torch.randn(loss.noise_shape(len(x)), generator=generator, dtype=x.dtype, device=x.device)
                totals[draw] -= value(parameters, x, noise).double() * len(x)
    return totals / len(every)


class _LogWeights(nn.Module):
    """log w under the names of `Loss`, so that its parameters serve."""

    def __init__(self, model: LatentModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        q = self.model.posterior(x)
        return Objective().log_weights(self.model, x, q.transport(noise), q)


def log_likelihood(
    loss: Loss, data: Tensor, samples: int, generator: torch.Generator, parameters: Parameters | None = None
) -> Estimate:
    """The IWAE estimate of log p(x) with K >= 2 samples (Burda et al., 2016), averaged over the data (N, *event).

    A lower bound in expectation, short of log p(x) by about Var(w / p(x)) / (2 K). Samples stream by: memory is that of
    4,096 decoded rows whatever K. Of the loss, the model alone is used.

    Returns:
        Mean over the data in nats, and its standard error given the data, from the spread of the weights.

    Raises:
        ValueError: if there are fewer than 2 samples; `check_loss` says what else is refused.
    """
    if positive_integer("samples", samples) < 2:
        raise ValueError("samples must be at least 2 for a standard error, got 1.")
    data = check_loss(Loss(loss.model, pathwise, Objective()), data)
    parameters = own_parameters(loss) if parameters is None else parameters
    log_weights, like = function_of_parameters(_LogWeights(loss.model)), like_parameters(loss)
    total, variance = 0.0, 0.0
    with left_alone(loss), explaining(loss, "The model"), torch.no_grad():
        for rows in data.split(ROWS):
            x = as_input(rows, like)
            first = second = x.new_full((len(x),), -math.inf, dtype=torch.float64)
            for start in range(0, samples, step := max(1, DECODED // len(x))):
                shape = (min(step, samples - start), len(x), loss.model.latents)
                noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
                log_w = log_weights(parameters, x, noise).double()
                first = torch.logaddexp(first, torch.logsumexp(log_w, 0))
                second = torch.logaddexp(second, torch.logsumexp(2 * log_w, 0))
            total += float((first - math.log(samples)).sum())
            variance += float(((second - 2 * first).exp() - 1 / samples).clamp(min=0).sum())
    return Estimate(total / len(data), math.sqrt(variance) / len(data))
