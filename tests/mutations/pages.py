"""Mutations of records, of report tables and of comparisons."""

from tests.mutations.mutation import COMPARISON, SUMMARY, E, Mutation, R

TABLES, RECORD = f"{R}tables.py", f"{E}record.py"
CHANGE, CLAIMS = f"{E}comparison/change.py", f"{E}comparison/claims.py"
PAGES = "tests/test_report_pages.py tests/test_report.py"
MUTATIONS = (
    Mutation(TABLES, 'sum(verdict.outcome == "fail" for verdict in one.verdicts)\n    if not', "0\n    if not", PAGES),
    Mutation(TABLES, '"failed checks": failed', '"failed checks": len(one.verdicts)', PAGES),
    Mutation(TABLES, 'standard error": found.error', 'standard error": found.value', PAGES),
    Mutation(TABLES, '"kept seeds": one.kept', '"kept seeds": len(one.seeds)', PAGES),
    Mutation(TABLES, '"mean": mean, "low": low', '"mean": low, "low": mean', PAGES),
    Mutation(TABLES, 'FORMULA = ("=", "+", "-", "@", "\\t", "\\r")', 'FORMULA = ("=", "+", "-", "@")', PAGES),
    Mutation(TABLES, 'float_format="%.10g"', 'float_format="%.4g"', PAGES),
    Mutation(RECORD, "np.arange(1, squares.shape[1] + 1)", "np.arange(2, squares.shape[1] + 2)", SUMMARY),
    Mutation(RECORD, "known = np.isfinite(row)", "known = row > 0", SUMMARY),
    Mutation(RECORD, 'frame.loc[~frame["seed"]', 'frame.loc[frame["seed"]', SUMMARY),
    Mutation(RECORD, 'and not name.endswith("_error")', "", SUMMARY),
    Mutation(CHANGE, "TOLERANCE * abs(before) if", "TOLERANCE if", COMPARISON),
    Mutation(CHANGE, "max(LARGE * error, ROUNDING", "min(LARGE * error, ROUNDING", COMPARISON),
    Mutation(CHANGE, "return self.after - self.before", "return self.before - self.after", COMPARISON),
    Mutation(CHANGE, "if direction == 1:", "if direction == -1:", COMPARISON),
    Mutation(CHANGE, "{after / before:.3g}", "{before / after:.3g}", COMPARISON),
    Mutation(CHANGE, 'row.kind == "gone" and row.name in watched', 'row.kind == "gone"', COMPARISON),
    Mutation(CLAIMS, '"crossed" if before.passed', '"crossed" if after.passed', COMPARISON),
    Mutation(CLAIMS, "min(before.rounds, after.rounds)", "max(before.rounds, after.rounds)", COMPARISON),
    Mutation(CLAIMS, 'math.isnan(statistic) and kept["outcome"]', 'kept["outcome"]', COMPARISON),
    Mutation(CLAIMS, "not after.bound <= before.bound", "after.bound > before.bound", COMPARISON),
)
