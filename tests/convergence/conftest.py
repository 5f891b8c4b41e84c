"""One benchmark per claim."""

import pytest


@pytest.fixture
def verify(benchmark):
    """Run a check once, keep what it found beside its time, and insist that the claim holds."""

    def run(check, *arguments):
        finding = benchmark.pedantic(check, arguments, rounds=1, iterations=1, warmup_rounds=0)
        benchmark.extra_info.update(finding._asdict() | finding.details | {"slack": finding.slack})
        del benchmark.extra_info["details"]
        assert finding.holds, finding

    return run
