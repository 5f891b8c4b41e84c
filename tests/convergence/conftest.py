"""One benchmark per claim."""

import pytest


@pytest.fixture
def verify(benchmark):
    """Run a check once, keep what it found beside its time, and insist that the claim holds.

    `standard_error`, where a check finds one, is that of the statistic: `vaebench compare` reads it.
    """

    def run(check, *arguments):
        verdict = benchmark.pedantic(check, arguments, rounds=1, iterations=1, warmup_rounds=0)
        numbers = {"statistic": verdict.statistic, "bound": verdict.threshold}
        numbers |= {"slack": verdict.threshold - verdict.statistic, "false_alarm": verdict.false_alarm}
        benchmark.extra_info.update({"claim": verdict.claim} | numbers | dict(verdict.evidence))
        assert verdict.passed, str(verdict)

    return run
