"""What a mutation is, and which tests are named often."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One place and its change.

    Attributes:
        path: of the source, below the repository's root; a text that was moved is found where it stands once.
        old: text that stands there once.
        new: what takes its place.
        tests: arguments of pytest.
    """

    path: str
    old: str
    new: str
    tests: str


def among(words: str, *paths: str) -> str:
    """Arguments of pytest for those tests of some files whose names have a word: "one or another"."""
    return f"{' '.join(paths)} -k '{words}'"


G, S, M, T, E, R = (f"vaebench/{room}/" for room in ("gates", "support", "measures", "theory", "experiments", "report"))
POWER, GATES, PROBES = "tests/test_gate_power.py", "tests/test_gates.py", "tests/test_probes.py"
SKEWNESS = "tests/test_skewness.py"
SUMMARY, LEDGER, STATISTICS = "tests/test_summary.py", "tests/theory/test_ledger.py", "tests/test_statistics.py"
ENVELOPES, PREDICTIONS, SAMPLING = (
    "tests/theory/test_envelopes.py",
    "tests/theory/test_predictions.py",
    "tests/test_sampling.py",
)
THIRD = "tests/test_third_parties.py"
COMPARISON, RECORDS = "tests/test_comparison.py", "tests/test_fleet.py"
CONSTANTS, ADAM = "tests/theory/test_constants.py", "tests/theory/test_adam.py"
VERDICT, WALKING, CORRELATIONS, REPLAY, DRAWN = (
    f"{G}{name}.py" for name in ("verdict", "walking", "correlations", "replay", "randomness")
)
