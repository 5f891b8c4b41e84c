"""Is an estimator what its name says: value, mean gradient, the fall of its variance, and the progress of training.

False alarms: a value's |z| and a law's slope at 2e-5 each, a mean gradient by Hotelling's test at 1e-8.
"""

import math
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from benchmarks.peers import tables
from benchmarks.peers.beds import BEDS
from benchmarks.peers.cases import Case, cases
from benchmarks.peers.contract import contract
from benchmarks.peers.steps import replicate
from benchmarks.peers.targets import Target
from vaebench.gates.means import MEAN_LEVEL, PER_PARAMETER
from vaebench.gates.variances import SLOPE
from vaebench.gates.verdict import LEVEL, Verdict, judge, two_sided
from vaebench.measures.moments import gather
from vaebench.measures.probes import gradient_variance
from vaebench.models import VAE
from vaebench.support.statistics import hotelling

Row = dict[str, object]
ROUNDING = 1e-9
CONSTANT = 1e-7  # below it a direction is held to be constant: of a net with one latent, variances fall off smoothly
REPLICATES = 2000
LAW_REPLICATES = 600
LAW_BED = "linear"
TILES = 4
STEPS, PER_STEP, GAMMA = 40, 25, 0.02


def value(values: Tensor, target: Target, words: str) -> Verdict:
    """The mean reported loss against the target: |z|."""
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    off = max(0.0, abs(mean - target.value.value) - ROUNDING * (1 + abs(mean)))
    spread = math.hypot(error, target.value.error)
    z = off / spread if spread > 0 else (math.inf if off else 0.0)
    evidence = {"loss": mean, "error": error, "target": target.value.value, "replicates": len(values)}
    return judge("value", words, z, two_sided(1), LEVEL, evidence)


def mean_gradient(gradients: Tensor, target: Target, words: str) -> Verdict:
    """The mean gradient against the target: -log10 of the p-value of Hotelling's test."""
    test = hotelling(gradients, target.gradient, CONSTANT)
    statistic = -math.log10(test.p_value) if test.p_value > 0 else math.inf
    mean, norm = gradients.mean(0), float(target.gradient.norm())
    evidence = {"off": float((mean - target.gradient).norm()) / norm, "replicates": len(gradients)}
    return judge("gradient", words, statistic, -math.log10(MEAN_LEVEL), MEAN_LEVEL, evidence)


def slope(low: Tensor, high: Tensor, factor: int, letter: str, allowed: float) -> Verdict:
    """The log-log slope of the gradient's trace variance against -1."""
    found = [gradient_variance(gather([{"all": gradients}], len(gradients))) for gradients in (low, high)]
    words, evidence = f"the variance falls as 1/{letter}", {"factor": factor, "replicates": len(low)}
    if any(variance.value <= 0 for variance in found):
        return judge(f"variance in {letter}", words, math.inf, allowed, LEVEL, evidence)
    steep = math.log(found[1].value / found[0].value) / math.log(factor)
    error = math.hypot(*(variance.error / variance.value for variance in found)) / math.log(factor)
    evidence |= {"slope": steep, "error": error}
    return judge(f"variance in {letter}", words, abs(steep + 1), allowed + two_sided(1) * error, LEVEL, evidence)


def examine(case: Case, bed: str, count: int = REPLICATES, law_count: int = LAW_REPLICATES) -> list[Verdict]:
    """All checks of one case on one bed."""
    model, x = BEDS[bed](torch.Generator().manual_seed(0))
    seed = crc32(f"{case.peer} {case.promise} {bed}".encode())
    count = max(count, PER_PARAMETER * sum(p.numel() for p in model.parameters()))
    values, gradients = replicate(case.adapter(model, case.objective), model, x, count, seed)
    values = values if case.reports else None
    verdicts = _against(case.promised(model, x), values, gradients, "as promised")
    if case.found is not None:
        verdicts += _against(case.found[1](model, x), values, gradients, "as found")
    return verdicts + (_laws(case, model, x, law_count, seed) if bed == LAW_BED else [])


