"""What a recorded experiment says: bands over seeds, the theorem's running average, its envelope, verdicts.

The inequalities are evaluated at every step (`vaebench.experiments.record`, `vaebench.theory.envelopes`).

For SGD two lines are drawn, both with f_* cancelled:

    T_n = (1/n) {sum_k (f(x_{k-1}) - f(x_k)) / gamma_k + (1/2) sum_k gamma_k E g_k' H_k g_k}   to second order,
    T_n <= (1/n) {the same sum                        + (1/2) sum_k gamma_k L E |g_k|^2},

with L 1.5 times the largest curvature met: conditional on constants measured on this run. For the other optimizers
the known bounds exceed the trivial one by orders of magnitude; their envelope has the theorem's shape,
A (1 + log n) / sqrt(n), and A is the smallest that covers the first tenth of the run.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from vaebench.experiments.record import Record, read_record
from vaebench.experiments.trajectory import Trajectory
from vaebench.gates.verdict import Verdict, detectable, judge
from vaebench.report.bands import Line, Summary, band_of, final_of
from vaebench.theory.constants import measured_smoothness
from vaebench.theory.envelopes import uniform_telescoped
from vaebench.theory.series import by_parts

AGREEMENT = 0.1  # by which a prediction to second order in the step may be off
FITTED = 0.1  # of the run, from which a measured rate constant is taken
SLOPE = 0.1  # by which the logarithm of T_n sqrt(n) / (1 + log n) may grow over the last factor of ten
DOUBT = 0.05  # one minus the confidence with which a ratio is said to be near 1
BLIND = math.log(10)  # growth of a logarithm: a test that finds no smaller one has no power
CHANCE = 1e-3  # of failing a true claim: what a handful of seeds can bear
FEWEST_SEEDS = 3  # seeds without which nothing is judged
EXTRA_PROBES = {
    "encoder_snr": "encoder SNR",
    "largest_parameter": "largest parameter",
    "grad_variance": "gradient variance",
}


def summarise(trajectory: Trajectory) -> Summary:
    """Evaluate a recorded experiment, a trajectory of `vaebench.experiments.run`.

    Returns:
        The summary. Members that diverged are left out of every mean, and fail the verdict that none did;
        `read_record` says what it refuses.
    """
    record = read_record(trajectory)
    running = record.running()
    marks = record.marks[1:]
    envelope, prediction = _lines(trajectory, record, running)
    names = {"train": "bound_train", "test": "bound_test"}
    bounds = {name: band_of(record.marks, record.columns[c]) for name, c in names.items() if c in record.columns}
    extra = {name: band_of(record.marks, record.columns[c]) for c, name in EXTRA_PROBES.items() if c in record.columns}
    return Summary(
        band_of(record.marks, record.columns["grad_sq"]),
        band_of(marks, running[:, marks - 1]),
        None if envelope is None else _thin(envelope, marks, _fitted(running) if prediction is None else None),
        None if prediction is None else _thin(prediction, marks),
        bounds,
        extra,
        final_of(record, running),
        trajectory.metadata["cost"],
        tuple(_verdicts(trajectory, record, running, (envelope, prediction))),
    )


def _lines(trajectory: Trajectory, record: Record, running: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Envelope and prediction; the theorem's rate is claimed of steps C / sqrt(n) only."""
    if _is_sgd(trajectory, record):
        return _sgd_lines(record, running)
    return (_rate_line(running) if record.schedule.is_inverse_sqrt else None), None


def _is_sgd(trajectory: Trajectory, record: Record) -> bool:
    needed = {"bound_train", "grad_variance", "top_curvature", "gradient_curvature"}
    return trajectory.metadata["experiment"]["optimizer"]["name"] == "sgd" and needed <= record.columns.keys()


def _smoothness(record: Record) -> float:
    curvatures = record.columns["top_curvature"]
    return float(measured_smoothness(curvatures[np.isfinite(curvatures)]))


