"""Mutations of what gates and intervals allow for: rounding, skewness, the error of a reference, and weak signals."""

from tests.mutations.mutation import GATES, POWER, SKEWNESS, THIRD, G, M, Mutation, among

ROUNDING, COVERAGE, BOXES = "tests/test_rounding.py", "tests/test_coverage.py", "tests/test_blackboxes.py"
SUMS, PLANNING, LAWS, RECORDED = (f"{G}{name}.py" for name in ("sums", "planning", "laws", "recorded"))
REFERENCE, PARTS, LIMITS = f"{G}reference.py", f"{G}parts.py", f"{M}intervals.py"
COARSE = "vaebench/gradients/rounding.py"
DRAWING, PLATES = (f"vaebench/experiments/blackboxes/{name}.py" for name in ("drawing", "plates"))
MUTATIONS = (
    Mutation(SUMS, "(total.abs() - slack)", "(total.abs() + slack)", among("sums or ledgers", POWER)),
    Mutation(SUMS, "2 * total * mean.square()", "total * mean.square()", f"{POWER} -k sums"),
    Mutation(SUMS, "cubes, count), 1)", "cubes, count), 2)", f"{POWER} -k sums"),
    Mutation(SUMS, "** (2 / 3) * squares", "* squares", f"{POWER} -k sums"),
    Mutation(SUMS, "math.inf, scores)", "0.0, scores)", f"{POWER} -k sums"),
    Mutation(COARSE, "LEAST = 1e-9", "LEAST = 1e-7", ROUNDING),
    Mutation(COARSE, "UNITS = 100", "UNITS = 10", ROUNDING),
    Mutation(COARSE, "HALF[0] * eps + HALF[1]", "HALF[0] * eps - HALF[1]", ROUNDING),
    Mutation(COARSE, "max(LEAST, min(", "max(LEAST, max(", ROUNDING),
    Mutation(COARSE, "self.eps = max(self.eps, torch", "self.eps = min(self.eps, torch", ROUNDING),
    Mutation(REFERENCE, "truth.abs().amax(1)", "mine.abs().amax(1)", f"{GATES} -k members_one"),
    Mutation(REFERENCE, "(mine - truth).abs().amax(1)", "(mine - truth).amax(1)", f"{GATES} -k members_one"),
    Mutation(REFERENCE, "descending=True)[:2]", "descending=False)[:2]", among("one_row or not_finite", GATES)),
    Mutation(REFERENCE, "found.at_some_rows(start)", "found.evaluate(start)[1]", f"{GATES} -k costs"),
    Mutation(REFERENCE, "len(x) / count)", "1 / count)", among("quadrature or turns or rows", GATES)),
    Mutation(f"{G}certification.py", "exact.size > AFFORDED", "exact.numbers > AFFORDED", f"{GATES} -k too_long"),
    Mutation(f"{G}certification.py", "error <= INACCURATE", "error < INACCURATE", f"{GATES} -k integral"),
    Mutation(PARTS, "tuple(rows.shape) == shape", "len(rows.shape) == len(shape)", f"{THIRD} -k sampler"),
    Mutation(PARTS, "not torch.equal(rows(), rows())", "torch.equal(rows(), rows())", f"{THIRD} -k sampler"),
    Mutation(RECORDED, "first + worst + 1", "first + worst", among("losses or loop or record", THIRD)),
    Mutation(RECORDED, "amax(1)", "amin(1)", among("losses or loop or record", THIRD)),
    Mutation(RECORDED, "self.compared > len(self.losses)", "False", among("losses or loop or record", THIRD)),
    Mutation(LAWS, "2 * math.log(LAST / FIRST)", "math.log(LAST / FIRST)", among("ratio", SKEWNESS)),
    Mutation(LAWS, "(-ASYMPTOTIC, ASYMPTOTIC)", "(ASYMPTOTIC, -ASYMPTOTIC)", among("ratio", SKEWNESS)),
    Mutation(LAWS, "LIGHT * many.samples", "LIGHT * LAST", among("light or weights or law", POWER)),
    Mutation(LAWS, "fall.error / run, expected", "fall.error, expected", among("law or slope", POWER, GATES)),
    Mutation(PLANNING, "prefix + rest * i // pairs + 1", "prefix + rest * i // pairs", f"{POWER} -k random_steps"),
    Mutation(PLANNING, "chosen |= {first, first + 1}", "chosen |= {first}", f"{POWER} -k random_steps"),
    Mutation(PLANNING, "CHEAP = 2000", "CHEAP = 200000", f"{POWER} -k random_steps"),
    Mutation(PLANNING, "PREFIX, PAIRS = 80, 20", "PREFIX, PAIRS = 80, 2", f"{POWER} -k random_steps"),
    Mutation(PLANNING, "HELD // (members * size)", "HELD // size", among("random_steps or held", POWER)),
    Mutation(PLANNING, "replicates % 8", "replicates % 4", f"{GATES} -k multiple"),
    Mutation(LIMITS, "silent = 4 * share", "silent = 2 * share", f"{COVERAGE} -k stated"),
    Mutation(LIMITS, "(1 + (ratio < weak))", "1", f"{COVERAGE} -k stated"),
    Mutation(
        LIMITS,
        "(ratio < weak)), below, heard)",
        "(ratio < weak)), above, heard)",
        among("stated or signal_to", COVERAGE),
    ),
    Mutation(LIMITS, "24 * ratio * share", "12 * ratio * share", f"{COVERAGE} -k stated"),
    Mutation(LIMITS, "PRIOR = 4.0", "PRIOR = 0.04", f"{COVERAGE} -k stated"),
    Mutation(DRAWING, "(weight - scale / STEP)", "(weight + scale / STEP)", among("name or hand or scale", BOXES)),
    Mutation(DRAWING, "2 * min(p_value", "min(p_value", among("hand or scale or coordinates", BOXES)),
    Mutation(DRAWING, "seeds[half * each : (half + 1) * each]", "seeds[:each]", among("directions or scale", BOXES)),
    Mutation(DRAWING, "found.square().sum(0) / (2 * each)", "found.square().sum(0) / each", among("noise", BOXES)),
    Mutation(PLATES, "range(-log_prob.ndim, 0)", "range(-log_prob.ndim, -1)", "tests/test_plates.py"),
    Mutation(PLATES, "taken < rows and alpha != 1", "taken < rows", "tests/test_plates.py"),
    Mutation(PLATES, "size == rows] or", "size <= rows] or", "tests/test_plates.py"),
    Mutation(PLATES, "return taken >= rows", "return taken > rows", "tests/test_plates.py"),
    Mutation(PLATES, "(needed - latent", "(drawn - latent", "tests/test_plates.py"),
)
