"""A pytest plugin: the fixture `certify`, by which a library's own tests certify its estimators.

    def test_my_estimator(certify):
        certify(my_estimator, level="quick")

It asserts that every gate passes and had the power to fail. Under pytest-benchmark each gate is kept as a claim with
its bound, so that `vaebench compare OLD.json NEW.json` of two reports says what moved between two commits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vaebench.report.certificate import Certificate


@pytest.fixture
def certify(request: pytest.FixtureRequest) -> Callable[..., Certificate]:
    """Certify an estimator in a test: takes what `vaebench.report.certificate.certify` takes.

    Args:
        request: of the test that uses it.

    Returns:
        A function that certifies, keeps the claims where the test is benchmarked, asserts, and returns the
        certificate.
    """

    def run(estimator: Any, *given: Any, **options: Any) -> Certificate:
        from vaebench.report.certificate import certify as certify_estimator
        from vaebench.report.certificate.terminal import lines

        chosen = {"level": "quick"} | options
        benchmark = _benchmark(request)
        if benchmark is None or benchmark.extra_info:
            certificate = certify_estimator(estimator, *given, **chosen)
        else:
            certificate = benchmark.pedantic(certify_estimator, (estimator, *given), chosen, rounds=1, iterations=1)
        if benchmark is not None:
            found = claims(certificate)
            benchmark.extra_info.update(found | {"claims": benchmark.extra_info.get("claims", {}) | found["claims"]})
        assert certificate.passed, "\n" + "\n".join(lines(certificate.findings))
        return certificate

    return run


def _benchmark(request: pytest.FixtureRequest) -> Any:
    """pytest-benchmark's fixture, if it is there; it times one call a test."""
    return request.getfixturevalue("benchmark") if request.config.pluginmanager.hasplugin("benchmark") else None


def claims(certificate: Certificate) -> dict[str, Any]:
    """What is kept of a certificate between commits.

    Args:
        certificate: the certificate.

    Returns:
        Under "claims" every gate's statistic and bound by name; beside them the exact counters of one gradient at
        one's own K and B.
    """
    from vaebench.experiments.certifying.cost import at_own

    found = certificate.findings
    kept: dict[str, Any] = {
        "claims": {
            f"{found.question.name}: {one.place}: {one.verdict.gate}": {
                "claim": one.verdict.claim,
                "statistic": one.verdict.statistic,
                "bound": one.verdict.threshold,
                "slack": one.verdict.threshold - one.verdict.statistic,
                "outcome": one.verdict.outcome,
            }
            for one in found.judged
        }
    }
    point = at_own(found.cost.points, found.question)
    counters = {} if point is None else {name: getattr(point, name) for name in ("flops", "ops", "peak_bytes")}
    return kept | {name: value for name, value in counters.items() if value is not None}
