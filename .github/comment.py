"""The comment on a pull request: what the gate, the comparison of times and the certificate said.

Prints Markdown from gate.md, compare.md and certificate.md, and their outcomes in GATE, COMPARE and CERTIFICATE. Where
one of them wrote no Markdown, the end of what it printed stands in its place, from the .txt of the same name.
"""

import os
import re
import sys
from pathlib import Path

PARTS = {"GATE": "Exact counters", "COMPARE": "Times beside the base", "CERTIFICATE": "Certificate"}
LONGEST = 15_000  # characters of what was printed: a comment has 65,536


def part(name: str) -> str:
    """What one of them said."""
    said, printed = Path(f"{name}.md"), Path(f"{name}.txt")
    if said.is_file() and (text := said.read_text("utf-8").strip()):
        return text
    text = printed.read_text("utf-8").strip() if printed.is_file() else ""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    cut = "...\n" if len(text) > LONGEST else ""
    return f"{fence}text\n{cut}{text[-LONGEST:] or 'Nothing was printed.'}\n{fence}"


def comment() -> str:
    """Outcomes in the first lines; what was said of good news is folded away."""
    sections, summary = [], []
    for variable, title in PARTS.items():
        good = os.environ.get(variable) == "success"
        summary.append(f"| {title} | {'passed' if good else '**failed**'} |")
        opened = "" if good else " open"
        text = part(variable.lower())
        sections.append(f"<details{opened}><summary>{title}</summary>\n\n{text}\n\n</details>")
    return "\n".join(["## Benchmarks", "", "| | |", "|---|---|", *summary, "", *sections])


if __name__ == "__main__":
    sys.stdout.write(f"{comment()}\n")
