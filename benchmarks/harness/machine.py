"""Describe this machine to asv, under a name that identifies the kind of machine and not its host.

Processors of one name may differ in speed and in their vector instructions, so the name also says the family and model
and the widest vectors: an AMD EPYC with AVX-512 is not one without. Prints the name, for asv's ``--machine``.
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
from typing import NamedTuple

from asv.machine import MachineCollection
from asv.util import get_cpu_info, get_memsize

GIB = 2**30
CPUINFO = Path("/proc/cpuinfo")
VECTORS = (("avx512f", "avx512"), ("avx2", "avx2"), ("avx", "avx"), ("sve", "sve"), ("asimd", "neon"))
"""Flags of the kernel and what they are called here, the widest first."""


class Processor(NamedTuple):
    """What tells processors of one name apart.

    Attributes:
        family: as the processor says it; on ARM, its maker.
        model: likewise; on ARM, its part.
        vectors: the widest vector instructions; empty where that is not known.
    """

    family: str = ""
    model: str = ""
    vectors: str = ""

    @property
    def words(self) -> str:
        """All that is known."""
        numbers = [f"family {self.family}" if self.family else "", f"model {self.model}" if self.model else ""]
        return ", ".join(filter(None, [*numbers, self.vectors]))


def processor(cpuinfo: str) -> Processor:
    """Read what the kernel says of the first processor."""
    first = cpuinfo.split("\n\n")[0]
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = (said.get("flags") or said.get("Features") or "").split()
    widest = next((called for flag, called in VECTORS if flag in flags), "")
    family, model = (
        said.get(x86, said.get(arm, "")) for x86, arm in (("cpu family", "CPU implementer"), ("model", "CPU part"))
    )
    return Processor(family, model, widest)


def gpu() -> str:
    """The first GPU that nvidia-smi names, or "none"; importing torch would cost seconds."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return next(iter(answer.stdout.splitlines()), "none") if answer.returncode == 0 else "none"


def name(cpu: str, kind: Processor, cores: int, gpu: str) -> str:
    """Name the kind of machine: the same hardware has the same name, wherever it runs."""
    model = re.sub(r"\((?:r|tm)\)|@.*", " ", cpu, flags=re.IGNORECASE)
    words = f"{model} {' '.join(kind)} {cores}cores {'' if gpu == 'none' else gpu}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def describe(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Fill in asv's machine entry; memory in whole GiB, since every distinct value splits the history."""
    cpu, cores, device = get_cpu_info() or platform.machine(), os.cpu_count() or 1, gpu()
    kind = processor(cpuinfo.read_text() if cpuinfo.exists() else "")
    return {
        "machine": name(cpu, kind, cores, device),
        "os": platform.system(),
        "arch": platform.machine(),
        "cpu": ", ".join(filter(None, [cpu, kind.words])),
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
