"""A repository with recorded results, for the tests of the dashboard."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.conditions import Conditions, record
from benchmarks.harness.dashboard.history import read

ROOT = Path(__file__).parents[1]
COMMITS, MINUTE = 8, 60_000
BENCHMARKS = {
    "convergence.Sgd.track_envelope_ratio": ("measured / bound", {"beta": ["0.3", "1.0"]}),
    "convergence.Sgd.track_identity_error": ("relative error", {"beta": ["0.3", "1.0"]}),
    "estimators.IwaeMlp.track_flops": ("FLOPs", {"estimator": ["'pathwise'", "'other'"], "K": ["1", "5"]}),
    "estimators.IwaeMlp.track_inverse_snr": (
        "noise / signal",
        {"estimator": ["'pathwise'", "'other'"], "K": ["1", "5"]},
    ),
    "models.Model.time_step": ("seconds", {}),
    "models.Model.track_ops": ("operations", {"model": ["'mlp'", "'conv'"]}),
    "data.Load.track_bytes": ("bytes", {}),
}
VALUES = {
    "convergence.Sgd.track_envelope_ratio": [0.93, 0.88],
    "convergence.Sgd.track_identity_error": [0.004, 0.02],
    "estimators.IwaeMlp.track_flops": [1e6, 5e6, 2e6, 6e6],
    "estimators.IwaeMlp.track_inverse_snr": [4.0, 1.0, 5.0, 0.5],
    "models.Model.time_step": [0.01],
    "models.Model.track_ops": [100, 200],
    "data.Load.track_bytes": [64],
}


def git(where, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    asked = ["git", "-C", str(where), *who, *arguments]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


class History:
    """A repository with recorded results."""

    def __init__(self, folder):
        self.folder, self.results = folder, folder / "reports" / "history"
        self.results.mkdir(parents=True)
        git(folder, "init", "-q", "-b", "main")
        conf = {"version": 1, "project": "p", "repo": ".", "branches": ["HEAD"], "benchmark_dir": "benchmarks"}
        conf |= {"results_dir": "reports/history", "html_dir": "reports/html", "show_commit_url": "index.html#at-"}
        conf |= {"plugins": [".benchmarks.harness.dashboard"], "environment_type": "virtualenv"}
        (folder / "asv.conf.json").write_text(json.dumps(conf))
        self.commits = []
        for number in range(COMMITS):
            git(folder, "commit", "-q", "--allow-empty", "-m", f"{number}")
            self.commits.append(git(folder, "rev-parse", "HEAD"))
        listed = {
            name: {
                "name": name, "code": "", "type": "time" if unit == "seconds" else "track", "unit": unit,
                "version": "1", "param_names": list(params), "params": list(params.values()),
            }
            for name, (unit, params) in BENCHMARKS.items()
        }  # fmt: skip
        (self.results / "benchmarks.json").write_text(json.dumps(listed | {"version": 2}))

    def list_version(self, version):
        """Let the benchmarks be of a version."""
        path = self.results / "benchmarks.json"
        listed = json.loads(path.read_text())
        for benchmark in listed.values():
            if isinstance(benchmark, dict):
                benchmark["version"] = version
        path.write_text(json.dumps(listed))

    def measure(self, number, machine, conditions=True, others=0.0, about=(), version="1", edit=None, **changes):
        """Record a commit, `others` cores used by others; `changes` by the last part of a benchmark's name.

        `edit` is given what will stand in the file, to change it.
        """
        folder = self.results / machine
        folder.mkdir(exist_ok=True)
        about = {"machine": machine, "os": "Linux", "arch": "x", "cpu": machine, "num_cpu": "2", "ram": "1GiB"} | dict(
            about
        )
        (folder / "machine.json").write_text(json.dumps(about | {"version": 1}))
        values = {name: changes.get(name.rsplit(".", 1)[1], usual) for name, usual in VALUES.items()}
        began = 10 * MINUTE * number
        results = {
            name: [found, list(BENCHMARKS[name][1].values()), version, began + MINUTE, 1.0]
            for name, found in values.items()
            if found is not None
        }
        commit = self.commits[number]
        kept = {"commit_hash": commit, "env_name": "e", "date": began, "python": "3.11", "requirements": {}}
        kept |= {
            "params": about | {"python": "3.11"},
            "env_vars": {},
            "results": results,
            "durations": {},
            "version": 2,
        }
        kept["result_columns"] = ["result", "params", "version", "started_at", "duration"]
        if edit:
            edit(kept)
        (folder / f"{commit[:8]}-e.json").write_text(json.dumps(kept))
        if conditions:
            span = (began / 1000, (began + 5 * MINUTE) / 1000)
            record(Conditions(commit, *span, (0.1, 1.0), others, 0.01), folder)

    def publish(self, repository=None):
        where = repository or self.folder
        asked = [sys.executable, "-m", "asv", "publish", "--no-pull"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            asked, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def readings(self):
        listed = json.loads((self.results / "benchmarks.json").read_text())
        benchmarks = {name: one for name, one in listed.items() if name != "version"}
        return read(str(self.results), benchmarks, {commit: number for number, commit in enumerate(self.commits)})

    def regressions(self):
        done = self.publish()
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((self.folder / "reports/html/regressions.json").read_text())["regressions"]

    @property
    def page(self):
        return (self.folder / "reports/html/index.html").read_text("utf-8")
