"""A study as a report takes it: records that nobody ran, of squared gradients that fall like n^-0.6."""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from vaebench.experiments import Arm
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.studies import Study
from vaebench.experiments.trajectory import Trajectory
from vaebench.gates import judge
from vaebench.report.bands import Band, Line, Summary
from vaebench.support.statistics import Estimate
from vaebench.training.records import geometric

LABELS = ("ReLU", "SoftClip s=1", "SoftClip s=2", "SoftClip s=5", "SoftClip s=10")
QUESTION = "Does a smoother activation make the gradient of a VAE vanish faster?"
STEPS = 20_000
SEEDS = 5


def study(*labels: str, failing: str = "", diverging: str = "", lost: str = ""):
    """A study, its trajectories and its summaries.

    One arm fails a check, of one two seeds diverged, of one all did and it has no summary.
    """
    arms = tuple(Arm(label, replace(SMOKE.base, batch_size=8 + place)) for place, label in enumerate(labels))
    trajectories, summaries = {}, {}
    for place, arm in enumerate(arms):
        diverged = {diverging: (1, 3), lost: range(SEEDS)}.get(arm.label, ())
        trajectories[arm.hash] = _trajectory(arm, diverged)
        if arm.label != lost:
            summaries[arm.hash] = _summary(place, SEEDS - len(diverged), len(diverged), arm.label == failing)
    return Study("activations", "default", QUESTION, "activation", arms), trajectories, summaries


def _trajectory(arm: Arm, diverged) -> Trajectory:
    steps = np.array(geometric(STEPS))
    frame = pd.DataFrame({"step": np.tile(steps, SEEDS), "seed": np.repeat(np.arange(SEEDS), len(steps))})
    frame["grad_sq"] = np.where(frame["seed"].isin(list(diverged)) & (frame["step"] > 400), np.nan, 1.0)
    found = [{"seed": seed, "step": 400 + seed, "value": float("inf")} for seed in diverged]
    metadata = {"experiment": arm.experiment.to_dict(), "commit": "caaf8641", "versions": {"torch": "2.13.0"}}
    machine = {"platform": "Linux", "device": "cpu (x86_64)", "threads": 1, "load": 1.2}
    return Trajectory(metadata | machine | {"diverged": found}, frame)


def _summary(place: int, seeds: int, diverged: int, failing: bool) -> Summary:
    draw = np.random.default_rng(place).standard_normal
    steps = np.array(geometric(STEPS))
    n = np.maximum(steps, 1)
    squares = (1 + place) * 30 * (n + 3) ** -0.6 * np.exp(0.1 * draw((seeds, len(n)))) + 0.02 * draw((seeds, len(n)))
    running = (1 + place) * 75 * (n[1:] + 3) ** -0.6 * np.exp(0.1 * draw((seeds, 1)))
    train = 26 + 80 * n**-0.35 + 0.15 * draw((seeds, 1))
    mean = running.mean(0)
    final = {"T_n": running, "|grad|^2": squares, "negative bound, train": train, "negative bound, test": train + 0.8}
    return Summary(
        gradient=band(steps, squares),
        running=band(steps[1:], running),
        envelope=Line(steps[1:], 2 * mean, "by measured constants"),
        prediction=Line(steps[1:], 1.03 * mean, "to second order"),
        bounds={"train": band(steps, train), "test": band(steps, train + 0.8)},
        extra={"encoder SNR": band(steps, 8 * n**-0.2 * np.exp(0.05 * draw((seeds, len(n)))))},
        final={name: estimate(values[:, -1]) for name, values in final.items()},
        cost={"GFLOP per step": 0.0123, "operations per step": 412.0 + place},
        verdicts=(
            judge("finite", "No member left the finite numbers", diverged, 0, 0.0),
            judge("envelope", "T_n stays below the bound", 20.6 if failing else -12.4, 7.17, 1e-3, {"L": 3.21}),
        ),
    )


def band(step: np.ndarray, values: np.ndarray) -> Band:
    mean, seeds = values.mean(0), len(values)
    width = stats.t.isf(0.025, seeds - 1) * values.std(0, ddof=1) / np.sqrt(seeds)
    return Band(step, mean, mean - width, mean + width)


def estimate(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
