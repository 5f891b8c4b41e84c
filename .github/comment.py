"""The comment on a pull request: what the gate, the comparison of times and the certificate said.

`comment.py certificate FILE` prints the verdicts of `vaebench check --json`, a line each. `comment.py comment` prints
Markdown from gate.txt, compare.txt and certificate.txt, and their outcomes in GATE, COMPARE and CERTIFICATE.
"""

import json
import os
import re
import sys
from pathlib import Path

PARTS = {
    "GATE": ("Exact counters", "gate.txt"),
    "COMPARE": ("Times beside the base", "compare.txt"),
    "CERTIFICATE": ("Certificate", "certificate.txt"),
}
LONGEST = 15_000  # characters of a part: a comment has 65,536


def verdicts(path: Path) -> str:
    """A line a gate, failed ones first."""
    found = sorted(json.loads(path.read_text("utf-8")), key=lambda one: one["passed"])
    failed = sum(not one["passed"] for one in found)
    lines = [
        f"{'pass' if one['passed'] else 'FAIL'} {one['gate']}: {one['claim']}; "
        f"measured {one['statistic']}, at most {one['threshold']} allowed"
        for one in found
    ]
    return "\n".join([f"{failed} of {len(found)} gates failed.", *lines])


def comment() -> str:
    """Outcomes in the first lines; what was printed, folded where it is good news."""
    sections, summary = [], []
    for variable, (title, name) in PARTS.items():
        good = os.environ.get(variable) == "success"
        summary.append(f"| {title} | {'passed' if good else '**failed**'} |")
        path = Path(name)
        text = path.read_text("utf-8").strip() if path.is_file() else "Nothing was printed."
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]}\n... (the rest is in the artifact)"
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        opened = "" if good else " open"
        sections.append(f"<details{opened}><summary>{title}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>")
    return "\n".join(["## Benchmarks", "", "| | |", "|---|---|", *summary, "", *sections])


def main(arguments: list[str]) -> int:
    """Print what was asked for; 2 if nobody can tell what was."""
    match arguments:
        case ["certificate", path]:
            sys.stdout.write(f"{verdicts(Path(path))}\n")
        case ["comment"]:
            sys.stdout.write(f"{comment()}\n")
        case _:
            sys.stderr.write(f"Usage: {__doc__}")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
