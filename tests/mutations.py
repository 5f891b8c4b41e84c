"""Small faults in the package and the tests that must see them: `python -m tests.mutations [MODULE ...]`, not in CI.

Each mutation changes one place of a copy of the repository, in a temporary directory, and runs the tests that should
fail there. What survives is named, by module; the exit status is 1 if anything does. A mutation whose text stands in
the source no more, or twice, is reported as stale. Numeric pins of smoke tables are not among the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds for the tests of one mutation: one that hangs is found


class Mutation(NamedTuple):
    """One place and its change.

    Attributes:
        path: of the source, below the repository's root.
        old: text that stands there once.
        new: what takes its place.
        tests: arguments of pytest.
    """

    path: str
    old: str
    new: str
    tests: str


G, S, M, T, E, R = (f"vaebench/{room}/" for room in ("gates", "support", "measures", "theory", "experiments", "report"))
POWER, GATES, PROBES = "tests/test_gate_power.py", "tests/test_gates.py", "tests/test_probes.py"
SUMMARY, LEDGER, STATISTICS = "tests/test_summary.py", "tests/theory/test_ledger.py", "tests/test_statistics.py"
ENVELOPES, PREDICTIONS, SAMPLING = (
    "tests/theory/test_envelopes.py",
    "tests/theory/test_predictions.py",
    "tests/test_sampling.py",
)
COMPARISON, RECORDS = "tests/test_comparison.py", "tests/test_fleet.py"
VERDICT, WALKING, REPLAY, DRAWN = (f"{G}{name}.py" for name in ("verdict", "walking", "replay", "randomness"))

MUTATIONS = (
    Mutation(VERDICT, "LEVEL = 2e-5", "LEVEL = 2e-4", f"{GATES} -k hand"),
    Mutation(VERDICT, "LEVEL / (2 * comparisons)", "LEVEL / comparisons", f"{GATES} -k hand"),
    Mutation(VERDICT, "LEVEL / (2 * comparisons)", "LEVEL / 2", f"{GATES} -k hand"),
    Mutation(VERDICT, "comparisons), freedom)", "comparisons), math.inf)", f"{GATES} -k hand"),
    Mutation(VERDICT, "POWER = 0.9", "POWER = 0.5", f"{GATES} -k hand"),
    Mutation(VERDICT, "not self.smallest <= self.limit", "self.smallest < self.limit", f"{GATES} -k power"),
    Mutation(VERDICT, 'return self.outcome == "pass"', 'return self.outcome != "fail"', f"{GATES} -k power"),
    Mutation(WALKING, "two_sided(len(lags) + 2)", "two_sided(len(lags))", f"{POWER} -k successive"),
    Mutation(WALKING, "LAGS = 512", "LAGS = 256", f"{POWER} -k successive"),
    Mutation(WALKING, "min(n // 2, LAGS)", "min(n // 4, LAGS)", f"{POWER} -k successive"),
    Mutation(WALKING, "total[1].sqrt()", "total[1]", f"{GATES} -k lags"),
    Mutation(WALKING, "first + start[:, None] + lag < n", "start[:, None] + lag < width", f"{GATES} -k lags"),
    Mutation(WALKING, "found = detectable(threshold) * terms", "found = threshold * terms", f"{POWER} -k ledger"),
    Mutation(WALKING, "(count * (count - 1))", "count", f"{POWER} -k members"),
    Mutation(
        WALKING,
        "noise.sum(1).square().sum(-1) - noise",
        "noise.sum(1).square().sum(-1) - 0 * noise",
        f"{POWER} -k members",
    ),
    Mutation(
        WALKING,
        "smallest=detectable(threshold) / len(noise) ** 0.5",
        "smallest=detectable(threshold) / len(noise)",
        f"{POWER} -k noise_mean",
    ),
    Mutation(
        f"{G}certification.py",
        'path.moved if optimizer == "sgd" else path.raw',
        "path.raw",
        f"{POWER} -k moved",
    ),
    Mutation(f"{G}certification.py", "FALSE_ALARM = 15 * LEVEL", "FALSE_ALARM = 25 * LEVEL", f"{POWER} -k pays"),
    Mutation(f"{G}choices.py", "/ resolution) ** 2", "/ resolution)", f"{POWER} -k budget"),
    Mutation(f"{G}means.py", "MEAN_LEVEL = 1e-8", "MEAN_LEVEL = 1e-6", f"{POWER} -k pays"),
    Mutation(f"{G}means.py", "2 * off.shape[1] * float", "2 * float", f"{POWER} -k pays"),
    Mutation(f"{G}means.py", "detectable(threshold, count - 1) * error", "threshold * error", f"{POWER} -k stated"),
    Mutation(f"{G}values.py", "1e-6 * (1 +", "1e-5 * (1 +", f"{POWER} -k value"),
    Mutation(
        f"{G}values.py",
        "two_sided(compared * len(points), draws - 1)",
        "two_sided(compared * len(points))",
        f"{POWER} -k value",
    ),
    Mutation(f"{G}variances.py", "SLOPE + threshold * error,", "SLOPE,", f"{POWER} -k slope"),
    Mutation(f"{G}variances.py", "SLOPE = 0.05", "SLOPE = 0.5", f"{POWER} -k slope"),
    Mutation(f"{G}bounds.py", "TOLERANCE = 0.05", "TOLERANCE = 0.5", f"{POWER} -k bounds"),
    Mutation(f"{G}bounds.py", "SAFETY = 1.5", "SAFETY = 15", f"{POWER} -k bounds"),
    Mutation(f"{G}running.py", "2 * stratum - 1", "stratum", f"{POWER} -k random_steps"),
    Mutation(
        f"{G}running.py",
        "torch.randint(stratum, (len(starts),), generator=generator).tolist()",
        "[0 for _ in starts]",
        f"{POWER} -k random_steps",
    ),
    Mutation(f"{G}path.py", "ROUNDING = 1e-6", "ROUNDING = 1e-4", f"{GATES} -k rounding"),
    Mutation(REPLAY, "STRETCH = 50", "STRETCH = 400", f"{POWER} -k fifty"),
    Mutation(REPLAY, "LASTING = 50", "LASTING = 500", f"{POWER} -k leave_no_room"),
    Mutation(REPLAY, "- trusted) / (members - 1)", ") / members", f"{POWER} -k paired_ledger"),
    Mutation(REPLAY, "detectable(threshold) * along", "along", f"{POWER} -k paired_ledger"),
    Mutation(DRAWN, "math.sqrt(2 / found.numbers)", "math.sqrt(1 / found.numbers)", f"{POWER} -k claimed"),
    Mutation(DRAWN, "math.inf if repeated else", "", f"{POWER} -k periodic"),
    Mutation(DRAWN, "pairs * (1 - 1 / self.size)", "pairs * self.size", f"{POWER} -k repetition"),
    Mutation(DRAWN, "tail = min(low, high)", "tail = high", f"{POWER} -k epochs"),
    Mutation(f"{S}statistics.py", "len(samples) - 1, tolerance", "len(samples), tolerance", STATISTICS),
    Mutation(
        f"{S}statistics.py", "freedom - rank + 1) / (freedom * rank)", "freedom - rank + 1) / freedom", STATISTICS
    ),
    Mutation(f"{S}statistics.py", "size = min(len(first), len(second))", "size = len(first) + len(second)", STATISTICS),
    Mutation(f"{S}statistics.py", "1 - power, critical", "power, critical", f"{POWER} -k shift"),
    Mutation(f"{S}statistics.py", "(1 + level) / 2", "level", f"--doctest-modules {S}statistics.py"),
    Mutation(f"{M}moments.py", "(groups * (groups - 3))", "(groups * groups)", f"{PROBES} -k covariance"),
    Mutation(f"{M}moments.py", "(groups - 1) * spread", "spread", PROBES),
    Mutation(f"{M}probes.py", "found.error**2 - null, null", "found.error**2, null", f"{PROBES} -k null"),
    Mutation(
        f"{M}probes.py", "max(found.error, math.sqrt(normal))", "found.error / 2", "tests/test_coverage.py -k variance"
    ),
    Mutation(f"{M}probes.py", "math.sqrt(clipped + error) - math.sqrt(clipped)", "error", f"{PROBES} -k ratio"),
    Mutation(f"{M}probes.py", "(s.number - s.number // inner)", "s.number", PROBES),
    Mutation(f"{T}envelopes.py", "(1 - smoothness * gamma.max() / 2) * total", "total", ENVELOPES),
    Mutation(
        f"{T}envelopes.py",
        "paid = np.cumsum(np.broadcast_to(gamma * curve * as_array(noise), g.shape), -1) / 2",
        "paid = np.cumsum(np.broadcast_to(gamma * curve * as_array(noise), g.shape), -1)",
        ENVELOPES,
    ),
    Mutation(f"{T}envelopes.py", "(1 - curve * gamma / 2) * g", "(1 - curve * gamma) * g", ENVELOPES),
    Mutation(f"{T}predictions.py", "np.cumsum(gamma * curved, -1) / 2", "np.cumsum(gamma * curved, -1)", PREDICTIONS),
    Mutation(f"{T}predictions.py", "values.std(ddof=1)", "values.std()", f"{POWER} -k limits_of_theory"),
    Mutation(
        f"{T}constants.py", "stats.t.ppf(level, count - 1)", "stats.norm.ppf(level)", f"{POWER} -k limits_of_theory"
    ),
    Mutation(f"{T}constants.py", "squared * count / (count - 1)", "squared", "tests/theory/test_constants.py"),
    Mutation(f"{T}ledger.py", "virtual.square() / 2", "virtual.square()", LEDGER),
    Mutation(f"{T}ledger.py", "on = float(k > start)", "on = float(k >= start)", LEDGER),
    Mutation(f"{T}ledger.py", "b1 / (1 - b1)\n    first", "b1\n    first", LEDGER),
    Mutation(
        "vaebench/data/sampling.py",
        "return order[: batches * batch_size]",
        "return order.sort().values[: batches * batch_size]",
        SAMPLING,
    ),
    Mutation("vaebench/data/sampling.py", "kept[:] = [rows[n:]]", "kept[:] = []", SAMPLING),
    Mutation(
        "vaebench/data/sampling.py",
        "order = torch.randperm(size, generator=generator, device=generator.device)",
        "order = torch.arange(size)",
        SAMPLING,
    ),
    Mutation("vaebench/training/records.py", "min(start + row + 1, state.step)", "start + row", RECORDS),
    Mutation(
        "vaebench/training/records.py", "round(ratio**power)) < steps", "round(ratio**power)) <= steps // 2", RECORDS
    ),
    Mutation(
        f"{R}summarising.py",
        "stats.t.isf(CHANCE / 2, freedom)",
        "stats.t.isf(CHANCE, freedom)",
        f"{SUMMARY} -k settled",
    ),
    Mutation(
        f"{R}summarising.py",
        "stats.t.isf(DOUBT, freedom)) * error",
        "stats.norm.isf(DOUBT)) * error",
        f"{SUMMARY} -k settled",
    ),
    Mutation(f"{R}summarising.py", "AGREEMENT = 0.1", "AGREEMENT = 0.2", SUMMARY),
    Mutation(f"{R}summarising.py", "rest[1].min() <= 0", "False", f"{SUMMARY} -k positive"),
    Mutation(f"{R}summarising.py", "early <= 0 or rest[1].min() <= 0", "early <= -9", f"{SUMMARY} -k positive"),
    Mutation(
        f"{R}bands.py",
        "stats.t.isf((1 - LEVEL) / 2, seeds - 1)",
        "stats.norm.isf((1 - LEVEL) / 2)",
        f"{SUMMARY} -k bands",
    ),
    Mutation(f"{R}bands.py", "LEVEL = 0.95", "LEVEL = 0.9", f"{SUMMARY} -k bands"),
    Mutation(f"{E}record.py", 'self.everywhere("grad_sq")[:, :-1]', 'self.everywhere("grad_sq")[:, 1:]', SUMMARY),
    Mutation(f"{E}record.py", "-self.schedule.exponent", "-1.0", SUMMARY),
    Mutation(
        f"{E}comparison/claims.py", "return self.value <= self.bound", "return self.value < self.bound", COMPARISON
    ),
    Mutation(f"{E}comparison/change.py", '"appeared", after[name].note', '"gone", after[name].note', COMPARISON),
    Mutation(
        "benchmarks/accuracy/runs.py", "(ERRORS * error) ** 2 /", "0 * error /", "tests/test_accuracy.py -k noise"
    ),
)


def copied(folder: Path) -> Path:
    """A copy of what the tests need."""
    place = folder / "copy"
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".venv", ".pytest_cache", "*.csv")
    shutil.copytree(ROOT, place, ignore=ignored)
    return place


def outcome(place: Path, one: Mutation) -> str:
    """What becomes of a mutation: "killed", "survives" or "stale"."""
    source = place / one.path
    text = source.read_text("utf-8")
    if text.count(one.old) != 1:
        return "stale"
    source.write_text(text.replace(one.old, one.new), encoding="utf-8")
    arguments = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *one.tests.split()]
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            arguments, cwd=place, env=environment, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        source.write_text(text, encoding="utf-8")
    return {0: "survives", 1: "killed", 2: "killed"}.get(ended.returncode, "stale")


def main(wanted: list[str]) -> int:
    """Apply the mutations of the modules that are named, or all, and count."""
    chosen = [one for one in MUTATIONS if not wanted or any(name in one.path for name in wanted)]
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = copied(Path(folder))
        for number, one in enumerate(chosen, 1):
            found = outcome(place, one)
            counts[one.path, found] += 1
            note = f": {one.old!r} -> {one.new!r}" if found != "killed" else ""
            print(f"{number}/{len(chosen)} {one.path} {found}{note}", flush=True)  # noqa: T201 (a command's progress)
    for path in dict.fromkeys(one.path for one in chosen):
        total = sum(count for (name, _), count in counts.items() if name == path)
        print(f"{path}: {counts[path, 'killed']} of {total} killed")  # noqa: T201 (a command's result)
    return int(any(kind != "killed" for _, kind in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
