"""`python -m benchmarks.cuda`: the CUDA tests, then the CUDA benchmarks; needs torch and numpy, installs nothing.

The record is written after every point, and the same command goes on where it stopped, as long as code, device and
versions are those of the record. Exit status: 0 done, 1 a CUDA test failed, 2 there is no CUDA device, 3 time was up
before every point was measured.
"""

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.cuda import variants
from benchmarks.cuda.points import TINY, Row, Sizes, plan
from benchmarks.harness.pinned import pinned
from vaebench.support.files import write_whole

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


def code() -> str:
    """A digest of what is measured and of what measures it, which needs neither git nor a clean checkout."""
    digest = hashlib.sha256()
    for path in sorted([*Path("vaebench").rglob("*.py"), *Path("benchmarks/cuda").glob("*.py")]):
        digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def header(device: str, quick: bool) -> dict[str, Any]:
    """What was measured, on what."""
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
        "rehearsal": quick or not cuda,
        "quick": quick,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "code": code(),
        "pinned": pinned(),
        "settings": "TF32 off but where a variant names it; data: random binary images; noise drawn before the step",
    }


class Record(NamedTuple):
    """What is known so far, and where it is kept."""

    content: dict[str, Any]
    out: Path | None

    @classmethod
    def begin(cls, key: dict[str, Any], out: Path | None) -> "Record":
        """An empty one, or that of the file, if it is of the same code on the same device; it is replaced otherwise."""
        try:
            found = dict(json.loads(out.read_text("utf-8"))) if out and out.exists() else {}
        except (TypeError, ValueError) as error:
            raise SystemExit(f"{out} is no record ({error}): move it away, or name another file with --out.") from None
        known = found if all(found.get(name) == value for name, value in key.items()) else {}
        rest = {"tests": None, "passed": False, "points": {}}
        return cls(key | {name: known.get(name, empty) for name, empty in rest.items()}, out)

    def keep(self) -> None:
        """Write the file."""
        if self.out:
            when = {"commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
            write_whole(self.out, (json.dumps(self.content | when, indent=1) + "\n").encode())

    def rows(self) -> list[Row]:
        """Of all points."""
        return [row for rows in self.content["points"].values() for row in rows]


def measure(record: Record, sizes: Sizes, device: str, begin: float) -> list[str]:
    """All points that are not known, in turn; the names of those that had not begun when time was up."""
    points, left = record.content["points"], []
    with variants.precision():
        for name, point in plan(sizes, device):
            start = time.monotonic()
            if name in points:
                say(f"{name}: known")
            elif start - begin > sizes.seconds:
                left.append(name)
            else:
                try:
                    points[name] = point()
                except Exception as error:  # out of memory before a row could be made
                    points[name] = [{"what": name, "reason": f"{type(error).__name__}: {str(error)[:200]}"}]
                record.keep()
                say(f"{name}: {time.monotonic() - start:.1f} s")
    return left


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
    begin, key = time.monotonic(), header(chosen.device, chosen.quick)
    out = chosen.out
    if out is None and not key["rehearsal"]:
        out = RECORDS / (re.sub(r"[^a-z0-9]+", "-", key["device"].lower()).strip("-") + ".json")
    record = Record.begin(key, out)
    if not record.content["passed"]:
        record.content["tests"], record.content["passed"] = (
            ("not run: a rehearsal", True) if key["rehearsal"] else tested()
        )
        record.keep()
    left = measure(record, TINY if chosen.quick else Sizes(), chosen.device, begin)
    say("\n".join(map(line, record.rows())))
    if out:
        say(f"Written to {out}.")
    if left:
        say(f"Time was up before {', '.join(left)}: the same command goes on.")
    return 1 if not record.content["passed"] else 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
