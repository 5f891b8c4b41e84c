"""The command line: what it prints, what it refuses, how it exits."""

import json
import math
import os
import platform
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import vaebench
from vaebench.cli import app
from vaebench.cli.common import print_json, print_verdicts
from vaebench.experiments.limits import require_affordable
from vaebench.gates import Verdict

SHORT = ["check", "--steps", "200", "--members", "4"]
FAULTY = """
from vaebench.gradients import pathwise

def shrunk(model, x, noise, objective):
    return 0.8 * pathwise(model, x, noise, objective)
"""


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib")
PROGRAM = f"""
import sys
from vaebench.cli import app
app(sys.argv[1:], standalone_mode=False)
sys.exit(" ".join(name for name in {HEAVY} if name in sys.modules) or 0)
"""


@pytest.mark.parametrize(
    "command", [[], ["check"], ["certify"], ["compare"], ["new"], ["new", "estimator"]], ids=" ".join
)
def test_help_imports_nothing_heavy(command):
    arguments = [sys.executable, "-c", PROGRAM, *command, "--help"]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "Usage: " in answer.stdout


def test_the_module_runs_as_a_program():
    answer = subprocess.run([sys.executable, "-m", "vaebench.cli", "--version"], capture_output=True, check=False)
    assert (answer.returncode, answer.stdout.decode().split()) == (0, ["vaebench", vaebench.__version__])


def test_a_pipe_that_closes_ends_a_command_without_a_word():
    """As `vaebench list | head -1` does."""
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "vaebench.cli", "list"]
    result = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "it broke" not in result.stderr and "Traceback" not in result.stderr


def test_a_correct_estimator_passes(run):
    result = run(*SHORT, "--json")
    found = json.loads(result.stdout)
    verdicts = found["verdicts"]
    assert found["outcome"] in {"pass", "no power"} and found["left_out"] == []
    assert found["passed"] == (found["outcome"] == "pass") == (result.exit_code == 0)
    assert all(verdict["outcome"] != "fail" for verdict in verdicts)
    shown = {"gate", "claim", "statistic", "threshold", "outcome", "smallest", "limit", "unit", "evidence"}
    assert shown <= verdicts[0].keys()


def test_four_members_have_no_power_and_do_not_certify(run):
    """Student's t with three degrees of freedom allows 47.9 standard errors: nothing would have been found."""
    result = run("check", "--steps", "200", "--members", "4")
    printed = " ".join(result.stdout.split())
    assert result.exit_code == 1 and "NO POWER" in printed and "No gate failed, but" in printed


PARTS = """
from vaebench.gradients import pathwise
from vaebench.training.fleet import train
from vaebench.training.optimizers import sgd

def with_value(model, x, noise, objective):
    bound = pathwise(model, x, noise, objective)
    return bound, bound + 0.01

def decaying(model, estimator, objective, data, optimizer, *rest, **options):
    def rule(parameters, lr):
        inner = optimizer(parameters, lr)
        plain = inner.step
        def step():
            for group in inner.param_groups:
                for p in group["params"]:
                    p.grad.add_(p.detach(), alpha=1e-4)
            plain()
        inner.step = step
        return inner
    return train(model, estimator, objective, data, rule, *rest, **options)
"""


