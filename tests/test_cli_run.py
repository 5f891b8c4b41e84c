"""`vaebench run`, `resume`, `list` and `report`, as a user meets them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.processes import Command
from vaebench.cli import app
from vaebench.experiments import ResultDirectory
from vaebench.experiments import run as run_experiment
from vaebench.experiments.experiment import ComponentSpec, grid
from vaebench.experiments.presets import SMOKE, preset
from vaebench.experiments.studies import Study, read_study
from vaebench.training.schedules import inverse_sqrt

COMMAND = [sys.executable, "-m", "vaebench.cli"]


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def written(path: Path, base=SMOKE.base, **axes) -> str:
    study = Study(path.stem, "default", "Is it so?", "B", grid(base, **axes or {"B": [8, 16]}))
    path.write_text(json.dumps(study.to_dict()))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that was run, and its results; half of it was there before, as after an interruption."""
    folder = tmp_path_factory.mktemp("done")
    file, results = written(folder / "sizes.json"), folder / "results"
    run_experiment(read_study(Path(file)).arms[1].experiment, results)
    result = CliRunner().invoke(app, ["run", file, "--results", str(results), "--json"])
    assert result.exit_code == 0, result.output
    return results, json.loads(result.stdout)


def test_a_study_runs_and_says_what_came_out(done):
    results, rows = done
    assert [row["arm"] for row in rows] == ["B=8", "B=16"]
    assert all(row["state"] == "complete" and row["checks"] == 2 and not row["failed"] for row in rows)
    assert {"T_n", "|grad|^2", "log-likelihood, test"} <= rows[0]["final"].keys()
    assert read_study(results / "sizes.json").title == "sizes"


def test_a_report_is_written_with_an_index(done, run, tmp_path):
    result = run("report", "--results", str(done[0]), "--out", str(tmp_path))
    assert result.exit_code == 0
    assert "Is it so?" in (tmp_path / "sizes" / "index.html").read_text("utf-8")
    assert "Is it so?" in (tmp_path / "index.html").read_text("utf-8")


def test_the_list_names_parts_presets_and_results(done, run):
    found = json.loads(run("list", "--results", str(done[0]), "--json").stdout)
    assert found["results"] == {"sizes": "2 of 2 experiments complete"}
    assert {"digits", "celeba"} <= found["data"].keys()
    assert {"activations", "samples", "batch", "beta", "optimizers", "estimators", "bbvi"} <= found["presets"].keys()
    assert all(text for kind in ("data", "models", "estimators", "presets") for text in found[kind].values())
    assert "pathwise" in run("list", "--results", str(done[0])).stdout


def test_nothing_is_left_to_resume(done, run):
    result = run("resume", "--results", str(done[0]))
    assert result.exit_code == 0
    assert "is unfinished" in result.stderr


def test_a_seed_that_diverges_fails_the_study(run, tmp_path):
    base = replace(SMOKE.base, optimizer=ComponentSpec("sgd"), steps=20)
    file = written(tmp_path / "wild.json", base, schedule=[inverse_sqrt(1e-5), inverse_sqrt(1e9)])
    run_experiment(read_study(Path(file)).arms[0].experiment, tmp_path / "r")
    result = run("run", file, "--results", str(tmp_path / "r"), "--jobs", "2")
    assert result.exit_code == 1
    assert "broke" in result.stdout
    report = run("report", "wild", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "o"))
    assert report.exit_code == 0
    assert "diverged" in (tmp_path / "o" / "wild" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "activation"], "did you mean 'activations'?"),
        (["run", "beta", "--scale", "huge"], "scale must be one of"),
        (["run", "beta", "--device", "cuda:99"], "is not there"),
        (["run", "nowhere.json"], "There is no file 'nowhere.json'"),
        (["resume", "nothing"], "There is no study 'nothing'"),
        (["report"], "No complete study"),
        (["report", "nothing"], "There is no study 'nothing'"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_2(run, tmp_path, arguments, message):
    result = run(*arguments, "--results", str(tmp_path))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_place_that_cannot_be_written_is_one_sentence_and_exit_1(run, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("run", "beta", "--scale", "smoke", "--results", str(tmp_path / "file" / "results"))
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_full_disk_breaks_the_run_and_leaves_what_there_was(done, tmp_path):
    """A limit on the size of files stands for the disk: larger ones cannot be written."""
    results = tmp_path / "results"
    shutil.copytree(done[0], results)
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    size = max(len((results / "sizes.json").read_bytes()), 3000)
    file = written(tmp_path / "more.json", B=[24])
    status, printed, _ = Command(tmp_path, "run", file, "--results", str(results), "--json", limit=size).end()
    assert status == 1
    assert "File too large" in json.loads(printed)[0]["why"]
    assert {path: path.read_bytes() for path in before} == before
    place = ResultDirectory(results, read_study(Path(file)).arms[0].experiment)
    assert not place.complete()
    assert not [path for path in place.directory.iterdir() if path.name.startswith(".")]


def test_ctrl_c_ends_with_a_message_how_to_go_on_and_nothing_is_lost(tmp_path):
    file = written(tmp_path / "long.json", replace(SMOKE.base, steps=40_000))
    results = tmp_path / "results"
    command = [*COMMAND, "run", file, "--results", str(results)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(list(results.glob("*/experiment.json"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "To go on: vaebench resume long" in said
    places = [ResultDirectory(results, arm.experiment) for arm in read_study(Path(file)).arms]
    assert all(0 < place.step() < 40_000 for place in places)


def test_two_runs_of_one_study_the_second_says_so(tmp_path, run):
    study = preset("batch", "smoke")
    with ResultDirectory(tmp_path, study.arms[0].experiment).taken():
        result = run("run", "batch", "--scale", "smoke", "--results", str(tmp_path), "--json")
    first, second = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "Another process is running" in first["why"]
    assert second["state"] == "complete"


def test_help_has_examples(run):
    for command in ("run", "resume", "list", "report", "check", "compare"):
        assert f"vaebench {command}" in run(command, "--help").stdout