def _sgd_lines(record: Record, running: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Envelope and prediction of every seed's T_n, (S, n) each."""
    gamma, values, squares = record.steps(), record.everywhere("bound_train"), record.everywhere("grad_sq")[:, :-1]
    noise, curved = (record.everywhere(name)[:, :-1] for name in ("grad_variance", "gradient_curvature"))
    found = uniform_telescoped(gamma, squares, values, _smoothness(record), noise)
    second = (by_parts(gamma, values) + np.cumsum(gamma * curved, 1) / 2) / np.arange(1, len(gamma) + 1)
    return running + found.right - found.left, second


def _rate(steps: int) -> np.ndarray:
    n = np.arange(1, steps + 1)
    return (1 + np.log(n)) / np.sqrt(n)


def _rate_line(running: np.ndarray) -> np.ndarray:
    """The theorem's shape over all seeds' mean, (1, n)."""
    mean, rate = running.mean(0), _rate(running.shape[1])
    return ((mean / rate)[: _fitted(running)].max() * rate)[None]


def _fitted(running: np.ndarray) -> int:
    """The last step that the rate's constant is taken from."""
    return max(1, int(FITTED * running.shape[1]))


def _thin(line: np.ndarray, marks: np.ndarray, fitted: int | None = None) -> Line:
    label = "from constants measured on this run"
    if fitted is not None:
        label = f"A (1 + log n) / √n, A fitted on steps 1 to {fitted:,}"
    return Line(marks, line.mean(0)[marks - 1], label, fitted)


def _verdicts(
    trajectory: Trajectory, record: Record, running: np.ndarray, lines: tuple[np.ndarray | None, np.ndarray | None]
) -> list[Verdict]:
    found = trajectory.metadata["diverged"]
    where = {"first": f"seed {found[0]['seed']} at step {found[0]['step']}"} if found else {}
    verdicts = [judge("finite", "No member left the finite numbers", len(found), 0, 0.0, where)]
    envelope, prediction = lines
    if len(running) < FEWEST_SEEDS or envelope is None:
        return verdicts
    if prediction is None:
        return [*verdicts, rate_growth(running)]
    margin = (running - envelope)[:, -1]
    constants = {"L": _smoothness(record), "T_n / envelope": float(running[:, -1].mean() / envelope[:, -1].mean())}
    claim = "T_n stays below the theorem's bound, given the constants measured on this run"
    verdicts.append(_at_most("envelope", claim, margin, 0.0, constants))
    verdicts.append(nearness(running[:, -1] / prediction[:, -1]))
    return verdicts


def nearness(ratio: np.ndarray) -> Verdict:
    """T_n over its prediction, by seed: settled if its mean is near 1, or is not, at the level; else of no power."""
    mean, error = float(ratio.mean()), float(ratio.std(ddof=1)) / math.sqrt(len(ratio))
    off, freedom = abs(mean - 1), len(ratio) - 1
    farthest = off + float(stats.t.isf(DOUBT, freedom)) * error
    return judge(
        "prediction",
        f"T_n is within {AGREEMENT:.0%} of its second-order prediction",
        _standardised(off - AGREEMENT, error),
        float(stats.t.isf(CHANCE / 2, freedom)),
        CHANCE,
        {"T_n / prediction": mean, "seeds": len(ratio), "standard error": error},
        smallest=farthest,
        limit=AGREEMENT,
        unit=f"off at most, with confidence {1 - DOUBT:g}",
    )


def rate_growth(running: np.ndarray) -> Verdict:
    """Growth of the log of the mean over seeds, with a jackknife error, since one seed's T_n may be negative."""
    level = running / _rate(running.shape[1])
    ends = level[:, -1], level[:, max(0, running.shape[1] // 10 - 1)]
    claim = "T_n √n / (1 + log n) does not grow over the last factor of ten of the steps"
    late, early = (end.mean() for end in ends)
    rest = [(end.sum() - end) / (len(end) - 1) for end in ends]
    threshold = float(stats.t.isf(CHANCE, len(level) - 1))
    if early <= 0 or rest[1].min() <= 0:
        lost = {"mean of T_n, late": float(running[:, -1].mean()), "reason": "noise hides the earlier T_n"}
        return judge(
            "rate", claim, 0.0, threshold, CHANCE, lost, smallest=math.inf, limit=BLIND, unit="of its logarithm"
        )
    if late <= 0 or rest[0].min() <= 0:
        gone = {"mean of T_n, late": float(running[:, -1].mean())}
        return judge("rate", claim, -math.inf, threshold, CHANCE, gone)
    growth, left_out = float(np.log(late / early)), np.log(rest[0] / rest[1])
    error = math.sqrt((len(level) - 1) * float(left_out.var()))
    return judge(
        "rate",
        claim,
        _standardised(growth - SLOPE, error),
        threshold,
        CHANCE,
        {"growth of its logarithm": growth, "standard error": error},
        smallest=SLOPE + detectable(threshold, len(level) - 1) * error,
        limit=BLIND,
        unit="of growth of its logarithm",
    )


def _at_most(gate: str, claim: str, values: np.ndarray, allowed: float, evidence: Mapping[str, object]) -> Verdict:
    """One-sided t-test over seeds that the mean is at most what is allowed."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    threshold = float(stats.t.isf(CHANCE, len(values) - 1))
    return judge(gate, claim, _standardised(mean - allowed, error), threshold, CHANCE, evidence)


def _standardised(off: float, error: float) -> float:
    return off / error if error > 0 else (math.copysign(math.inf, off) if off else 0.0)
