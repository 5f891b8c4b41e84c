"""Describe this machine to asv, under a name that identifies the kind of machine and not its host.

Prints the name, for asv's ``--machine``.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from asv.machine import MachineCollection
from asv.util import get_cpu_info, get_memsize

GIB = 2**30


def gpu() -> str:
    """The first GPU that nvidia-smi names, or "none"; importing torch would cost seconds."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return next(iter(answer.stdout.splitlines()), "none") if answer.returncode == 0 else "none"


def name(cpu: str, cores: int, gpu: str) -> str:
    """Name the kind of machine: the same hardware has the same name, wherever it runs."""
    model = re.sub(r"\((?:r|tm)\)|@.*", " ", cpu, flags=re.IGNORECASE)
    words = f"{model} {cores}cores {'' if gpu == 'none' else gpu}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def describe() -> dict[str, str]:
    """Fill in asv's machine entry; memory in whole GiB, since every distinct value splits the history."""
    cpu, cores, device = get_cpu_info() or platform.machine(), os.cpu_count() or 1, gpu()
    return {
        "machine": name(cpu, cores, device),
        "os": platform.system(),
        "arch": platform.machine(),
        "cpu": cpu,
        "num_cpu": str(cores),
        "ram": f"{round(int(get_memsize() or 0) / GIB)}GiB",
        "gpu": device,
    }


def register(entry: dict[str, str], path: Path) -> None:
    """Add the entry to asv's machine file unless one of that name is there; the others stay."""
    try:
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise SystemExit(f"{path} is not JSON ({error}): repair or remove it.") from None
    if entry["machine"] in known:
        return
    known |= {entry["machine"]: entry, "version": MachineCollection.api_version}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(known, file, indent=4, sort_keys=True)
    Path(file.name).replace(path)


def ensure() -> str:
    """Register this machine with asv and return its name."""
    entry = describe()
    register(entry, Path(MachineCollection.get_machine_file_path()))
    return entry["machine"]


if __name__ == "__main__":
    sys.stdout.write(f"{ensure()}\n")
