"""Gates of the variance and the signal-to-noise ratio against the number of samples K, whose laws are known."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vaebench.gates.at_rest import moments_at_rest
from vaebench.gates.subject import Subject, loss_of
from vaebench.gates.variances import SLOPE, STEEPEST, log_ratio
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.gradients.estimators import draw_noise
from vaebench.measures.moments import parameter_groups
from vaebench.measures.probes import ess, skewed_snr
from vaebench.support.repeatable import preserved
from vaebench.support.skewness import Skewed, reach
from vaebench.theory.predictions import importance_exponents

ASYMPTOTIC = 0.45  # the same for laws that hold for many samples only
FIRST, LAST = 8, 32  # numbers of samples between which a law in K is measured
LIGHT = 0.6  # effective part of a row's samples, at least, for laws that hold for many samples only


def has_law(law: str, objective_alpha: float) -> bool:
    """Whether the variance in K of an estimator follows a law that is recorded."""
    if objective_alpha == 1:
        return law in {"pathwise", "analytic_kl", "doubly_reparameterized", "sticking_the_landing", "score_function"}
    return law in {"pathwise", "doubly_reparameterized"}


def light(subject: Subject, x: Tensor, generator: torch.Generator) -> bool:
    """Whether every row's weights are even enough for the laws in K: always at alpha = 1, else by effective samples."""
    if subject.objective.alpha == 1:
        return True
    many, model = subject.with_samples(2 * LAST).objective, subject.model
    with torch.no_grad(), preserved(model):
        q = model.posterior(x)  # pyright: ignore[reportCallIssue]
        noise = draw_noise(model, x, many, generator)  # pyright: ignore[reportArgumentType]
        weights = many.weights(many.log_weights(model, x, q.transport(noise), q))  # pyright: ignore[reportArgumentType]
    return float(ess(weights).min()) >= LIGHT * many.samples


def laws_in_samples(subject: Subject, x: Tensor, law: str, count: int, seeds: Iterator[int]) -> list[Verdict]:
    """Variance and signal-to-noise ratio against K, at a fixed batch x, encoder and decoder apart.

    At alpha = 1 the variance falls as 1/K, exactly; below, exponents are asymptotic, and 0.45 is allowed.

    Args:
        subject: what is under test.
        x: a few examples, (B, *event).
        law: the estimator whose law is claimed; `has_law`.
        count: number of gradients R, for each K.
        seeds: source of seeds.

    Returns:
        One verdict at alpha = 1, two below.
    """
    alpha = subject.objective.alpha
    groups = parameter_groups(loss_of(subject), x)
    low, high = (moments_at_rest(subject.with_samples(k).on_batch(x), count, seeds) for k in (FIRST, LAST))
    allowed, blocks = (SLOPE if alpha == 1 else ASYMPTOTIC), {"encoder": groups["phi"], "decoder": groups["theta"]}
    blocks = {block: names for block, names in blocks.items() if names}
    variance, ratio = {}, {}
    for block, names in blocks.items():
        expected = importance_exponents(law, block, alpha) if alpha < 1 else None
        variance[block] = log_ratio(high, low, names), expected.variance if expected else -1.0
        ends = [skewed_snr(moments, names) for moments in (low, high)]
        if expected and all(math.isfinite(end.value) for end in ends):
            ratio[block] = *ends, expected.snr
    freedom = low.groups - 1
    verdicts = [variance_in_samples(variance, allowed, freedom)]
    return [*verdicts, ratio_in_samples(ratio, freedom)] if ratio else verdicts


def variance_in_samples(falls: dict[str, tuple[Skewed, float]], allowed: float, freedom: int) -> Verdict:
    """Whether the variance's slope in K is its law's.

    Args:
        falls: the logarithm of the variance at the last K over that at the first, and the law's slope, by block.
        allowed: of the distance of a slope from its law's, beside chance.
        freedom: of their errors.

    Returns:
        The verdict on the largest distance, on either side.
    """
    crit, run = two_sided(len(falls), freedom), math.log(LAST / FIRST)
    slopes = {b: (fall.value / run, fall.error / run, expected) for b, (fall, expected) in falls.items()}
    needed = {b: reach(crit, fall.skewness, 1) for b, (fall, _) in falls.items()}
    excess = {b: abs(slope - expected) - needed[b] * error for b, (slope, error, expected) in slopes.items()}
    excess = {b: value if math.isfinite(value) else math.inf for b, value in excess.items()}
    excess |= {b: 0.0 for b, (fall, _) in falls.items() if math.isinf(fall.error)}
    worst = max(excess, key=excess.__getitem__)
    evidence = {f"{b} slope": slope for b, (slope, _, _) in slopes.items()}
    evidence |= {f"{b} law": expected for b, (_, _, expected) in slopes.items()}
    return judge(
        "variance in K",
        f"the gradient's variance falls with K as its law says (statistic: distance of the slope beyond {crit:.1f} "
        "standard errors, more of skewed ones)",
        excess[worst],
        allowed,
        LEVEL,
        evidence | {"worst": worst, "K": f"{FIRST} to {LAST}"},
        smallest=allowed + max(detectable(needed[b], freedom) * error for b, (_, error, _) in slopes.items()),
        limit=2 * STEEPEST,
        unit="of the slope",
    )


def ratio_in_samples(ratios: dict[str, tuple[Skewed, Skewed, float]], freedom: int) -> Verdict:
    """Whether the ratio's slope is within 0.45 of its law's: the second square is between two multiples of the first.

    A weak signal's unbiased square may be negative: it is tested itself, not its logarithm.

    Args:
        ratios: squared ratios at the first and the last K and the law's slope, by block.
        freedom: of their errors.

    Returns:
        The verdict on the largest |t| outside.
    """
    crit, scores, found, run = two_sided(len(ratios), freedom), {}, {}, 2 * math.log(LAST / FIRST)
    for block, (low, high, slope) in ratios.items():
        least, most = (math.exp(run * (slope + off)) for off in (-ASYMPTOTIC, ASYMPTOTIC))
        above, below = high.less(low, most), high.less(low, least)
        scores[block] = max(above.score() if above.value > 0 else 0.0, below.score() if below.value < 0 else 0.0)
        up, down = (detectable(reach(crit, one.skewness, 1), freedom) * one.error for one in (above, below))
        ends = most * low.value + up, least * low.value - down
        slopes = [math.log(end / low.value) / run for end in ends if min(end, low.value) > 0]
        found[block] = max(abs(one - slope) for one in slopes) if len(slopes) == 2 else math.inf
    worst = max(scores, key=scores.__getitem__)
    evidence = {f"{b} squared ratio": f"{low.value:.3g} to {high.value:.3g}" for b, (low, high, _) in ratios.items()}
    evidence |= {f"{b} law": slope for b, (_, _, slope) in ratios.items()}
    return judge(
        "SNR in K",
        "the signal-to-noise ratio follows its law in K (statistic: |t| of the squared ratio beyond slopes within "
        f"{ASYMPTOTIC:g} of the law's)",
        scores[worst],
        crit,
        LEVEL,
        evidence | {"worst": worst, "K": f"{FIRST} to {LAST}"},
        smallest=max(found.values()),
        limit=2 * STEEPEST,
        unit="of the slope",
    )
