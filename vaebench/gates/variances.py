"""Gates of the variance, without training: against the batch size, the samples, and independent draws."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vaebench.gates.at_rest import moments_at_rest
from vaebench.gates.subject import Subject, loss_of
from vaebench.gates.verdict import LEVEL, Verdict, detectable, judge, two_sided
from vaebench.gradients.estimators import draw_noise
from vaebench.measures.moments import Moments, parameter_groups
from vaebench.measures.probes import ess, skewed_snr, skewed_variance
from vaebench.support.repeatable import preserved
from vaebench.support.skewness import Skewed, reach
from vaebench.theory.predictions import importance_exponents

SLOPE = 0.05  # what a log-log slope may be off by beside its error
ASYMPTOTIC = 0.45  # the same for laws that hold for many samples only
FIRST, LAST = 8, 32  # numbers of samples between which a law in K is measured
STEEPEST = 0.5  # of a slope: a test that finds no smaller error of it has no power
RELATIVE = 1.0  # the same of a variance
LIGHT = 0.6  # effective part of a row's samples, at least, for laws that hold for many samples only
ROWS = 16  # rows that are looked at one by one


def _log_ratio(one: Moments, other: Moments, names: Sequence[str] | None = None) -> Skewed:
    """The logarithm of the ratio of two trace variances, of independent gradients.

    Returns:
        The number. Rare large gradients may be missing from the smaller set, whose error is then too small: the error
        is no smaller than if each had the other's spread.
    """
    first, second = (skewed_variance(moments, names).log() for moments in (one, other))
    found, odds = first.less(second), one.count / other.count
    error = max(found.error, math.hypot(first.error * odds**0.5, second.error / odds**0.5))
    return found._replace(error=error, skewness=found.skewness * (found.error / error) ** 3 if error > 0 else 0.0)


def without_repetition(rows: int, batch_size: int) -> float:
    """The log of (N - B) / (N - 1), by which the variance is smaller, at most, if no minibatch holds a row twice.

    Returns:
        The logarithm, at most 0; minus infinity where a minibatch holds all rows.

    >>> round(without_repetition(9, 5), 4)  # 1 / 2
    -0.6931
    """
    return min(0.0, math.log((rows - batch_size) / (rows - 1))) if rows > batch_size else -math.inf


def variance_in_batch(small: Moments, large: Moments, factor: float, steeper: float = 0.0) -> Verdict:
    """The trace variance of the gradient falls as 1/B, exactly: examples and their noise are independent.

    Args:
        small: moments of gradients from minibatches of B.
        large: moments of gradients from minibatches of `factor` B.
        factor: of the batch sizes.
        steeper: how far below -1 the slope may be, for minibatches that may hold no example twice.

    Returns:
        The verdict on the slope's distance from -1, or from what lies between -1 and that.
    """
    fall, run = _log_ratio(large, small), math.log(factor)
    slope, error = fall.value / run, fall.error / run
    freedom = min(small.groups, large.groups) - 1
    threshold = reach(two_sided(1, freedom), fall.skewness, 1)
    return judge(
        "variance in B",
        "the gradient's variance falls as 1/B (statistic: distance of the slope from -1)",
        max(slope + 1, -(slope + 1) - steeper),
        SLOPE + threshold * error,
        LEVEL,
        {"slope": slope, "error": error, "factor": factor},
        smallest=SLOPE + detectable(threshold, freedom) * error,
        limit=STEEPEST,
        unit="of the slope",
    )


def independent_draws(
    loop: dict[int, Moments], fresh: Moments, size: int, smaller: Mapping[int, float] | None = None
) -> Verdict:
    """The loop's gradients vary as those of minibatches and noise drawn afresh, outside the loop.

    Of rows that are independent, and of separate surrogates, the variance falls as 1/B exactly, so that fresh
    gradients of one batch size are a control of all.

    Args:
        loop: moments of the loop's gradients by batch size.
        fresh: moments of gradients of minibatches drawn with replacement, and of noise, at the same parameters.
        size: their batch size.
        smaller: by batch size, how far below 0 the difference of log variance may be, for minibatches that may hold
            no example twice; default 0.

    Returns:
        The verdict on the largest |t| of the differences of log variance, less what skewness explains.
    """
    scores, found = {}, []
    freedom = min(one.groups for one in (fresh, *loop.values())) - 1
    threshold = two_sided(len(loop), freedom)
    for batch_size, mine in loop.items():
        off = _log_ratio(mine, fresh)
        off = off._replace(value=off.value + math.log(batch_size / size))
        if off.value < 0:
            off = off._replace(value=min(0.0, off.value + (smaller or {}).get(batch_size, 0.0)))
        scores[batch_size] = off.score()
        found.append(detectable(reach(threshold, off.skewness, 1), freedom) * off.error)
    worst = max(scores, key=scores.__getitem__)
    return judge(
        "independent draws",
        "gradients vary as those of independent minibatches and noise do (statistic: |t| of the log variance)",
        scores[worst],
        threshold,
        LEVEL,
        {"batch sizes": ", ".join(map(str, loop)), "worst": worst},
        smallest=math.expm1(min(700.0, max(found))),
        limit=RELATIVE,
        unit="of the variance",
    )


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
        variance[block] = _log_ratio(high, low, names), expected.variance if expected else -1.0
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


def separate_rows(subject: Subject, generator: torch.Generator) -> Verdict:
    """The surrogate of an example depends on no other example, nor on another's noise: else 1/B does not hold.

    Args:
        subject: what is under test.
        generator: of the noise.

    Returns:
        The verdict on the largest relative change; it involves no chance.
    """
    model, size = subject.model, min(subject.batch_size, len(subject.data))
    x = subject.data[:size]
    given = model, x, subject.objective, generator, subject.estimator
    noise, other = (draw_noise(*given) for _ in range(2))  # pyright: ignore[reportArgumentType]
    parameters, off = [p for p in model.parameters() if p.requires_grad], 0.0

    def gradient(row: int, x: Tensor, noise: Tensor) -> Tensor:
        with torch.enable_grad(), preserved(model):
            surrogate = subject.estimator(model, x, noise, subject.objective)[row]  # pyright: ignore[reportArgumentType]
        found = torch.autograd.grad(surrogate, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])

    for row in range(min(size, ROWS)):
        keep = torch.arange(size, device=x.device) == row
        mine = gradient(row, x, noise)
        noises = torch.where(keep[:, None], noise, other)
        others = torch.where(keep.view(-1, *[1] * (x.ndim - 1)), x, x.roll(1, 0))
        changed = torch.stack([gradient(row, x, noises), gradient(row, others, noise)])
        off = max(off, float((changed - mine).abs().max().double() / mine.abs().max().double().clamp(min=1e-300)))
    allowed = 1e5 * torch.finfo(x.dtype).eps
    claim = "an example's gradient depends on no other example (statistic: largest relative change)"
    return judge("separate rows", claim, off, allowed, 0.0, {"batch size": size})
