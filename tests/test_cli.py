"""The command line: what it prints, what it refuses, how it exits."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from vaebench.cli import app

SHORT = ["check", "--steps", "200", "--members", "4"]
FAULTY = """
from vaebench.estimators import pathwise

def shrunk(model, x, noise, objective):
    return 0.8 * pathwise(model, x, noise, objective)
"""


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_help_imports_nothing_heavy():
    program = "import sys, vaebench.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_correct_estimator_passes(run):
    result = run(*SHORT, "--json")
    verdicts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert all(verdict["passed"] for verdict in verdicts)
    assert {"gate", "claim", "statistic", "threshold", "evidence"} <= verdicts[0].keys()


def test_an_own_faulty_estimator_fails(run, tmp_path, monkeypatch):
    (tmp_path / "faulty_estimators.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    result = run(*SHORT, "--estimator", "faulty_estimators:shrunk")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "gates failed" in result.stdout


def test_what_is_left_out_is_said(run):
    """The weights of one latent on data of two are too wide for a quadrature."""
    result = run(*SHORT, "--alpha", "0", "--samples", "5", "--latents", "1")
    assert "left out: bound value, ledgers and envelopes need an exact gradient" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimator", "pathwize"], "did you mean 'pathwise'?"),
        (["--model", "liner_vae"], "did you mean 'linear_vae'?"),
        (["--data", "digit"], "did you mean 'digits'?"),
        (["--estimator", "no_such_package:function"], "No module named 'no_such_package'"),
        (["--samples", "0"], "samples must be an integer of at least 1, got 0"),
        (["--members", "1"], "members must be at least 2"),
        (["--scale", "5"], "L C"),
        (["--estimator", "leave_one_out"], "leave_one_out needs at least 2 samples"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_2(run, arguments, message):
    result = run(*SHORT, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_data_set_whose_files_are_missing_is_one_sentence_and_exit_2(run, tmp_path, monkeypatch):
    monkeypatch.setenv("VAEBENCH_DATA", str(tmp_path))
    result = run(*SHORT, "--data", "celeba")
    assert result.exit_code == 2
    assert f"CelebA is not in {tmp_path}: put the folder img_align_celeba" in result.stderr
    assert "Traceback" not in result.output