def descent(case: Case, model: VAE, x: Tensor, seed: int) -> Verdict:
    """The descent ledger of the estimator's own run of SGD: t of <grad f, g_k - grad f>, by parameter and in all.

    Each g_k is a mean of 25 draws, grad f the exact gradient of the promised loss where the run has come to.
    """
    backward, terms = case.adapter(model, case.objective), []
    sizes = [p.numel() for p in model.parameters()]
    for step in range(STEPS):
        exact = case.promised(model, x).gradient
        found = replicate(backward, model, x, PER_STEP, seed + step)[1].mean(0)
        along = exact * (found - exact)
        terms.append(torch.stack([part.sum() for part in (*along.split(sizes), along)]))
        with torch.no_grad():
            for parameter, part in zip(model.parameters(), found.split(sizes), strict=True):
                parameter -= GAMMA * part.view_as(parameter)
    table = torch.stack(terms)
    t = table.mean(0).abs() / (table.std(0) / STEPS**0.5).clamp(min=ROUNDING * float(table.abs().max()) + 1e-300)
    evidence = {"steps": STEPS, "replicates": PER_STEP}
    allowed = two_sided(len(t), STEPS - 1)
    return judge("descent", "steps make the claimed progress", float(t.max()), allowed, LEVEL, evidence)


def _against(target: Target, values: Tensor | None, gradients: Tensor, words: str) -> list[Verdict]:
    found = [] if values is None else [value(values, target, words)]
    return found if target.gradient is None else [*found, mean_gradient(gradients, target, words)]


def _laws(case: Case, model: VAE, x: Tensor, count: int, seed: int) -> list[Verdict]:
    subject = (case.adapter, case.objective)
    many = x.repeat(TILES, *[1] * (x.ndim - 1))
    small, large = (_draw(subject, model, batch, count, seed + i) for i, batch in ((1, x), (2, many)))
    verdicts = [slope(small, large, TILES, "B", SLOPE)]
    for letter, law in (case.laws or {}).items():
        low, high = (_draw(setting, model, x, count, seed + i) for i, setting in ((3, law.low), (4, law.high)))
        verdicts.append(slope(low, high, law.factor, letter, law.allowed))
    return verdicts


def _draw(setting: tuple, model: VAE, x: Tensor, count: int, seed: int) -> Tensor:
    adapter, objective = setting
    return replicate(adapter(model, objective), model, x, count, seed)[1]


def row(case: Case, version: str, bed: str, verdict: Verdict) -> Row:
    """A verdict as a row of the table."""
    evidence = dict(verdict.evidence)
    replicates = evidence.pop("replicates")
    check = f"{verdict.gate} {verdict.claim}" if verdict.claim.startswith("as ") else verdict.gate
    return {
        "peer": case.peer,
        "version": version,
        "promise": case.promise,
        "bed": bed,
        "check": check,
        "verdict": "pass" if verdict.passed else "FAIL",
        "statistic": f"{verdict.statistic:.4g}",
        "threshold": f"{verdict.threshold:.4g}",
        "false alarm": f"{verdict.false_alarm:.1g}",
        "replicates": replicates,
        "evidence": ", ".join(f"{name} {number:.5g}" for name, number in evidence.items()),
        "found": case.found[0] if case.found else "",
        "reproducer": case.reproducer,
        "remark": case.remark,
    }


def run(path: Path, say: Callable[[str], None]) -> None:
    """Judge every case that the table does not hold at this version of its library, one row a check."""
    for version, case in cases():
        for bed in BEDS:
            place = {"peer": case.peer, "promise": case.promise, "bed": bed}
            known, where = place | {"version": version}, f"{case.peer}, {case.promise}, {bed}"
            if tables.has(tables.read(path), known):
                say(f"{where}: known")
            else:
                _keep(path, [row(case, version, bed, verdict) for verdict in examine(case, bed)], place, where, say)
            for name, check in {"contract": contract, **({"descent": descent} if bed == LAW_BED else {})}.items():
                more = known | {"check": name}
                if not tables.has(tables.read(path), more):
                    model, x = BEDS[bed](torch.Generator().manual_seed(0))
                    verdict = check(case, model, x, crc32(f"{name} {case.peer} {case.promise}".encode()))
                    _keep(path, [row(case, version, bed, verdict)], more, where, say)


def _keep(
    path: Path, rows: list[dict[str, object]], key: dict[str, str], where: str, say: Callable[[str], None]
) -> None:
    tables.replace(path, rows, key)
    failed = ", ".join(str(entry["check"]) for entry in rows if entry["verdict"] == "FAIL")
    say(f"{where}: {f'FAIL {failed}' if failed else 'pass'}")
