"""Hand-derived gradients of every estimator on the linear VAE at fixed noise, in numpy, one sample at a time.

With x = one example, z = V x + sd * eps, r = x - W z, h = d log w / dz = W' r / s + beta (eps / sd - z) and the
score of q at fixed z, (eps / sd) x' for V and (eps^2 - 1) / 2 for eta:

    d log w along the path:  r z' / s for W,  h x' for V,  h * sd * eps / 2 for eta, less beta times the score.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax


class Draw(NamedTuple):
    """All that the gradients of one sample of one example are made of."""

    log_w: float
    log_likelihood: float
    decoder: np.ndarray  # r z' / s
    path: np.ndarray  # h
    likelihood_path: np.ndarray  # W' r / s
    score_mean: np.ndarray  # eps / sd
    score_eta: np.ndarray  # (eps^2 - 1) / 2
    half_spread: np.ndarray  # sd * eps / 2


def draw(W, V, eta, s, beta, x, eps) -> Draw:
    sd = np.exp(eta / 2)
    z = V @ x + sd * eps
    r = x - W @ z
    log_likelihood = -0.5 * (r @ r) / s - 0.5 * len(x) * np.log(2 * np.pi * s)
    log_prior = -0.5 * (z @ z) - 0.5 * len(z) * np.log(2 * np.pi)
    log_q = -0.5 * (eps @ eps) - 0.5 * eta.sum() - 0.5 * len(z) * np.log(2 * np.pi)
    pull = W.T @ r / s
    return Draw(
        log_w=log_likelihood + beta * (log_prior - log_q),
        log_likelihood=log_likelihood,
        decoder=np.outer(r, z) / s,
        path=pull + beta * (eps / sd - z),
        likelihood_path=pull,
        score_mean=eps / sd,
        score_eta=(eps**2 - 1) / 2,
        half_spread=sd * eps / 2,
    )


def bound(log_w: np.ndarray, alpha: float) -> float:
    if alpha == 1:
        return log_w.mean()
    return (logsumexp((1 - alpha) * log_w) - np.log(len(log_w))) / (1 - alpha)


def signals(log_w: np.ndarray, alpha: float, leave_one_out: bool) -> np.ndarray:
    """The learning signal of each sample under the score function."""
    if not leave_one_out:
        return log_w / len(log_w) if alpha == 1 else np.full(len(log_w), bound(log_w, alpha))
    replaced = []
    for k in range(len(log_w)):
        others = np.delete(log_w, k)
        replaced.append(bound(np.append(others, others.mean()), alpha))
    return bound(log_w, alpha) - np.array(replaced)


def coefficients(name: str, log_w: np.ndarray, alpha: float, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each sample's decoder, path and score gradients are multiplied with."""
    w = softmax((1 - alpha) * log_w)
    zero = np.zeros_like(w)
    if name in ("score_function", "leave_one_out"):
        return w, zero, signals(log_w, alpha, name == "leave_one_out") - beta * w
    if name == "doubly_reparameterized":
        return w, w * (1 - beta * (1 - alpha) * (1 - w)), zero
    return w, w, -beta * w if name == "pathwise" else zero


def loss_gradient(name: str, W, V, eta, s, alpha, beta, x, noise) -> dict[str, np.ndarray]:
    """Gradient of minus the batch mean of an estimator's surrogate, by parameter."""
    total = {"W": np.zeros_like(W), "V": np.zeros_like(V), "eta": np.zeros_like(eta)}
    for b in range(len(x)):
        draws = [draw(W, V, eta, s, beta, x[b], noise[k, b]) for k in range(len(noise))]
        decoder, path, score = coefficients(name, np.array([d.log_w for d in draws]), alpha, beta)
        for k, d in enumerate(draws):
            h = d.likelihood_path if name == "analytic_kl" else d.path
            total["W"] += decoder[k] * d.decoder
            total["V"] += np.outer(path[k] * h + score[k] * d.score_mean, x[b])
            total["eta"] += path[k] * h * d.half_spread + score[k] * d.score_eta
        if name == "analytic_kl":
            total["V"] -= beta * np.outer(V @ x[b], x[b])
            total["eta"] -= beta * (np.exp(eta) - 1) / 2
    return {key: -value / len(x) for key, value in total.items()}


def exact_loss_gradient(W, V, eta, s, beta, x) -> dict[str, np.ndarray]:
    """Gradient of the negative averaged beta-ELBO; S = X'X/N, D = diag(e^eta)."""
    S, D, rest = x.T @ x / len(x), np.exp(eta), np.eye(len(W)) - W @ V
    return {
        "W": -(rest @ S @ V.T - W * D) / s,
        "V": -W.T @ rest @ S / s + beta * V @ S,
        "eta": D * (W**2).sum(0) / (2 * s) - beta * (1 - D) / 2,
    }
