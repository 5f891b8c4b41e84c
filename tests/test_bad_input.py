"""What cannot be asked: one sentence with the value in it, exit status 2, and nothing made or hung on the way."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_cli_run import written
from vaebench.cli import app
from vaebench.experiments import ComponentSpec, Experiment, ResultDirectory, grid
from vaebench.experiments import run as run_experiment
from vaebench.experiments.building import require_parts
from vaebench.experiments.presets import SMOKE
from vaebench.experiments.studies import Study, find_studies, keep_study, read_study
from vaebench.support.files import parse_json
from vaebench.support.texts import escaped

SMALL = replace(SMOKE.base, steps=5, probes=("gradient",), measures=replace(SMOKE.base.measures, replicates=4, rows=16))


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """A study of one experiment that was run: its file, its results, in a path with a space, and what was said."""
    folder = tmp_path_factory.mktemp("fine")
    file, results = written(folder / "fine.json", SMALL, B=[8]), folder / "a b"
    found = CliRunner().invoke(app, ["run", file, "--results", str(results)])
    assert found.exit_code == 0, found.output
    return Path(file), results, found.stderr


def refused(result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)
    assert "Traceback" not in result.output and "\x1b" not in result.output


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("probes", "gradient", "probes must be a list, each a text, got 'gradient'"),
        ("probes", ["gradent"], "There is no probe 'gradent'; did you mean 'gradient'?"),
        ("estimator", "pathwize", "did you mean 'pathwise'?"),
        ("estimator", "nope:est", "No module named 'nope'"),
        ("estimator", "os:system", "Python's own library"),
        ("estimator", None, "estimator must be a text, got None"),
        ("seeds", ["0", "1"], "seeds must be a list, each an integer"),
        ("seeds", [2**64], "got [18446744073709551616]"),
        ("seeds", [2**60], "below 2^31, got 1152921504606846976"),
        ("seeds", [-1], "seeds must be integers of at least 0"),
        ("seeds", list(range(10**5)), "at most 10,000, got 100,000"),
        ("seeds", [True], "seeds must be a list, each an integer"),
        ("steps", 10**18, "steps must be at most 100,000,000, got 1000000000000000000"),
        ("steps", 5.0, "steps must be an integer, got 5.0"),
        ("steps", "5", "steps must be an integer, got '5'"),
        ("steps", -(10**30), "steps must be an integer, got -1000000000"),
        ("device", "meta", "device must be 'cpu', 'cuda' or 'cuda:N', got 'meta'"),
        ("device", None, "device must be a text, got None"),
        ("device", 0, "device must be a text, got 0"),
        ("measures", {"per_decade": 10**9}, "per_decade must be at most 1,000, got 1000000000"),
        ("measures", {"rows": 10**7, "replicates": 10**7}, "numbers in one array"),
        ("objective", {"samples": 10**9}, "samples must be at most 100,000,000"),
        ("objective", {"samples": 10**8}, "numbers in one array"),
        ("objective", {"beta": "1"}, "beta must be a finite number, got '1'"),
        ("objective", {"beta": True}, "beta must be a finite number, got True"),
        ("schedule", {"scale": 10**400, "exponent": 0.5}, "scale must be a finite number, got a number of"),
        (
            "optimizer",
            {"name": "adam", "betas": ["0.9", "0.99"]},
            "adam.betas must be a list of 2, each a finite number",
        ),
        ("optimizer", {"name": "adam", "betas": [0.9]}, "adam.betas must be a list of 2"),
        ("optimizer", {"name": "adam", "lr": 1.0}, "adam cannot be given 'lr' by an experiment"),
        ("data", {"name": "digits", "split": "test"}, "digits cannot be given 'split' by an experiment"),
        ("data", {"name": "digits", "dtype": "float64"}, "digits cannot be given 'dtype'"),
        ("data", {"name": "linear_gaussian", "generator": 3}, "cannot be given 'generator'"),
        ("data", {"name": "linear_gaussian", "seed": 3}, "cannot be given 'seed'"),
        ("data", {"name": "linear_gaussian", "n": 10**12}, "linear_gaussian.n must be at most 100,000,000"),
        ("model", {"name": "mlp_vae", "device": "cuda"}, "mlp_vae cannot be given 'device'"),
        ("model", {"name": "mlp_vae", "hidden": [10**9]}, "mlp_vae.hidden must be at most 100,000,000"),
        ("model", {"name": "mlp_vae", "hidden": "ab"}, "mlp_vae.hidden must be a list, each an integer"),
        ("model", {"name": "mlp_vae", "activations": 3}, "activations must be a name"),
        ("model", {"name": "mlp_vae", "activations": {"name": "soft_clip"}}, "soft_clip needs the option 'sharpness'"),
        ("model", "mean_field", "mean_field needs the option 'target'"),
        ("dtype", ["float32"], "dtype must be a text"),
        ("data", {"name": "\x1b[31m"}, "name of a part must be one line of printable text"),
    ],
)
def test_a_value_in_an_experiment_that_cannot_be(run, tmp_path, field, value, sentence):
    plain = SMALL.to_dict()
    plain[field] = plain[field] | value if field in ("measures", "objective") else value
    (tmp_path / "one.json").write_text(json.dumps(plain))
    refused(run("run", tmp_path / "one.json", "--results", tmp_path / "r"), sentence)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "name",
    ["../../x", "/evil", "", ".x", "a/b", "a\nb", "\x1b[31m", "x" * 101, "index.html", 3, None, "a b", "-x", "é"],
)
def test_a_study_is_named_like_a_file_and_writes_nowhere_else(run, tmp_path, name):
    plain = Study("fine", "default", "Is it so?", "B", grid(SMALL, B=[8])).to_dict() | {"name": name}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "s.json").write_text(json.dumps(plain))
    refused(run("run", tmp_path / "in" / "s.json", "--results", tmp_path / "r" / "r"), "name of a study")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "s.json"]


@pytest.mark.parametrize("field", ["question", "axis", "label"])
@pytest.mark.parametrize("value", ["\x1b[31mred", "a\nb", "\ud800", 3, None, [], "", "\u202eabc"])
def test_texts_of_a_study_are_printable(run, tmp_path, field, value):
    plain = Study("fine", "default", "Is it so?", "B", grid(SMALL, B=[8])).to_dict()
    (plain["arms"][0] if field == "label" else plain)[field] = value
    (tmp_path / "s.json").write_text(json.dumps(plain))
    refused(run("run", tmp_path / "s.json", "--results", tmp_path / "r"), "s.json")


def test_markup_and_formulas_in_a_study_are_shown_as_they_are(run, tmp_path):
    label = "=1+1 [/red] <b>$x$"
    plain = Study("fine", "default", "[bold]Is <i>it</i> so?", "[/B]", grid(SMALL, B=[8])).to_dict()
    plain["arms"][0]["label"] = label
    (tmp_path / "s.json").write_text(json.dumps(plain))
    results = tmp_path / "r"
    run_experiment(read_study(tmp_path / "s.json").arms[0].experiment, results)
    found = run("run", tmp_path / "s.json", "--results", results)
    assert found.exit_code == 0, found.output
    assert "=1+1 [/red]" in found.stdout
    assert run("report", "--results", results, "--out", tmp_path / "o").exit_code == 0
    page, table = (tmp_path / "o" / "fine" / name for name in ("index.html", "tables/arms.csv"))
    assert "<i>" not in page.read_text("utf-8") and "<b>$" not in page.read_text("utf-8")
    assert "'=1+1 [/red] <b>$x$" in table.read_text("utf-8") and ",=1+1" not in table.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 10**5 + "]" * 10**5, "nested"),
        ("[" * 100 + "]" * 100, "nested more than 60 deep"),
        ('{"steps": ' + "9" * 5000 + "}", "digits"),
        ('{"steps": 1, "steps": 2}', "it says 'steps' twice"),
        ('{"estimator": "\\ud800"}', "half of a surrogate pair"),
        ("{}{", "Extra data"),
        ("", "Expecting value"),
        ("\0", "Expecting value"),
    ],
)
def test_json_that_is_none_or_too_much(run, tmp_path, text, sentence):
    (tmp_path / "s.json").write_text(text)
    refused(run("run", tmp_path / "s.json", "--results", tmp_path / "r"), "s.json", sentence)
    with pytest.raises(ValueError, match=sentence):
        parse_json(text)


def test_what_is_no_file(run, tmp_path):
    (tmp_path / "folder.json").mkdir()
    refused(run("run", tmp_path / "folder.json"), "is a directory")
    refused(run("run", tmp_path / "none.json"), "There is no file")
    refused(run("run", "/dev/zero"), "There is no file '/dev/zero'")


def test_the_users_own_file_is_not_replaced(run, tmp_path):
    path = tmp_path / "mine.json"
    content = written(path, SMALL, B=[8]) and path.read_bytes()
    refused(run("run", path, "--results", tmp_path, "--seeds", 2), "mine.json is there and is not a note of vaebench's")
    assert path.read_bytes() == content
    run_experiment(read_study(path).arms[0].experiment, tmp_path)
    assert run("run", path, "--results", tmp_path).exit_code == 0
    assert path.read_bytes() == content


def test_a_kept_study_is_replaced_by_one_of_its_name(tmp_path):
    study = Study("fine", "default", "Is it so?", "B", grid(SMALL, B=[8]))
    keep_study(study, tmp_path)
    keep_study(study.with_settings(seeds=(7,)), tmp_path)
    assert read_study(tmp_path / "fine.json").arms[0].experiment.seeds == (7,)


def test_a_foreign_and_a_damaged_file_do_not_stop_the_others(run, fine, tmp_path):
    results = shutil.copytree(fine[1], tmp_path / "r")
    (results / "notes.json").write_text('{"to do": []}')
    (results / "cut.json").write_text('{"arms": [')
    (results / "other.json").write_bytes((results / "fine.json").read_bytes())
    listed = json.loads(run("list", "--results", results, "--json").stdout)["results"]
    assert listed["fine"] == "1 of 1 experiments complete"
    assert all(listed[f"{name}.json"].startswith("broken: ") for name in ("notes", "cut", "other"))
    resumed = run("resume", "--results", results)
    assert resumed.exit_code == 0 and "passed over cut.json" in resumed.stderr
    report = run("report", "--results", results, "--out", tmp_path / "o", "--json")
    assert report.exit_code == 1
    found = json.loads(report.stdout)
    assert len(found["reports"]) == 1 and set(found["broken"]) == {"notes.json", "cut.json", "other.json"}
    refused(run("report", "cut", "--results", results), "cut.json")
    assert find_studies(results, ["fine"]).studies[0].title == "fine"


def test_a_damaged_result_is_listed_named_and_run_again(run, fine, tmp_path):
    file, results = fine[0], shutil.copytree(fine[1], tmp_path / "r")
    place = ResultDirectory(results, read_study(file).arms[0].experiment)
    path = place.directory / "trajectory.csv"
    path.write_bytes(path.read_bytes()[:-9])
    listed = json.loads(run("list", "--results", results, "--json").stdout)["results"]["fine"]
    assert listed.startswith("0 of 1 experiments complete, 1 damaged") and "trajectory.csv" in listed
    refused(run("report", "fine", "--results", results), "trajectory.csv")
    assert run("run", file, "--results", results).exit_code == 0
    assert place.complete()


def test_a_broken_run_does_not_say_look_at_it(run, tmp_path):
    base = replace(SMALL, estimator="analytic_kl", objective=replace(SMALL.objective, alpha=0.0))
    found = run("run", written(tmp_path / "bad.json", base, B=[8]), "--results", tmp_path / "a b")
    assert found.exit_code == 1
    assert "analytic_kl" in found.stdout and "To look at it" not in found.stderr


def test_a_hint_can_be_pasted(fine):
    _, results, said = fine
    assert f"vaebench report fine --results '{results}'" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frontier", "--budget", "0"], ["above zero, got 0"]),
        (["frontier", "--budget", "nan"], ["above zero, got nan"]),
        (["check", "--latents", "0"], ["latents must be an integer of at least 1, got 0"]),
        (["check", "--seed", "-1"], ["seeds must be integers of at least 0"]),
        (["check", "--steps", "1000000000000"], ["steps must be at most 100,000,000"]),
        (["check", "--samples", "0"], ["samples must be an integer of at least 1, got 0"]),
        (["check", "--model", "mean_field"], ["mean_field needs the argument 'target'"]),
        (["check", "--model", "mlp_vae", "--steps", "200"], ["--data digits"]),
        (["check", "--model", "vaebench.cli.common:nothing"], ["There is no 'nothing' in vaebench.cli.common"]),
        (["run", "beta", "--device", "meta"], ["device must be 'cpu', 'cuda' or 'cuda:N', got 'meta'"]),
        (["run", "beta", "--scheduler", ""], ["'' is no address of a scheduler"]),
        (["run", "beta", "--scheduler", "foo://x"], ["'foo://x' is no address"]),
        (["run", "beta", "--tls-ca", "a.pem"], ["--scheduler tls://"]),
        (["compare", "a", "b"], ["'a' is no file"]),
    ],
)
def test_a_command_line_that_cannot_be_asked(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments), *words)
    assert not list(tmp_path.iterdir())


def test_a_part_that_breaks_while_it_is_used_is_one_sentence_and_exit_1(run, tmp_path, monkeypatch):
    (tmp_path / "falls_apart.py").write_text("def estimator(model, x, noise, objective):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = run("check", "--estimator", "falls_apart:estimator", "--steps", "200", "--members", "2")
    assert found.exit_code in (1, 2)
    assert "division by zero" in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_own_parts_are_run_by_name_from_the_current_directory(tmp_path):
    (tmp_path / "theirs_here.py").write_text(
        "from vaebench.gradients.estimators import pathwise\nfrom vaebench.models import linear_vae\n"
        "def half(model, x, noise, objective):\n    return pathwise(model, x, noise, objective) / 2\n"
        "def model(features, generator=None, dtype=None):\n    return linear_vae(features, 2, generator=generator)\n"
    )
    (tmp_path / "random.py").write_text("raise SystemExit('taken for the library')")
    data = ComponentSpec("linear_gaussian")
    one = replace(
        SMALL, estimator="theirs_here:half", model=ComponentSpec("theirs_here:model"), data=data, dtype="float32"
    )
    (tmp_path / "one.json").write_text(json.dumps(one.to_dict()))
    program = "import sys; sys.path.remove(''); from vaebench.cli import app; app()"
    command = [sys.executable, "-c", program, "run", "one.json"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_a_broken_plug_in_is_listed_with_its_reason(run, tmp_path, monkeypatch):
    (tmp_path / "fell_over.py").write_text("raise RuntimeError('no GPU, no fun')")
    information = tmp_path / "fell_over-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fell-over\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vaebench.estimators]\nfallen = fell_over:x\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = json.loads(run("list", "--results", tmp_path, "--json").stdout)["estimators"]
    assert found["fallen"].startswith("broken: ") and "no GPU, no fun" in found["fallen"]
    assert not found["pathwise"].startswith("broken")
    refused(run("check", "--estimator", "fallen"), "no GPU, no fun")


def test_a_list_for_a_pipe_has_no_escape_codes(run, tmp_path):
    assert "\x1b" not in run("list", "--results", tmp_path).stdout


def test_completion_can_be_installed(run):
    assert "--install-completion" in run("--help").stdout


def test_escapes_are_shown_not_done():
    assert escaped("a\x1b[2Jb\r\nc\ud800\u202e") == "a\\x1b[2Jb c\\ud800\\u202e"


def test_every_preset_has_parts_that_are_known():
    require_parts(SMOKE.base)
    assert Experiment.from_dict(SMALL.to_dict()) == SMALL


def test_a_directory_that_another_process_is_in_is_said_at_once(run, tmp_path, monkeypatch):
    from vaebench.experiments.scheduling import engine

    monkeypatch.setattr(engine.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    file, results = written(tmp_path / "fine.json", SMALL, B=[8]), tmp_path / "r"
    with ResultDirectory(results, read_study(tmp_path / "fine.json").arms[0].experiment).taken():
        found = run("run", file, "--results", results)
    assert found.exit_code == 1
    assert "Another process is running" in found.stderr


def test_pages_go_beside_the_results_unless_told_otherwise(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "fine.json", SMALL, B=[8])
    run_experiment(read_study(Path(file)).arms[0].experiment, tmp_path / "kept")
    assert run("run", file, "--results", "kept").exit_code == 0
    assert run("report", "--results", "kept").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fine.json", "kept"]
    assert (tmp_path / "kept" / "reports" / "fine" / "index.html").is_file()
