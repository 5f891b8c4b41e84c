"""Mutations of statistics, measures, theory, data, training, experiments and reports."""

from tests.mutations.mutation import (
    ADAM,
    COMPARISON,
    CONSTANTS,
    ENVELOPES,
    LEDGER,
    POWER,
    PREDICTIONS,
    PROBES,
    RECORDS,
    SAMPLING,
    STATISTICS,
    SUMMARY,
    E,
    M,
    Mutation,
    R,
    S,
    T,
)

MUTATIONS = (
    Mutation(f"{S}statistics.py", "len(samples) - 1, tolerance", "len(samples), tolerance", STATISTICS),
    Mutation(
        f"{S}statistics.py", "freedom - rank + 1) / (freedom * rank)", "freedom - rank + 1) / freedom", STATISTICS
    ),
    Mutation(f"{S}statistics.py", "size = min(len(first), len(second))", "size = len(first) + len(second)", STATISTICS),
    Mutation(f"{S}statistics.py", "1 - power, critical", "power, critical", f"{POWER} -k shift"),
    Mutation(f"{S}statistics.py", "(1 + level) / 2", "level", f"--doctest-modules {S}statistics.py"),
    Mutation(f"{M}moments.py", "(groups * (groups - 3))", "(groups * groups)", f"{PROBES} -k covariance"),
    Mutation(f"{M}moments.py", "(len(spread) - 1) * spread", "spread", PROBES),
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
    Mutation(
        "vaebench/training/schedules.py",
        "np.arange(steps) // self.period) ** -self.exponent",
        "np.arange(steps) // self.period) ** -0.5",
        "tests/test_schedules.py",
    ),
    Mutation(
        f"{E}comparison/claims.py", "return self.value <= self.bound", "return self.value < self.bound", COMPARISON
    ),
    Mutation(f"{E}comparison/change.py", '"appeared", after[name].note', '"gone", after[name].note', COMPARISON),
    Mutation(
        "benchmarks/accuracy/runs.py", "(ERRORS * error) ** 2 /", "0 * error /", "tests/test_accuracy.py -k noise"
    ),
    Mutation(f"{T}constants.py", "(layer.high - layer.low) / 4)", "(layer.high - layer.low) / 9)", CONSTANTS),
    Mutation(f"{T}constants.py", "layer.sharpness / 4 * first**2", "layer.sharpness / 40 * first**2", CONSTANTS),
    Mutation(f"{T}constants.py", "log_variance.first**2 / 4)", "log_variance.first**2 / 2)", CONSTANTS),
    Mutation(f"{T}constants.py", "math.exp(head.high / 2)", "math.exp(head.high)", CONSTANTS),
    Mutation(f"{T}constants.py", "mean.first**2 + mean.value * mean.second", "mean.first**2", CONSTANTS),
    Mutation(f"{T}constants.py", "factor * float(seen.max())", "float(seen.max())", CONSTANTS),
    Mutation(f"{T}adam.py", "4 * d * r**2 / math.sqrt(slow)", "2 * d * r**2 / math.sqrt(slow)", ADAM),
    Mutation(f"{T}adam.py", "12 * d * r**2", "6 * d * r**2", ADAM),
    Mutation(f"{T}adam.py", "(ratio**1.5 * math.sqrt(slow))", "(ratio * math.sqrt(slow))", ADAM),
    Mutation(f"{T}adam.py", "horizon - moments.beta1 / (1 - moments.beta1)", "horizon", ADAM),
    Mutation(f"{T}adam.py", "smoothness / (2 * slow)", "smoothness / slow", ADAM),
    Mutation(f"{T}predictions.py", "/ (1 - b1 * b2)", "/ (1 - b2)", PREDICTIONS),
    Mutation(f"{T}predictions.py", "step**2 * noise", "step * noise", PREDICTIONS),
    Mutation(
        "vaebench/data/sampling.py",
        "torch.randint(size, (n, batch_size)",
        "torch.randint(size - 1, (n, batch_size)",
        SAMPLING,
    ),
    Mutation("vaebench/data/sampling.py", "sampler(1).expand(times, -1)", "sampler(times)", SAMPLING),
    Mutation(
        "vaebench/data/sampling.py",
        "max(1, min(256, BLOCK // (batch_size",
        "max(1, min(999, BLOCK // (batch_size",
        RECORDS,
    ),
    Mutation("vaebench/training/records.py", "self.grad_sq.mean(0)", "self.grad_sq.sum(0)", RECORDS),
    Mutation("vaebench/training/records.py", "self.losses.mean(0)", "self.losses[-1]", RECORDS),
    Mutation(f"{E}running.py", "found.flops / 1e9", "found.flops / 1e6", "tests/test_running.py"),
    Mutation(f"{E}running.py", "found.peak_bytes / 1e6", "found.peak_bytes / 2**20", "tests/test_running.py"),
    Mutation(
        f"{E}record.py",
        "np.log1p(self.marks), np.log1p(np.arange(self.marks[-1] + 1))",
        "self.marks, np.arange(self.marks[-1] + 1)",
        SUMMARY,
    ),
    Mutation(f"{E}comparison/change.py", "LARGE = 2.0", "LARGE = 2.5", COMPARISON),
    Mutation(f"{E}comparison/change.py", "TOLERANCE = 1e-3", "TOLERANCE = 1e-2", COMPARISON),
    Mutation(f"{E}comparison/change.py", "ROUNDING = 1e-9", "ROUNDING = 1e-5", COMPARISON),
    Mutation(f"{E}comparison/change.py", "math.hypot(before, after)", "before + after", COMPARISON),
    Mutation(f"{E}comparison/claims.py", "ROUNDS = 5", "ROUNDS = 1", COMPARISON),
    Mutation(
        f"{E}comparison/claims.py",
        "before.bound + abs(before.bound)",
        "before.bound + 9 * abs(before.bound)",
        COMPARISON,
    ),
    Mutation(f"{E}comparison/runs.py", "FEWEST_SEEDS = 2", "FEWEST_SEEDS = 1", COMPARISON),
    Mutation(
        f"{R}answer.py", "error**2 / max(1, seeds)", "error**2 / max(1, seeds + 1)", "tests/test_report_answers.py"
    ),
    Mutation(f"{S}seeding.py", "[seed % 2**64, *words]", "[seed % 2**64]", "tests/test_seeding.py"),
    Mutation(f"{E}limits.py", "LARGEST_SEED = 2**31", "LARGEST_SEED = 2**53", "tests/test_seeding.py"),
    Mutation(
        "vaebench/training/snapshots.py",
        "kept.keys() ^ trained.keys()",
        "trained.keys() - kept.keys()",
        "tests/test_model_zoo.py -k snapshot",
    ),
    Mutation(
        f"{S}statistics.py", "/ (3 * (freedom + 1) ** 0.5)", "/ (30 * (freedom + 1) ** 0.5)", "tests/test_coverage.py"
    ),
    Mutation(f"{M}probes.py", "/ (2 * max(value, error))", "/ (200 * max(value, error))", "tests/test_coverage.py"),
    Mutation(f"{M}moments.py", "spread.mean() - spread", "spread - spread.mean()", "tests/test_coverage.py"),
)
