"""Run a wheel as its user would: in a fresh environment, from an empty directory. `python .ci/wheel.py dist/*.whl`.

Dependencies are those of the environment that runs this; vaebench itself can only come from the wheel.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

COMMANDS = [
    ["--version"],
    ["list"],
    ["certify", "pathwise", "--quick"],
    ["new", "estimator", "mine"],
    ["run", "optimizers", "--scale", "smoke", "--seeds", "1", "--jobs", "1"],
    ["report", "optimizers-smoke"],
]
WHERE = "import vaebench, sys; sys.exit(not vaebench.__file__.startswith(sys.prefix))"


def main(wheel: Path) -> int:
    """Install and run; the first command that fails ends it, with its output."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch, "environment")
        venv.create(home, symlinks=True)
        python = home / "bin/python"
        site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
        # Paths in a .pth file are searched, but their own .pth files, as of an editable vaebench, are not read.
        (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        empty = Path(scratch, "empty")
        empty.mkdir()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = "1"
        steps = [[sys.executable, *install], [str(python), "-c", WHERE]]
        steps += [[str(home / "bin/vaebench"), *command] for command in COMMANDS]
        for step in steps:
            done = subprocess.run(step, cwd=empty, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{' '.join(step)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
                return 1
        pages = list(empty.glob("results/reports/optimizers-smoke/index.html"))
    print(f"{wheel.name} works: {len(COMMANDS)} commands, {len(pages)} report.")
    return int(len(pages) != 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
