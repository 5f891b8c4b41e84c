"""The comment on a pull request says first what failed, and shows what was printed as it was printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".github/comment.py"
VERDICT = {"gate": "rows", "claim": "rows are separate", "statistic": 0.5, "threshold": 1.0, "passed": True}


def run(directory, *arguments, **outcomes):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(
        command, cwd=directory, env=os.environ | outcomes, capture_output=True, text=True, check=False
    )


def test_outcomes_come_first_and_bad_news_is_unfolded(tmp_path):
    (tmp_path / "gate.txt").write_text("17 counters, none rose")
    (tmp_path / "compare.txt").write_text("conv: slower, ````` and a fence")
    text = run(tmp_path, "comment", GATE="success", COMPARE="failure", CERTIFICATE="skipped").stdout
    assert "| Exact counters | passed |\n| Times beside the base | **failed** |\n| Certificate | **failed** |" in text
    assert "<details><summary>Exact counters</summary>" in text
    assert "<details open><summary>Times beside the base</summary>" in text
    assert "``````text\nconv: slower, ````` and a fence\n``````" in text
    assert text.index("Nothing was printed.") > text.index("<details open><summary>Certificate")


def test_what_is_long_is_cut(tmp_path):
    (tmp_path / "gate.txt").write_text("x" * 100_000)
    text = run(tmp_path, "comment", GATE="failure", COMPARE="success", CERTIFICATE="success").stdout
    assert text.count("x") < 16_000 and "the rest is in the artifact" in text


def test_failed_gates_come_first(tmp_path):
    verdicts = [VERDICT, VERDICT | {"gate": "mean", "passed": False, "statistic": None}]
    (tmp_path / "certificate.json").write_text(json.dumps(verdicts))
    lines = run(tmp_path, "certificate", "certificate.json").stdout.splitlines()
    assert lines[0] == "1 of 2 gates failed."
    assert lines[1].startswith("FAIL mean") and lines[2].startswith("pass rows: rows are separate; measured 0.5")


def test_anything_else_is_refused(tmp_path):
    assert run(tmp_path, "nothing").returncode == 2
