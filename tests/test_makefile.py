"""What users set for make is never read as code, and make works wherever the repository lies."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTILE = [
    "x';touch {0};'",
    '";touch {0};"',
    "`touch {0}`",
    "$(touch {0})",
    "$(shell touch {0})",
    "$$(touch {0})",
    "-h",
]
STUB = '#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done >> "$SAID"\nexit 1\n'


@pytest.fixture
def folder(tmp_path):
    """A copy of the Makefile in a path with a space, its tools replaced by one that writes down its arguments."""
    folder = tmp_path / "a b%20c"
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (".python", ".bench", ".dev", ".peers"):
        (folder / ".venv" / name).touch()
    (folder / "benchmarks" / "peers").mkdir(parents=True)
    (folder / "benchmarks" / "peers" / "requirements.txt").touch()
    os.utime(folder / ".venv" / ".peers", (2e9, 2e9))
    for name in (".python", ".bench", ".dev"):
        os.utime(folder / ".venv" / name, (2e9 - 1, 2e9 - 1))
    for name in ("python", "vaebench"):
        (tools / name).write_text(STUB)
        (tools / name).chmod(0o755)
    return folder


def make(folder, *arguments, **environment):
    said = folder / "said"
    said.unlink(missing_ok=True)
    ours = {"BASE", "PYTHON", "QUICK", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=kept | {"SAID": str(said)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done, said.read_text().splitlines() if said.exists() else []


@pytest.mark.parametrize("where", ["argument", "environment"])
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("target", ["gate", "compare"])
def test_a_base_reaches_the_program_as_it_was_written(folder, target, text, where):
    written = text.format(folder / "pwned")
    if where == "argument":
        _, said = make(folder, target, f"BASE={written}")
    else:
        _, said = make(folder, target, BASE=written)
    assert said == ["-m", f"benchmarks.harness.{target}", "--", written]
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("name", ["PYTHON", "QUICK", "VAEBENCH_PROFILE", "VENV", "BIN", "ASV", "PAGES", "STUDIES"])
@pytest.mark.parametrize("where", ["argument", "environment"])
@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_no_variable_is_run_by_the_shell(folder, name, text, where):
    written = text.format(folder.parent / "pwned")
    options = [f"{name}={written}"] if where == "argument" else []
    environment = {"PYTHON": "python"} | ({name: written} if where == "environment" else {})
    done, said = make(folder, "--keep-going", "cuda", "peers", "studies", "dashboard", "help", *options, **environment)
    assert name == "VAEBENCH_PROFILE" or ("make bench" in done.stdout and said)
    assert not (folder.parent / "pwned").exists()


def test_without_a_base_the_program_says_what_is_missing(folder):
    assert make(folder, "gate")[1] == ["-m", "benchmarks.harness.gate"]


def test_a_profile_that_is_none_is_refused(folder):
    done, said = make(folder, "bench", "VAEBENCH_PROFILE=fast")
    assert done.returncode == 2 and "must be quick or full, got 'fast'" in done.stderr and not said


def test_pip_finds_the_constraints_in_a_path_with_a_space(folder):
    (folder / "show.mk").write_text("include Makefile\nshow:\n\t@printf '%s' \"$$PIP_CONSTRAINT\"\n")
    done, _ = make(folder, "-f", "show.mk", "show")
    assert " " not in done.stdout
    assert done.stdout == (folder / "constraints.txt").as_uri()