@pytest.mark.parametrize(
    ("arguments", "gate"),
    [
        (["--estimator", "own_parts:with_value"], "bound value"),
        (["--trainer", "own_parts:decaying"], "replay"),
        (["--reported", "score_function"], "bound value"),
        (["--sampler", "epochwise"], "successive noise"),
        (["--optimizer", "own_parts:sgd"], None),
        (["--estimator", "own_parts:pathwise", "--law", "pathwise"], None),
    ],
)
def test_parts_of_ones_own_are_certified(run, tmp_path, monkeypatch, arguments, gate):
    """A value that is 0.01 too high, a weight decay hidden in the loop and a wrong report fail, and no other gate."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    found = json.loads(run("check", "--steps", "300", "--members", "6", *arguments, "--json").stdout)
    failed = {verdict["gate"] for verdict in found["verdicts"] if verdict["outcome"] == "fail"}
    if gate == "successive noise":
        assert "randomness" not in failed, "minibatches of epochs are what was claimed"
    else:
        assert failed - {"paired ledger"} == ({gate} if gate else set())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--latents", "1000000"],
            "13,000,000 parameters of 16 members take 13 GB in 8 copies, at most 4 GB are taken",
        ),
        (
            ["--latents", "200000", "--members", "2", "--replicates", "80000"],
            "take about 9e+13 operations, at most 1e+13",
        ),
        (["--latents", "40000000"], "members 16 x batch_size 8 x samples 1 x latents 40,000,000 are"),
        (["--batch-size", "100000"], "batch_size must be at most 256, the number of rows of the data"),
        (["--law", "pathwize"], "There is no estimator 'pathwize'; did you mean 'pathwise'?"),
        (["--rule", "sdg"], "There is no optimizer 'sdg'; did you mean 'sgd'?"),
        (["--sampler", "epochwize"], "There is no sampler 'epochwize'; did you mean 'epochwise'?"),
    ],
)
def test_what_no_machine_does_or_nobody_knows_is_refused_at_once(run, arguments, message):
    result = run("check", *arguments)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_is_affordable_by_hand():
    """Eight copies of 4 members of 10^6 parameters are 3.2 x 10^7 numbers; 6 x 10^6 x 8 operations a gradient."""
    require_affordable(10**6, 4, 200_000, 1, 8)
    with pytest.raises(ValueError, match=r"200,000 gradients of 1,100,000 parameters take about 1e\+13 operations"):
        require_affordable(1_100_000, 4, 200_000, 1, 8)
    with pytest.raises(ValueError, match=r"10,000,000 parameters of 7 members take 4.5 GB in 8 copies, at most 4 GB"):
        require_affordable(10**7, 7, 1, 1, 8)


def test_an_own_optimizer_is_held_against_the_rule_it_claims(run, tmp_path, monkeypatch):
    (tmp_path / "own_rules.py").write_text(
        "import torch\n\ndef adamw(p, lr):\n    return torch.optim.AdamW(p, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for more, failed, said in ([], False, True), (["--rule", "adam"], True, False):
        arguments = ["--steps", "100", "--replicates", "800", "--optimizer", "own_rules:adamw", *more, "--json"]
        found = json.loads(run("check", *arguments).stdout)
        outcomes = {verdict["gate"]: verdict["outcome"] for verdict in found["verdicts"]}
        assert (outcomes["optimizer step"] == "fail") == failed
        assert any(one["title"] == "optimizer step beside a known rule" for one in found["left_out"]) == said


def test_an_own_faulty_estimator_fails(run, tmp_path, monkeypatch):
    (tmp_path / "faulty_estimators.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    result = run(*SHORT, "--estimator", "faulty_estimators:shrunk")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "gates failed" in result.stdout


def test_what_is_left_out_is_said(run):
    """The weights of one latent on data of two are too wide for a quadrature."""
    arguments = (*SHORT, "--replicates", "800", "--alpha", "0", "--samples", "5", "--latents", "1")
    title, reason = "ledgers and envelopes", "they need an exact gradient, and there is none"
    assert f"left out: {title}: {reason}" in " ".join(run(*arguments).stdout.split())
    assert {"title": title, "reason": reason} in json.loads(run(*arguments, "--json").stdout)["left_out"]


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


def test_json_has_no_infinity(capsys):
    print_json({"statistic": math.inf, "evidence": [math.nan, 1.5, "nan"]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"statistic": None, "evidence": [None, 1.5, "nan"]}


def test_brackets_in_a_verdict_are_printed(capsys):
    print_verdicts([Verdict("g[law] holds", 1.5, 1.0, {"worst": "weight[0]"}, "gate[0]")])
    printed = capsys.readouterr().out
    assert "g[law]" in printed and "weight[0]" in printed and "gate[0]" in printed


def test_a_gate_without_power_is_printed_as_such_and_not_as_passed(capsys):
    sharp = Verdict("it holds", 0.5, 1.0, {}, "sharp", 1e-5, 0.02, 0.1, "of the gradient")
    print_verdicts([sharp])
    assert "All 1 gates passed; correct code fails one with probability below 1e-05." in capsys.readouterr().out
    print_verdicts([sharp, Verdict("it holds", 0.5, 1.0, {}, "blunt", 1e-5, 47.9, 0.1, "of the gradient")])
    printed = " ".join(capsys.readouterr().out.split())
    assert "NO POWER" in printed and "0.02" in printed
    assert "No gate failed, but 1 of 2 had no power, so this run does not certify: blunt." in printed


TIRING = """
from vaebench.gradients import pathwise

calls = 0

def tiring(model, x, noise, objective):
    global calls
    calls += 1
    return (1.5 if calls > 150 else 1) * pathwise(model, x, noise, objective)
"""


def verdicts_of(result):
    return {verdict["gate"]: verdict for verdict in json.loads(result.stdout)["verdicts"]}


def test_an_estimator_that_changes_with_its_calls_is_called_at_every_step(run, tmp_path, monkeypatch):
    """The steps of vaebench's own estimators are recorded once; a record would hide what this one does later."""
    (tmp_path / "tired.py").write_text(TIRING)
    monkeypatch.syspath_prepend(tmp_path)
    found = verdicts_of(run(*SHORT, "--replicates", "800", "--estimator", "tired:tiring", "--json"))
    assert found["replay"]["outcome"] == "fail"


def test_recorded_steps_reach_the_verdicts_of_eager_ones(run, tmp_path, monkeypatch):
    (tmp_path / "eager_loop.py").write_text("from vaebench.training.fleet import train")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = (*SHORT, "--replicates", "800", "--samples", "2", "--alpha", "0", "--latents", "1", "--json")
    recorded, eager = (json.loads(run(*arguments, *more).stdout) for more in ([], ["--trainer", "eager_loop:train"]))
    assert recorded == eager


TOUCHED = """
import resource, torch
from vaebench.cli.common import own_process
{call}
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library of C has no such settings")
@pytest.mark.parametrize("call", ["own_process()", ""])
def test_a_command_keeps_the_memory_that_it_frees(call):
    """64 MiB given back and asked for again: 16,384 small pages, or 32 large ones, are new; of kept memory none."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "MKL_"))}
    asked = [sys.executable, "-c", TOUCHED.format(call=call)]
    done = subprocess.run(asked, env=clean | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=True)
    faults, threads = map(int, done.stdout.split())
    assert (faults < 16, threads) == ((True, 1) if call else (False, 2))
