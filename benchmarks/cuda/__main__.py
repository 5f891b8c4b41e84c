"""`python -m benchmarks.cuda`: the CUDA tests, then the CUDA benchmarks; needs torch and numpy, installs nothing.

Exit status: 0 done, 1 a CUDA test failed, 2 there is no CUDA device.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.cuda import variants
from benchmarks.cuda.points import TINY, Row, Sizes, plan
from benchmarks.harness.pinned import pinned
from vaebench.files import write_whole

RECORDS = Path("reports/history/cuda")
TESTS = {"tests/test_devices.py": "torch", "tests/test_cost.py": "scipy"}
"""With what a file needs beside pytest."""


def say(line: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tested() -> tuple[str, bool]:
    """Run the CUDA tests: what came out, and whether nothing failed. They need no more than pytest."""
    if find_spec("pytest") is None:
        return "not run: pytest is missing", True
    options = ["--noconftest", "-o", "addopts=", "-W", "default", "-p", "no:cacheprovider", "-q", "-m", "cuda"]
    files = [file for file, need in TESTS.items() if find_spec(need)]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files], capture_output=True, text=True, check=False
    )
    say(answer.stdout[-4000:] + answer.stderr[-1000:])
    last = next(iter(answer.stdout.strip().splitlines()[::-1]), "no output").strip("= ")
    return last, answer.returncode == 0


def commit() -> str | None:
    """Of the code, where git is there."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def header(device: str) -> dict[str, Any]:
    """What was measured on."""
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
        "rehearsal": not cuda,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "pinned": pinned(),
        "settings": "TF32 off but where a variant names it; data: random binary images; noise drawn before the step",
    }


def measure(sizes: Sizes, device: str) -> list[Row]:
    """All points in turn; those that have not begun when time is up are named in a row each."""
    rows: list[Row] = []
    begin = time.monotonic()
    with variants.precision():
        for name, point in plan(sizes, device):
            spent = time.monotonic() - begin
            if spent > sizes.seconds:
                rows.append({"what": name, "reason": f"not measured: the {sizes.seconds:g} s were spent"})
            else:
                try:
                    rows += point()
                except Exception as error:  # out of memory before a row could be made
                    rows.append({"what": name, "reason": f"{type(error).__name__}: {str(error)[:200]}"})
            say(f"{name}: {time.monotonic() - begin - spent:.1f} s")
    return rows


def line(row: Row) -> str:
    """One row of the table."""
    place = " ".join(f"{key}={row[key]}" for key in ("model", "K", "B", "members") if key in row)
    found = []
    if "speedup" in row:
        s = row["speedup"]
        found.append(f"{1e3 * row['seconds']['median']:.3f} ms, {s['median']:.2f}x [{s['low']:.2f}, {s['high']:.2f}]")
    if "gradient_error" in row:
        found.append("gradient off by " + ", ".join(f"{k} {v:.1e}" for k, v in row["gradient_error"].items()))
        found += ["WRONG"] * (not row["right"])
    if "ratio" in row:
        found.append(f"{row['ratio']:.3f} of the time one by one")
    if "share" in row:
        found.append(f"{100 * row['share']['median']:.1f} % of a step")
    if "bytes" in row:
        found.append(f"{row['bytes'] / 2**20:.0f} MiB")
    if "met" in row:
        found.append(f"goal {row['goal']:.3g} {'met' if row['met'] else 'not met'}")
    found += [row["reason"]] if "reason" in row else []
    return f"{row['what']:<22} {place:<36} {row.get('variant', ''):<28} {'; '.join(found)}"


def main(arguments: list[str] | None = None) -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description="CUDA tests and benchmarks.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal, not recorded")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, without the tests")
    parser.add_argument("--out", type=Path, help="file to write; default one per device, nothing in a rehearsal")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        say(
            f"torch {torch.__version__} sees no CUDA device: run this where it does, with PYTHON= naming a Python "
            "whose torch is built for CUDA, or rehearse with python -m benchmarks.cuda --device cpu --quick."
        )
        return 2
    tests, fine = ("not run: a rehearsal", True) if chosen.quick or chosen.device == "cpu" else tested()
    record = header(chosen.device) | {"quick": chosen.quick, "tests": tests}
    record["rehearsal"] = record["rehearsal"] or chosen.quick
    record["rows"] = measure(TINY if chosen.quick else Sizes(), chosen.device)
    say("\n".join(map(line, record["rows"])))
    out = chosen.out
    if out is None and not record["rehearsal"]:
        out = RECORDS / (re.sub(r"[^a-z0-9]+", "-", record["device"].lower()).strip("-") + ".json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, (json.dumps(record, indent=1) + "\n").encode())
        say(f"Written to {out}.")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
